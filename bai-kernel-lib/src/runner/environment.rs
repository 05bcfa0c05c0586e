//! The environment of user code (`krunner.md` sections 2 and 8) and the programs found in it.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::config::{RunnerConfig, RuntimeType};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Directories put in front of `PATH`, the last one first; only existing ones below the system's.
const PROMOTED: [&str; 2] = ["/usr/local/cuda/bin", "/usr/local/nvidia/bin"];
const LINUXBREW: &str = "/home/linuxbrew/.linuxbrew/bin";

/// Variables and programs of user code.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) variables: BTreeMap<OsString, OsString>,
    /// Start of a command line that runs a script text, such as `["/bin/bash", "-c"]`; `None` without any shell.
    pub(super) shell: Option<Vec<OsString>>,
    /// The program of the language, when it exists.
    pub(super) runtime: Option<PathBuf>,
}

impl Environment {
    /// Collects the variables: the runner's own, defaults, those of the configuration, `environ.txt`, promotions.
    pub(super) fn new(config: &RunnerConfig) -> Self {
        let mut variables: BTreeMap<OsString, OsString> = env::vars_os().collect();
        for (name, value) in [("LANG", "C.UTF-8"), ("TERM", "xterm"), ("USER", "work"), ("LOGNAME", "work")] {
            variables.insert(name.into(), value.into());
        }
        variables.insert("HOME".into(), config.work_dir.clone().into());
        variables.insert("PWD".into(), config.work_dir.clone().into());
        variables.remove(OsStr::new("OLDPWD"));
        for (name, value) in &config.environ {
            variables.insert(name.into(), value.into());
        }
        let file = fs::read_to_string(config.config_dir.join("environ.txt")).unwrap_or_default();
        for (name, value) in environ_lines(&file) {
            variables.insert(name.into(), value.into());
        }
        variables.retain(|name, value| valid(name, value));
        let path = promote(variables.get(OsStr::new("PATH")), &config.work_dir, &config.config_dir);
        let shell = find_shell(&path);
        if let Some(argv) = &shell {
            variables.insert("SHELL".into(), argv[0].clone());
        }
        let runtime = find_runtime(config, &path);
        variables.insert("PATH".into(), path);
        Self { variables, shell, runtime }
    }

    pub(super) fn path(&self) -> &OsStr {
        self.variables.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.variables.contains_key(OsStr::new(name))
    }

    /// The words that run a command text: by the shell, or without one directly. `Err` is a text for the user.
    pub(super) fn command(&self, text: &str) -> Result<Vec<OsString>, String> {
        if let Some(shell) = &self.shell {
            return Ok(shell.iter().cloned().chain([text.into()]).collect());
        }
        let mut argv = split_words(text)
            .filter(|argv| !argv.is_empty())
            .ok_or("this image has no shell, and the text is not a plain command")?;
        let program = argv[0].to_str().and_then(|name| self.program(name));
        argv[0] = program.ok_or_else(|| format!("{}: command not found", argv[0].to_string_lossy()))?.into();
        Ok(argv)
    }

    /// The full path of a program, as a shell would find it.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        find_program(name.as_ref(), self.path())
    }
}

fn environ_lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.trim(), value))
}

/// A name or value that `execve` cannot carry would make every start fail.
fn valid(name: &OsStr, value: &OsStr) -> bool {
    let (name, value) = (name.as_encoded_bytes(), value.as_encoded_bytes());
    !name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !value.contains(&0)
}

/// `PATH` with the promoted directories in front, and last the one where the agent names the runtime.
fn promote(path: Option<&OsString>, work_dir: &Path, config_dir: &Path) -> OsString {
    let base = path.filter(|p| !p.is_empty()).cloned().unwrap_or_else(|| DEFAULT_PATH.into());
    let mut front = vec![work_dir.join(".local/bin")];
    if Path::new(LINUXBREW).is_dir() {
        front.push(LINUXBREW.into());
    }
    front.extend(PROMOTED.iter().rev().map(PathBuf::from));
    let old = env::split_paths(&base).filter(|dir| !front.contains(dir)).collect::<Vec<_>>();
    let named = Some(config_dir.join("bin")).filter(|dir| dir.is_dir());
    env::join_paths(front.iter().chain(&old).chain(&named)).unwrap_or(base)
}

