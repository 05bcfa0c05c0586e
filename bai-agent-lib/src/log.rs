//! The console log of a kernel: a bounded pair of files that survives the agent.
//!
//! Beside the log lies `console.pos` with the number of the last frame in it and the length of the file then. After a
//! crash the log is cut to that length and frames up to that number, which the runner sends again, are not written twice.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The log of one kernel.
#[derive(Debug)]
pub(crate) enum ConsoleLog {
    /// On disk.
    Disk(DiskLog),
    /// In memory, for simulated kernels: the bytes and their limit.
    Memory(VecDeque<u8>, usize),
}

impl ConsoleLog {
    /// Appends the data of frame `seq` of the runner's start `boot`, unless it is there already.
    pub(crate) fn append(&mut self, boot: &str, seq: u64, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Disk(log) => log.append(boot, seq, data),
            Self::Memory(bytes, limit) => {
                bytes.extend(data);
                let excess = bytes.len().saturating_sub(*limit);
                bytes.drain(..excess);
                Ok(())
            }
        }
    }

    /// The newest bytes, at most the limit.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Disk(log) => read(&log.dir),
            Self::Memory(bytes, _) => Ok(bytes.iter().copied().collect()),
        }
    }
}

/// `console.log` and its predecessor `console.log.old`, each at most half the limit.
#[derive(Debug)]
pub(crate) struct DiskLog {
    dir: PathBuf,
    file: File,
    length: u64,
    half: u64,
    position: File,
    last: Position,
}

/// Which frame the log ends with.
#[derive(Debug, Default, PartialEq)]
struct Position {
    boot: String,
    seq: u64,
    length: u64,
}

impl DiskLog {
    pub(crate) fn open(dir: &Path, limit: u64) -> io::Result<Self> {
        let open = |name: &str| {
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(dir.join(name))
        };
        let (mut file, position) = (open("console.log")?, open("console.pos")?);
        let last = Position::read(&position);
        let length = if last.boot.is_empty() { 0 } else { last.length.min(file.metadata()?.len()) };
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { dir: dir.to_owned(), file, length, half: (limit / 2).max(1), position, last })
    }

    fn append(&mut self, boot: &str, seq: u64, data: &[u8]) -> io::Result<()> {
        if self.last.boot == boot && seq <= self.last.seq {
            return Ok(());
        }
        let data = &data[data.len().saturating_sub(usize::try_from(self.half).unwrap_or(usize::MAX))..];
        if self.length + data.len() as u64 > self.half {
            self.rotate()?;
        }
        self.file.write_all(data)?;
        self.length += data.len() as u64;
        self.last = Position { boot: boot.to_owned(), seq, length: self.length };
        self.last.write(&self.position)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let path = self.dir.join("console.log");
        fs::rename(&path, self.dir.join("console.log.old"))?;
        self.file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        self.length = 0;
        Ok(())
    }
}

/// Reads the log in `dir`; there may be none.
pub(crate) fn read(dir: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for name in ["console.log.old", "console.log"] {
        match File::open(dir.join(name)) {
            Ok(mut file) => drop(file.read_to_end(&mut bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

impl Position {
    /// A fixed-width line: overwriting it is one small write.
    fn write(&self, file: &File) -> io::Result<()> {
        file.write_all_at(format!("{:020} {:020} {}\n", self.seq, self.length, self.boot).as_bytes(), 0)
    }

    fn read(file: &File) -> Self {
        let mut text = String::new();
        let mut file = file;
        let read = file.read_to_string(&mut text);
        let mut fields = text.split_whitespace();
        let mut next = || fields.next().unwrap_or_default();
        match (read, next().parse(), next().parse(), next()) {
            (Ok(_), Ok(seq), Ok(length), boot) => Self { boot: boot.to_owned(), seq, length },
            _ => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_output_is_kept_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = DiskLog::open(dir.path(), 100).unwrap();
        for seq in 1..=50 {
            log.append("b", seq, format!("line {seq:04}\n").as_bytes()).unwrap();
        }
        let text = String::from_utf8(read(dir.path()).unwrap()).unwrap();
        assert!(text.len() <= 100 && text.len() > 50, "{}", text.len());
        assert!(text.ends_with("line 0049\nline 0050\n"));
        log.append("b", 51, &[b'x'; 1000]).unwrap();
        assert!(read(dir.path()).unwrap().len() <= 100);
    }

    #[test]
    fn frames_sent_again_after_a_crash_are_not_written_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = DiskLog::open(dir.path(), 1000).unwrap();
        log.append("boot", 1, b"one ").unwrap();
        log.append("boot", 2, b"two ").unwrap();
        drop(log);
        // A crash between the log and the position leaves a tail that will come again.
        fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join("console.log"))
            .unwrap()
            .write_all(b"thr")
            .unwrap();
        let mut log = DiskLog::open(dir.path(), 1000).unwrap();
        log.append("boot", 2, b"two ").unwrap();
        log.append("boot", 3, b"three").unwrap();
        log.append("next", 1, b"!").unwrap();
        assert_eq!(read(dir.path()).unwrap(), b"one two three!");
    }
}
