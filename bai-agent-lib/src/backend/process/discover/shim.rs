//! Shims of version managers: scripts in `<root>/shims` that start a program of `<root>/versions/<version>/bin`.

use std::fs;
use std::path::{Path, PathBuf};

use super::is_executable;

/// What is behind an executable file.
#[derive(Debug, PartialEq)]
pub(super) enum Behind {
    /// No shim, or one whose answer only the shim itself knows: the file is to be used as it is.
    Itself,
    /// The program that the shim starts.
    Program(PathBuf),
    /// None of the selected versions has the program: the shim would refuse.
    Nothing,
}

/// Looks behind a shim of pyenv, nodenv or one of their relatives. The versions that count are those of `<root>/version`: what
/// a directory or a shell selects is no business of a service.
pub(super) fn behind(file: &Path) -> Behind {
    let shims = file.parent().filter(|dir| dir.ends_with("shims"));
    let (Some(root), Some(name)) = (shims.and_then(Path::parent), file.file_name()) else {
        return Behind::Itself;
    };
    let selected = fs::read_to_string(root.join("version")).unwrap_or_default();
    let versions: Vec<PathBuf> =
        selected.split_whitespace().map(|version| root.join("versions").join(version)).collect();
    // `system`, or an abbreviation of a version.
    if versions.is_empty() || !versions.iter().all(|version| version.is_dir()) {
        return Behind::Itself;
    }
    let mut programs = versions.iter().map(|version| version.join("bin").join(name));
    programs.find(|program| is_executable(program)).map_or(Behind::Nothing, Behind::Program)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn executable(file: &Path) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_shim_stands_for_the_first_selected_version_that_has_the_program() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for file in
            ["shims/python3", "shims/python3.9", "versions/3.11.7/bin/python3", "versions/3.12.1/bin/python3"]
        {
            executable(&at(file));
        }
        let selecting = |selected: &str, name: &str| {
            fs::write(at("version"), selected).unwrap();
            behind(&at("shims").join(name))
        };
        let expected = |version: &str| Behind::Program(at("versions").join(version).join("bin/python3"));
        assert_eq!(selecting("3.12.1\n3.11.7\n", "python3"), expected("3.12.1"));
        assert_eq!(selecting("3.11.7", "python3"), expected("3.11.7"));
        assert_eq!(selecting("3.11.7", "python3.9"), Behind::Nothing);
        for unclear in ["system", "3.11", "3.12.1 system", ""] {
            assert_eq!(selecting(unclear, "python3"), Behind::Itself, "{unclear}");
        }
    }

    #[test]
    fn other_programs_are_themselves() {
        let root = tempfile::tempdir().unwrap();
        for file in ["bin/python3", "shims/python3"] {
            executable(&root.path().join(file));
            assert_eq!(behind(&root.path().join(file)), Behind::Itself, "{file}");
        }
    }
}
