//! The runner as one static binary, as it is mounted into containers of any image.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the runner once and returns its path.
pub(super) fn runner() -> &'static Path {
    static RUNNER: OnceLock<PathBuf> = OnceLock::new();
    RUNNER.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        // A directory of its own: other flags would make cargo build everything again for everyone else.
        let target = own.ancestors().nth(3).unwrap().join("static-runner");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "bai-krunner", "--profile", "runner", "--target", TARGET])
            .arg("--target-dir")
            .arg(&target)
            .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .unwrap();
        assert!(built.success());
        target.join(TARGET).join("runner/bai-krunner")
    })
}
