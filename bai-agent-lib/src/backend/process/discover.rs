//! The interpreters and compilers of this host, described like images (spec image-recipes.md, section 1).
//!
//! This is done at every start, so what the file system tells is not asked of a program: starting one costs tens of
//! milliseconds, and a version manager's shim, a shell script, several times that.

mod python;
mod shim;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bai_core::image::Image;
use futures_util::future::join;
use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use self::shim::Behind;

/// Time for a program to tell its version.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Programs asked at the same time.
const PARALLEL: usize = 4;

/// A program other than Python, which tells its version when asked.
struct Tool {
    image: &'static str,
    runtime: &'static str,
    programs: &'static [&'static str],
    arguments: &'static [&'static str],
    /// How many numbers of the version make the tag.
    parts: usize,
    aliases: &'static [&'static str],
    features: &'static str,
}

const INTERACTIVE: &str = "batch query uid-match user-input";
const BATCH: &str = "batch uid-match";

const TOOLS: &[Tool] = &[
    Tool {
        image: "nodejs",
        runtime: "nodejs",
        programs: &["node", "nodejs"],
        arguments: &["--version"],
        parts: 1,
        aliases: &["nodejs", "node"],
        features: INTERACTIVE,
    },
    Tool {
        image: "c",
        runtime: "c",
        programs: &["gcc"],
        arguments: &["-dumpfullversion", "-dumpversion"],
        parts: 1,
        aliases: &["c", "gcc"],
        features: INTERACTIVE,
    },
    Tool {
        image: "cpp",
        runtime: "cpp",
        programs: &["g++"],
        arguments: &["-dumpfullversion", "-dumpversion"],
        parts: 1,
        aliases: &["cpp", "g++"],
        features: INTERACTIVE,
    },
    Tool {
        image: "r",
        runtime: "r",
        programs: &["R"],
        arguments: &["--version"],
        parts: 2,
        aliases: &["r"],
        features: BATCH,
    },
    Tool {
        image: "lua",
        runtime: "lua",
        programs: &["lua", "lua5.4", "lua5.3"],
        arguments: &["-v"],
        parts: 2,
        aliases: &["lua"],
        features: BATCH,
    },
    Tool {
        image: "golang",
        runtime: "golang",
        programs: &["go"],
        arguments: &["version"],
        parts: 2,
        aliases: &["golang", "go"],
        features: BATCH,
    },
    Tool {
        image: "julia",
        runtime: "julia",
        programs: &["julia"],
        arguments: &["--version"],
        parts: 2,
        aliases: &["julia"],
        features: BATCH,
    },
    Tool {
        image: "php",
        runtime: "php",
        programs: &["php"],
        arguments: &["--version"],
        parts: 2,
        aliases: &["php"],
        features: BATCH,
    },
];

/// An image of this back end: a program of the host with what it needs to run.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    pub(super) image: Image,
    /// The program, wrappers resolved.
    pub(super) executable: PathBuf,
    /// Directories it is installed in, if not the system's.
    pub(super) prefixes: Vec<PathBuf>,
}

/// Looks through the directories of `path` (separated by colons). The first program of a kind and version wins, and the
/// first of a kind gets the short names.
pub(super) async fn discover(path: &str) -> Vec<Environment> {
    let lookups: Vec<_> = TOOLS.iter().map(|tool| find_tool(path, tool)).collect();
    let tools = stream::iter(lookups).buffered(PARALLEL).filter_map(|tool| async { tool });
    let (mut found, tools) = join(python::find(path), tools.collect::<Vec<_>>()).await;
    found.extend(tools);
    found.extend(find_shell(path));
    found
}

async fn find_tool(path: &str, tool: &Tool) -> Option<Environment> {
    let program = tool.programs.iter().find_map(|name| programs(path, name).into_iter().next())?;
    let version = version_in(&ask(&program, tool.arguments).await?, tool.parts)?;
    let name = format!("{}:{version}", tool.image);
    let image = describe(name, tool.runtime, tool.features, &program, tool.aliases);
    let resolved = fs::canonicalize(&program).ok()?;
    // `<prefix>/bin/<program>`: the libraries are next to `bin`.
    let prefix = resolved.parent().filter(|dir| dir.ends_with("bin")).and_then(Path::parent);
    let prefixes = prefix.filter(|prefix| may_expose(prefix)).map(Path::to_path_buf).into_iter().collect();
    Some(Environment { image, executable: program, prefixes })
}

