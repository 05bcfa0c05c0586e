//! What `*` means: the default clean, build and exec steps of each language (`krunner.md` section 5).

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::environment::Environment;
use crate::config::RuntimeType;

/// A step of a batch run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Clean,
    Build,
    Exec,
}

/// What to do for a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing: 0.
    Nothing,
    /// A text on standard error and an exit code.
    Say(String, i32),
    /// A program.
    Run(Vec<OsString>),
}

/// Most source files that are collected, and how deep.
const MAX_SOURCES: usize = 4096;
const MAX_DEPTH: usize = 16;

pub(super) fn default_plan(step: Step, runtime: &RuntimeType, environment: &Environment, dir: &Path) -> Plan {
    let makefile = ["Makefile", "makefile", "GNUmakefile"].iter().any(|name| dir.join(name).is_file());
    match step {
        Step::Clean if makefile && matches!(runtime, RuntimeType::C | RuntimeType::Cpp) => {
            make(environment, &["clean"])
        }
        Step::Clean => Plan::Nothing,
        Step::Build if makefile => make(environment, &[]),
        Step::Build => build(runtime, environment, dir),
        Step::Exec => exec(runtime, environment, dir),
    }
}

fn make(environment: &Environment, targets: &[&str]) -> Plan {
    match environment.program("make") {
        Some(make) => run(make, targets.iter().map(OsString::from)),
        None => Plan::Say("there is a Makefile but no make".into(), 127),
    }
}

fn build(runtime: &RuntimeType, environment: &Environment, dir: &Path) -> Plan {
    match runtime {
        RuntimeType::Python if dir.join("setup.py").is_file() => with_runtime(
            runtime,
            environment,
            ["-m", "pip", "install", "--user", "-e", "."].map(OsString::from),
        ),
        RuntimeType::Python => {
            let text = "python-kernel: skipping the build phase due to missing \"setup.py\" file";
            Plan::Say(text.into(), 0)
        }
        RuntimeType::C => compile(runtime, environment, dir, "c"),
        RuntimeType::Cpp => compile(runtime, environment, dir, "cpp"),
        RuntimeType::App => Plan::Say("app-kernel: there is no default build script".into(), 0),
        RuntimeType::Nodejs => Plan::Nothing,
        RuntimeType::Other(name) => no_default(name, "build"),
    }
}

fn compile(runtime: &RuntimeType, environment: &Environment, dir: &Path, extension: &str) -> Plan {
    let main = format!("main.{extension}");
    if !dir.join(&main).is_file() {
        return missing(runtime, &format!("neither \"Makefile\" nor \"{main}\""));
    }
    let mut sources = Vec::new();
    collect(dir, Path::new(""), extension, 0, &mut sources);
    sources.sort();
    let head = ["-Wall", "-o", "./main"].map(OsString::from);
    let files = sources.into_iter().map(|path| Path::new(".").join(path).into_os_string());
    with_runtime(runtime, environment, head.into_iter().chain(files).chain(["-lm".into()]))
}

