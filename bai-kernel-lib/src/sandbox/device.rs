//! `/dev` of a sandbox: the harmless devices, terminals and shared memory of its own.

use std::{io, os::unix::fs::symlink, path::Path};

use nix::mount::MsFlags;

use super::{
    power::gap,
    root::{Root, site, step},
    sys::attribute,
};

const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills `/dev`. Without pseudo terminals a sandbox still works.
pub(super) fn populate(root: &Root, shm_bytes: u64, gaps: &mut Vec<String>) -> io::Result<()> {
    root.mount("tmpfs", "/dev", MsFlags::MS_NOSUID, "mode=755,size=64k")?;
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        step(name, root.bind(&path, &path, attribute::NO_SUID | attribute::NO_EXEC))?;
    }
    for (name, target) in LINKS {
        step(name, symlink(target, site("/dev").join(name)))?;
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let terminals = root.mount("devpts", "/dev/pts", quiet, "newinstance,ptmxmode=0666,mode=620");
    gap(gaps, terminals, "there are no pseudo terminals");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    root.mount("tmpfs", "/dev/shm", flags, &format!("mode=1777,size={shm_bytes}"))
}