/// The best shell present; inside an image with nothing but a bare busybox, that.
fn find_shell(path: &OsStr) -> Option<Vec<OsString>> {
    let standard = OsString::from(format!("{}:{DEFAULT_PATH}", path.to_string_lossy()));
    for name in ["bash", "ash", "sh", "dash", "zsh"] {
        if let Some(shell) = find_program(name.as_ref(), &standard) {
            return Some(vec![shell.into(), "-c".into()]);
        }
    }
    let busybox = find_program("busybox".as_ref(), &standard)?;
    Some(vec![busybox.into(), "sh".into(), "-c".into()])
}

fn find_runtime(config: &RunnerConfig, path: &OsStr) -> Option<PathBuf> {
    let given = config.runtime_path.as_deref().filter(|p| *p != Path::new("/bin/true"));
    if let Some(found) = given.and_then(|given| find_program(given, path)) {
        return Some(found);
    }
    let names: &[&str] = match &config.runtime_type {
        RuntimeType::Python => &["python3", "python"],
        RuntimeType::Nodejs => &["node", "nodejs"],
        RuntimeType::C => &["gcc", "cc", "clang", "tcc"],
        RuntimeType::Cpp => &["g++", "c++", "clang++"],
        RuntimeType::App | RuntimeType::Other(_) => &[],
    };
    names.iter().find_map(|name| find_program(name.as_ref(), path))
}

fn find_program(name: &Path, path: &OsStr) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return is_executable(name).then(|| name.to_owned());
    }
    env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|p| is_executable(p))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Splits a command into words without a shell: blanks separate, quotes and backslashes protect. `None` when a
/// quote is not closed.
fn split_words(text: &str) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, _) if c.is_whitespace() => words.extend(word.take().map(OsString::from)),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.map(OsString::from));
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        let words = split_words(text)?;
        Some(words.into_iter().map(|w| w.into_string().unwrap()).collect())
    }

    #[test]
    fn words_are_split_like_a_shell_does() {
        assert_eq!(words(" a  'b c' d\\ e \"f\\\"g\" '' ").unwrap(), ["a", "b c", "d e", "f\"g", ""]);
        assert_eq!(words("").unwrap(), Vec::<String>::new());
        assert_eq!(words("'open"), None);
    }

    #[test]
    fn promotions_come_first_and_once() {
        let path =
            promote(Some(&"/bin:/usr/local/cuda/bin".into()), Path::new("/home/work"), Path::new("/none"));
        assert_eq!(path, "/home/work/.local/bin:/usr/local/nvidia/bin:/usr/local/cuda/bin:/bin");
        assert!(promote(None, Path::new("/w"), Path::new("/none")).to_string_lossy().ends_with(DEFAULT_PATH));

        let config = tempfile::tempdir().unwrap();
        let bin = config.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let path = promote(Some(&"/bin".into()), Path::new("/w"), config.path());
        assert!(path.to_string_lossy().ends_with(&format!("/bin:{}", bin.display())), "{path:?}");
    }

    #[test]
    fn later_sources_win() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("environ.txt"), "A=file\nLANG=x=y\nbroken\n=z\n").unwrap();
        let mut config = RunnerConfig::new("/s", "t", RuntimeType::App);
        config.config_dir = dir.path().into();
        config.environ = [("A".to_owned(), "config".to_owned()), ("B".to_owned(), "1".to_owned())].into();
        let environment = Environment::new(&config);
        let get =
            |name: &str| environment.variables.get(OsStr::new(name)).unwrap().to_str().unwrap().to_owned();
        assert_eq!(get("A"), "file");
        assert_eq!(get("B"), "1");
        assert_eq!(get("LANG"), "x=y");
        assert_eq!(get("HOME"), "/home/work");
        assert!(get("SHELL").starts_with('/'));
    }
}