/// Source files below `dir`, hidden directories left out.
fn collect(dir: &Path, below: &Path, extension: &str, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir.join(below)).into_iter().flatten().flatten() {
        let path = below.join(entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if found.len() >= MAX_SOURCES {
            return;
        }
        if kind.is_dir() && depth < MAX_DEPTH && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            collect(dir, &path, extension, depth + 1, found);
        } else if !kind.is_dir() && path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn exec(runtime: &RuntimeType, environment: &Environment, dir: &Path) -> Plan {
    let script = |name: &str| {
        if dir.join(name).is_file() {
            with_runtime(runtime, environment, [OsString::from(name)])
        } else {
            missing(runtime, &format!("no \"{name}\""))
        }
    };
    match runtime {
        RuntimeType::Python => script("main.py"),
        RuntimeType::Nodejs => script("main.js"),
        RuntimeType::C | RuntimeType::Cpp => {
            let executable = |name: &&str| {
                fs::metadata(dir.join(name)).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
            };
            match ["./main", "./a.out"].into_iter().find(executable) {
                Some(name) => run(name.into(), []),
                None => missing(runtime, "neither \"./main\" nor \"./a.out\""),
            }
        }
        RuntimeType::App => no_default("app", "exec"),
        RuntimeType::Other(name) => no_default(name, "exec"),
    }
}

fn with_runtime(
    runtime: &RuntimeType,
    environment: &Environment,
    args: impl IntoIterator<Item = OsString>,
) -> Plan {
    match &environment.runtime {
        Some(program) => run(program.clone(), args),
        None => Plan::Say(format!("{0}-kernel: this image has no {0} runtime", runtime.as_str()), 127),
    }
}

fn run(program: PathBuf, args: impl IntoIterator<Item = OsString>) -> Plan {
    Plan::Run([program.into_os_string()].into_iter().chain(args).collect())
}

fn missing(runtime: &RuntimeType, what: &str) -> Plan {
    Plan::Say(format!("{}-kernel: there is {what} in the work directory", runtime.as_str()), 127)
}

fn no_default(name: &str, step: &str) -> Plan {
    Plan::Say(format!("{name}-kernel: there is no default {step} script"), 127)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn plan(step: Step, runtime: &RuntimeType, files: &[&str]) -> Plan {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let bin = dir.path().join("bin");
        let variables = BTreeMap::from([("PATH".into(), bin.into())]);
        let environment = Environment { variables, shell: None, runtime: Some("/rt".into()) };
        default_plan(step, runtime, &environment, dir.path())
    }

    fn args(plan: Plan) -> Vec<String> {
        let Plan::Run(argv) = plan else { panic!("{plan:?}") };
        argv.into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    #[test]
    fn main_files_are_run() {
        assert_eq!(args(plan(Step::Exec, &RuntimeType::Python, &["main.py"])), ["/rt", "main.py"]);
        assert_eq!(args(plan(Step::Exec, &RuntimeType::Nodejs, &["main.js"])), ["/rt", "main.js"]);
        assert_eq!(args(plan(Step::Exec, &RuntimeType::C, &["a.out"])), ["./a.out"]);
        assert_eq!(args(plan(Step::Exec, &RuntimeType::Cpp, &["a.out", "main"])), ["./main"]);
    }

    #[test]
    fn all_sources_are_compiled() {
        let built = args(plan(Step::Build, &RuntimeType::C, &["main.c", "sub/b.c", "x.h", ".git/c.c"]));
        assert_eq!(built, ["/rt", "-Wall", "-o", "./main", "./main.c", "./sub/b.c", "-lm"]);
        assert!(matches!(plan(Step::Build, &RuntimeType::Cpp, &["main.c"]), Plan::Say(_, 127)));
    }

    #[test]
    fn a_makefile_wins() {
        let files = ["Makefile", "setup.py", "bin/make"];
        assert!(args(plan(Step::Build, &RuntimeType::Python, &files))[0].ends_with("bin/make"));
        assert_eq!(args(plan(Step::Clean, &RuntimeType::C, &files))[1..], ["clean"]);
        assert_eq!(plan(Step::Clean, &RuntimeType::Python, &files), Plan::Nothing);
        assert!(matches!(plan(Step::Build, &RuntimeType::C, &["Makefile"]), Plan::Say(_, 127)));
    }

    #[test]
    fn missing_files_give_127_and_skipped_builds_0() {
        for runtime in ["python", "nodejs", "c", "cpp", "app", "julia"] {
            let runtime = RuntimeType::from(runtime.to_owned());
            assert!(matches!(plan(Step::Exec, &runtime, &[]), Plan::Say(_, 127)), "{runtime:?}");
        }
        assert!(matches!(plan(Step::Build, &RuntimeType::Python, &[]), Plan::Say(_, 0)));
        assert!(matches!(plan(Step::Build, &RuntimeType::App, &[]), Plan::Say(_, 0)));
        assert_eq!(plan(Step::Build, &RuntimeType::Nodejs, &[]), Plan::Nothing);
        let pip = args(plan(Step::Build, &RuntimeType::Python, &["setup.py"]));
        assert_eq!(pip, ["/rt", "-m", "pip", "install", "--user", "-e", "."]);
    }
}
