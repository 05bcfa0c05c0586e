//! What lets the kernels of a session log in to each other (spec agent.md, section 8).
//!
//! ```text
//! /home/config/ssh/id_cluster(.pub)   the key pair of the session; a start fails without it
//! /home/work/.ssh/config              a block of ours that says how the other kernels are reached
//!                 authorized_keys     a line with the public key
//! ```
//!
//! The files in the home directory are the user's: whatever else they hold is kept, and what the user made of them is no
//! reason not to start.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use bai_core::error::{Result, code};
use bai_core::port::cluster::SshKeypair;

use super::{make_dir, write};
use crate::files::Home;

const BEGIN: &str = "# BEGIN cluster hosts (kept up to date by the agent)\n";
const END: &str = "# END cluster hosts\n";

/// `Host *` at the end, so that options below the block are not taken for part of it.
const OPTIONS: &str = "\
Host main* sub*
    Port 2200
    IdentityFile /home/config/ssh/id_cluster
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
Host *
";

/// Writes the key pair below `config`, readable by `owner` only. Blocks.
pub(super) fn write_keys(config: &Path, keys: &SshKeypair, owner: (u32, u32)) -> io::Result<()> {
    let dir = config.join("ssh");
    make_dir(&dir, 0o700)?;
    chown(&dir, Some(owner.0), Some(owner.1))?;
    let (private, public) = (keys.private_key.reveal(), format!("{}\n", keys.public_key.trim_end()));
    for (name, text) in [("id_cluster", private), ("id_cluster.pub", &public)] {
        let path = dir.join(name);
        write(&path, text.as_bytes(), 0o600)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        chown(&path, Some(owner.0), Some(owner.1))?;
    }
    Ok(())
}

/// Makes the home directory use the keys. Idempotent. Blocks.
///
/// # Errors
/// Those of the files, such as a directory or an endless link in the place of one.
pub(super) fn introduce(home: &Home, keys: &SshKeypair) -> Result<()> {
    home.make_dir(Path::new(".ssh"), 0o700)?;
    for (path, change) in [
        (".ssh/config", &with_block as &dyn Fn(&str) -> String),
        (".ssh/authorized_keys", &|text| with_line(text, keys.public_key.trim_end())),
    ] {
        let old = match home.read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.code() == code::FILE_NOT_FOUND => String::new(),
            Err(error) => return Err(error),
        };
        let new = change(&old);
        if new != old {
            home.replace(path, new.as_bytes(), 0o600)?;
        }
    }
    Ok(())
}

/// The text with our block as it should be: in the place of an earlier one, or else at the end.
fn with_block(text: &str) -> String {
    let block = format!("{BEGIN}{OPTIONS}{END}");
    let found =
        text.rfind(BEGIN).and_then(|begin| Some((begin, begin + text[begin..].find(END)? + END.len())));
    match found {
        Some((begin, end)) => format!("{}{block}{}", &text[..begin], &text[end..]),
        None => format!("{}{block}", whole_lines(text)),
    }
}

fn with_line(text: &str, line: &str) -> String {
    if text.lines().any(|known| known.trim() == line) {
        return text.to_owned();
    }
    format!("{}{line}\n", whole_lines(text))
}

/// The text with its last line ended.
fn whole_lines(text: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> SshKeypair {
        SshKeypair {
            private_key: "private\n".to_owned().into(),
            public_key: "ssh-ed25519 AAAA cluster".into(),
        }
    }

    fn owner() -> (u32, u32) {
        (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_block_is_there_once_and_the_users_text_is_kept() {
        let once = with_block("");
        assert_eq!(with_block(&once), once);
        let mine = "Host github.com\n    User git";
        let added = with_block(mine);
        assert!(added.starts_with("Host github.com\n    User git\n# BEGIN"), "{added}");
        let more = format!("{added}Compression yes\n");
        assert_eq!(with_block(&more), more);
        let outdated = more.replace("2200", "22");
        assert_eq!(with_block(&outdated), more);
        // Half a block is the user's text.
        let half = format!("{BEGIN}mine\n");
        let repaired = with_block(&half);
        assert!(repaired.starts_with(&half) && repaired.matches(END).count() == 1, "{repaired}");
        assert_eq!(with_block(&repaired), repaired);
    }

    #[test]
    fn files_are_private_and_starts_repeat() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        fs::create_dir(&work).unwrap();
        let home = Home::open(&work, owner()).unwrap();
        let read = |path: &str| fs::read_to_string(work.join(path)).unwrap();
        write_keys(dir.path(), &keys(), owner()).unwrap();
        introduce(&home, &keys()).unwrap();
        fs::write(work.join(".ssh/authorized_keys"), format!("other\n{}", read(".ssh/authorized_keys")))
            .unwrap();
        let config = read(".ssh/config");
        write_keys(dir.path(), &keys(), owner()).unwrap();
        introduce(&home, &keys()).unwrap();
        assert_eq!(read(".ssh/config"), config);
        assert_eq!(read(".ssh/authorized_keys"), "other\nssh-ed25519 AAAA cluster\n");
        assert_eq!(fs::read_to_string(dir.path().join("ssh/id_cluster")).unwrap(), "private\n");
        for (path, expected) in [
            ("work/.ssh", 0o700),
            ("work/.ssh/config", 0o600),
            ("ssh", 0o700),
            ("ssh/id_cluster", 0o600),
            ("ssh/id_cluster.pub", 0o600),
        ] {
            assert_eq!(mode(&dir.path().join(path)), expected, "{path}");
        }
    }

    #[test]
    fn links_out_of_the_home_directory_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        fs::create_dir(&work).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        std::os::unix::fs::symlink("../outside", work.join(".ssh")).unwrap();
        let home = Home::open(&work, owner()).unwrap();
        assert!(introduce(&home, &keys()).is_err());
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
    }
}