fn find_shell(path: &str) -> Option<Environment> {
    let program = ["bash", "sh"].iter().find_map(|name| programs(path, name).into_iter().next())?;
    let aliases = ["shell", "sh", "app"];
    let image = describe("shell:posix".into(), "app", INTERACTIVE, &program, &aliases);
    Some(Environment { image, executable: program, prefixes: Vec::new() })
}

/// Executable files called `name`, in the order of `path`, each file once. A shim stands for the program behind it.
fn programs(path: &str, name: &str) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    let files = path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join(name));
    files
        .filter(|file| is_executable(file))
        .filter_map(|file| match shim::behind(&file) {
            Behind::Itself => Some(file),
            Behind::Program(program) => Some(program),
            Behind::Nothing => None,
        })
        .filter(|file| {
            let resolved = fs::canonicalize(file).unwrap_or_default();
            !seen.contains(&resolved) && {
                seen.push(resolved);
                true
            }
        })
        .collect()
}

fn is_executable(file: &Path) -> bool {
    let metadata = fs::metadata(file);
    metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// A directory this shallow (`/usr`, `/home`) is the system's or holds more than an interpreter.
fn may_expose(prefix: &Path) -> bool {
    prefix.is_absolute() && prefix.components().count() > 2 && !prefix.starts_with("/usr")
}

async fn ask(program: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER_TIMEOUT, command.output()).await.ok()?.ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    output.status.success().then(|| String::from_utf8_lossy(&text).into_owned())
}

/// The first dotted number in `text`, cut to `parts` numbers.
fn version_in(text: &str, parts: usize) -> Option<String> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let number = text[start..].split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    Some(number.split('.').filter(|part| !part.is_empty()).take(parts).collect::<Vec<_>>().join("."))
}

fn describe(name: String, runtime: &str, features: &str, executable: &Path, aliases: &[&str]) -> Image {
    let label = |key: &str, value: &str| (format!("ai.backend.{key}"), value.to_owned());
    let mut labels = BTreeMap::from([
        label("kernelspec", "1"),
        label("role", "COMPUTE"),
        label("runtime-type", runtime),
        label("runtime-path", &executable.to_string_lossy()),
        label("features", features),
        label("resource.min.cpu", "1"),
        label("resource.min.mem", "64m"),
        label("resource.preferred.shmem", "64m"),
    ]);
    labels.extend(base_distro().map(|distro| label("base-distro", &distro)));
    let digest = Sha256::new().chain_update(executable.as_os_str().as_encoded_bytes()).chain_update(&name);
    Image {
        digest: format!("sha256:{}", hex::encode(digest.finalize())),
        name,
        architecture: std::env::consts::ARCH.to_owned(),
        size: fs::metadata(executable).map_or(0, |metadata| metadata.len()),
        labels,
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
    }
}

/// Name and version of the distribution, such as `debian12`.
fn base_distro() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    Some(format!("{}{}", value("ID")?, value("VERSION_ID").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, parts, expected) in [
            ("v20.11.1\n", 1, "20"),
            ("12.2.0\n", 1, "12"),
            ("R version 4.2.2 (2022-10-31)", 2, "4.2"),
            ("go version go1.19.8 linux/amd64", 2, "1.19"),
            ("Lua 5.4.4  Copyright (C)", 2, "5.4"),
        ] {
            assert_eq!(version_in(text, parts).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(version_in("no number", 2), None);
    }

    #[test]
    fn system_and_shallow_directories_are_not_exposed() {
        for (prefix, expected) in [
            ("/usr", false),
            ("/usr/local", false),
            ("/home", false),
            ("/", false),
            ("/home/a/venv", true),
            ("/opt/conda", true),
            ("relative/dir", false),
        ] {
            assert_eq!(may_expose(Path::new(prefix)), expected, "{prefix}");
        }
    }

    #[tokio::test]
    async fn the_host_has_a_shell_and_its_labels_are_complete() {
        let found = discover("/usr/local/bin:/usr/bin:/bin").await;
        let shell = found.iter().find(|found| found.image.aliases.contains(&"shell".to_owned())).unwrap();
        assert_eq!(shell.image.label("runtime-type"), Some("app"));
        assert_eq!(shell.image.label("kernelspec"), Some("1"));
        assert!(shell.executable.exists());
        assert_eq!(shell.image.bounds("min").collect::<Vec<_>>(), [("cpu", "1"), ("mem", "64m")]);
    }
}
