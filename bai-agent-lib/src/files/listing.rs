use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use bai_core::error::Result;
use bai_core::execution::FileEntry;

use super::home::{Home, fd_path, not_found};

impl Home {
    /// The entries of a directory by name; links are shown, not followed.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<FileEntry>> {
        let dir = self.find(path)?;
        let entries = std::fs::read_dir(fd_path(&dir)).map_err(|error| not_found(path).source(error))?;
        let mut listed = Vec::new();
        for entry in entries.flatten() {
            // An entry may be deleted between the two calls.
            if let Ok(metadata) = entry.metadata() {
                listed.push(file_entry(entry.file_name().to_string_lossy().into_owned(), &metadata));
            }
        }
        listed.sort_by(|a, b| a.filename.cmp(&b.filename));
        Ok(listed)
    }
}

fn file_entry(filename: String, metadata: &Metadata) -> FileEntry {
    #[allow(clippy::cast_precision_loss)]
    let seconds = |whole: i64, nanos: i64| whole as f64 + nanos as f64 / 1e9;
    FileEntry {
        mode: mode_text(metadata.mode()),
        size: metadata.size(),
        ctime: seconds(metadata.ctime(), metadata.ctime_nsec()),
        mtime: seconds(metadata.mtime(), metadata.mtime_nsec()),
        atime: seconds(metadata.atime(), metadata.atime_nsec()),
        filename,
    }
}

/// Type and permissions as `ls -l` shows them.
fn mode_text(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFCHR => 'c',
        libc::S_IFBLK => 'b',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, with_x, without_x) in
        [(6, libc::S_ISUID, 's', 'S'), (3, libc::S_ISGID, 's', 'S'), (0, libc::S_ISVTX, 't', 'T')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => with_x,
            (true, false) => without_x,
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_like_those_of_ls() {
        let cases = [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o104_755, "-rwsr-xr-x"),
            (0o041_776, "drwxrwxrwT"),
        ];
        for (mode, text) in cases {
            assert_eq!(mode_text(mode), text);
        }
    }

    #[test]
    fn a_directory_is_listed_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b"), "123").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("a")).unwrap();
        let home = Home::open(dir.path(), (0, 0)).unwrap();
        let entries = home.list(".").unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].filename.as_str(), &entries[0].mode[..1]), ("a", "l"));
        assert_eq!((entries[1].filename.as_str(), entries[1].size), ("b", 3));
        assert!(entries[1].mtime > 1.6e9);
        assert!(home.list("b").is_err() && home.list("missing").is_err());
    }
}
