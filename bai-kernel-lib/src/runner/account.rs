//! The `work` entry in `/etc/passwd` and `/etc/group`, so that programs find a name and a home for the user.
//!
//! The files are read and written directly: name service libraries belong to the image and may not fit a
//! static binary. Everything is best effort, for images with a read-only `/etc`.

use std::{fs, io, path::Path};

use super::process::Identity;

const NAME: &str = "work";

/// Gives the user's ids the name `work` below `etc`.
pub(super) fn ensure(etc: &Path, identity: &Identity, home: &Path, shell: &str) -> io::Result<()> {
    let Identity { uid, gid, .. } = *identity;
    let home = home.display();
    rewrite(&etc.join("passwd"), uid, &format!("{NAME}:x:{uid}:{gid}::{home}:{shell}"))?;
    rewrite(&etc.join("group"), gid, &format!("{NAME}:x:{gid}:"))
}

/// Replaces the entries that have the name or the id by `entry`; leaves a file that is right alone.
fn rewrite(path: &Path, id: u32, entry: &str) -> io::Result<()> {
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            String::new()
        }
        Err(e) => return Err(e),
    };
    let new = with_entry(&old, id, entry);
    if new == old { Ok(()) } else { fs::write(path, new) }
}

fn with_entry(old: &str, id: u32, entry: &str) -> String {
    let id = id.to_string();
    let clashes = |line: &str| {
        let mut fields = line.split(':');
        fields.next() == Some(NAME) || fields.nth(1) == Some(&id)
    };
    if old.lines().filter(|line| clashes(line)).eq([entry]) {
        return old.to_owned();
    }
    let kept = old.lines().filter(|line| !clashes(line));
    kept.chain([entry]).fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_added_renumbered_and_renamed() {
        let entry = "work:x:1000:1000::/home/work:/bin/sh";
        let root = "root:x:0:0:root:/root:/bin/sh\n";
        for other in ["", "work:x:77:77::/home/work:/bin/sh\n", "user:x:1000:1000:u:/home/user:/bin/sh\n"] {
            let text = with_entry(&format!("{root}{other}"), 1000, entry);
            assert_eq!(text, format!("{root}{entry}\n"), "{other}");
            assert_eq!(with_entry(&text, 1000, entry), text);
        }
    }

    #[test]
    fn a_right_file_is_not_written() {
        let text = "work:x:5:5::/home/work:/bin/ash\ndaemon:x:1:1:::\n";
        assert_eq!(with_entry(text, 5, "work:x:5:5::/home/work:/bin/ash"), text);
    }

    #[test]
    fn an_image_without_etc_gets_one() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { uid: 9001, gid: 9002, groups: Vec::new() };
        ensure(&dir.path().join("etc"), &identity, Path::new("/home/work"), "/bin/sh").unwrap();
        let passwd = fs::read_to_string(dir.path().join("etc/passwd")).unwrap();
        assert_eq!(passwd, "work:x:9001:9002::/home/work:/bin/sh\n");
        assert_eq!(fs::read_to_string(dir.path().join("etc/group")).unwrap(), "work:x:9002:\n");
    }
}
