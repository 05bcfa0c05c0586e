//! Builds the kernel runner as one static binary, which the library embeds.
//!
//! The runner must start in images of any distribution, so it is linked statically and for its own profile, which
//! an ordinary dependency cannot be. It is built by a cargo of its own in this crate's output directory.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

fn main() {
    let root = Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    for source in [
        "bai-kernel-lib/src",
        "bai-kernel-lib/drivers",
        "bai-kernel-lib/Cargo.toml",
        "daemons/bai-krunner",
        "Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("runner");
    let target = env::var("TARGET").unwrap_or_default();
    let status = cargo(&root, &out, &target).status();
    if !matches!(&status, Ok(status) if status.success()) {
        println!("cargo::error=the kernel runner could not be built: {status:?}");
        exit(1);
    }
    println!("cargo::rustc-env=BAI_KRUNNER={}", out.join(&target).join("runner/bai-krunner").display());
}

/// The nested build. Nothing of the outer one may leak into it: not its flags, wrappers, or features.
fn cargo(root: &Path, out: &Path, target: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--package", "bai-krunner", "--profile", "runner"])
        .arg("--target-dir")
        .arg(out)
        .args(["--target", target]);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let outer =
            name.starts_with("CARGO_") && !["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&name.as_str());
        if outer
            || name.starts_with("RUSTC")
            || ["RUSTFLAGS", "RUSTDOCFLAGS", "CLIPPY_ARGS", "CLIPPY_CONF_DIR"].contains(&name.as_str())
        {
            command.env_remove(name);
        }
    }
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    command
}
