//! Python interpreters.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};
use serde::Deserialize;

use super::{Environment, INTERACTIVE, PARALLEL, ask, describe, may_expose, programs};

const NAMES: &[&str] = &[
    "python3",
    "python",
    "python3.14",
    "python3.13",
    "python3.12",
    "python3.11",
    "python3.10",
    "python3.9",
    "python3.8",
    "python3.7",
];

/// Where it is installed, virtual environments included, whatever wrapper started it.
const ASK: &str = "import json,sys; print(json.dumps({'version': '%d.%d' % sys.version_info[:2], \
    'executable': sys.executable, \
    'prefixes': [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]}))";

#[derive(Debug, PartialEq, Deserialize)]
struct Python {
    version: String,
    executable: PathBuf,
    prefixes: Vec<PathBuf>,
}

/// The interpreters in the directories of `path`: the first of a version counts, and the first of all is `python`.
pub(super) async fn find(path: &str) -> Vec<Environment> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    for candidate in NAMES.iter().flat_map(|name| programs(path, name)) {
        if !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    }
    let answers = stream::iter(candidates).map(|program| async move {
        match installed(&program) {
            Some(python) => Some(python),
            None => interview(&program).await,
        }
    });
    let mut found: Vec<Environment> = Vec::new();
    for answer in answers.buffered(PARALLEL).collect::<Vec<_>>().await.into_iter().flatten() {
        let aliases: &[&str] = if found.is_empty() { &["python", "python3"] } else { &[] };
        let name = format!("python:{}", answer.version);
        if found.iter().all(|other| other.image.name != name) {
            let image = describe(name, "python", INTERACTIVE, &answer.executable, aliases);
            let mut prefixes = answer.prefixes;
            prefixes.retain(|prefix| may_expose(prefix));
            prefixes.sort();
            prefixes.dedup();
            found.push(Environment { image, executable: answer.executable, prefixes });
        }
    }
    found
}

/// What the places of its files say about an interpreter: a program `<prefix>/bin/python3.x`, perhaps by way of the links of a
/// virtual environment. `None` for a wrapper, and for anything laid out differently.
fn installed(program: &Path) -> Option<Python> {
    let resolved = fs::canonicalize(program).ok()?;
    let version = resolved.file_name()?.to_str()?.strip_prefix("python")?.to_owned();
    let mut numbers = version.split('.');
    let is_version = numbers.by_ref().take(2).filter(|number| number.parse::<u8>().is_ok()).count() == 2;
    if !is_version || numbers.next().is_some() || !is_program(&resolved) {
        return None;
    }
    let base = prefix(&resolved)?;
    if is_virtual(base) {
        return None; // a copy of the interpreter: only it knows where it came from
    }
    match prefix(program).filter(|prefix| is_virtual(prefix)) {
        Some(environment) => {
            let prefixes = vec![environment.to_owned(), base.to_owned()];
            Some(Python { version, executable: program.to_owned(), prefixes })
        }
        None => Some(Python { version, prefixes: vec![base.to_owned()], executable: resolved }),
    }
}

fn prefix(program: &Path) -> Option<&Path> {
    program.parent().filter(|dir| dir.ends_with("bin"))?.parent()
}

fn is_virtual(prefix: &Path) -> bool {
    prefix.join("pyvenv.cfg").is_file()
}

/// Whether a file is a program of its own, not a script.
fn is_program(file: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(file).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

async fn interview(program: &Path) -> Option<Python> {
    let answer = ask(program, &["-I", "-c", ASK]).await?;
    let python: Python = serde_json::from_str(&answer).ok()?;
    python.executable.is_absolute().then_some(python)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const SYSTEM: &str = "/usr/local/bin:/usr/bin:/bin";

    async fn system() -> Environment {
        find(SYSTEM).await.into_iter().next().expect("this test needs a python3 in /usr/bin")
    }

    #[tokio::test]
    async fn the_places_of_an_interpreter_say_what_it_would_say_itself() {
        let real = system().await.executable;
        let seen = installed(&real).expect("the python3 of the system is installed as usual");
        let said = interview(&real).await.unwrap();
        assert_eq!(seen.version, said.version);
        let canonical = |path: &Path| fs::canonicalize(path).unwrap();
        assert_eq!(canonical(&seen.executable), canonical(&said.executable));
        assert!(seen.prefixes.iter().all(|prefix| said.prefixes.contains(prefix)), "{seen:?} {said:?}");
    }

    #[tokio::test]
    async fn a_wrapper_is_resolved_to_the_interpreter_behind_it() {
        let real = system().await;
        let dir = tempfile::tempdir().unwrap();
        let wrapper = dir.path().join("python3");
        fs::write(&wrapper, format!("#!/bin/sh\nexec {} \"$@\"\n", real.executable.display())).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let found = find(&dir.path().display().to_string()).await;
        assert_eq!(found[0].executable, real.executable);
        assert_eq!(found[0].image.aliases, ["python", "python3"]);
    }

    #[test]
    fn a_virtual_environment_is_used_through_its_own_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for bin in ["base/bin", "venv/bin", "copied/bin"] {
            fs::create_dir_all(at(bin)).unwrap();
        }
        for program in ["base/bin/python3.11", "copied/bin/python3.11"] {
            fs::write(at(program), b"\x7fELF").unwrap();
        }
        for environment in ["venv", "copied"] {
            fs::write(at(environment).join("pyvenv.cfg"), "").unwrap();
        }
        symlink("python3.11", at("base/bin/python3")).unwrap();
        symlink(at("base/bin/python3"), at("venv/bin/python")).unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let virtual_one = installed(&dir.join("venv/bin/python")).unwrap();
        assert_eq!(virtual_one.executable, dir.join("venv/bin/python"));
        assert_eq!(virtual_one.prefixes, [dir.join("venv"), dir.join("base")]);
        let plain = installed(&dir.join("base/bin/python3")).unwrap();
        assert_eq!((plain.executable, plain.version.as_str()), (dir.join("base/bin/python3.11"), "3.11"));
        assert_eq!(installed(&dir.join("copied/bin/python3.11")), None);
    }

    #[test]
    fn what_is_laid_out_differently_has_to_be_asked() {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in [
            ("bin/python3.11", &b"#!/bin/sh"[..]),
            ("bin/python3", b"\x7fELF"),
            ("bin/python3.11.2", b"\x7fELF"),
            ("bin/python3.x", b"\x7fELF"),
            ("elsewhere/python3.11", b"\x7fELF"),
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            assert_eq!(installed(&path), None, "{file}");
        }
    }
}
