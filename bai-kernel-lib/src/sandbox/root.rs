//! The root file system of a sandbox: an empty one, into which only what is allowed of the host is mounted.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::symlink,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, mkdirat},
    unistd::{chdir, pivot_root},
};

use super::{
    SandboxSpec, device, etc,
    power::gap,
    sys::{self, attribute},
};

/// Directories of the host with its programs and libraries.
const SYSTEM: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/nix/store", "/gnu/store"];

/// Parts of `/proc` that tell or do things to the whole machine.
const PROC_MASKED: &[&str] =
    &["kcore", "keys", "latency_stats", "sched_debug", "sysrq-trigger", "timer_list"];
const PROC_READ_ONLY: &[&str] = &["sys", "irq", "bus", "fs"];

/// Attributes of everything shown read-only.
pub(super) const SEALED: u64 = attribute::READ_ONLY | attribute::NO_SUID | attribute::NO_DEVICES;

/// Where the new root is put together. Nothing that is bound into it lies below `/proc`.
const BUILD_SITE: &str = "/proc";

/// Builds the root and moves this process into it. The process must be alone in its mount and pid namespaces.
///
/// # Errors
/// Those of the system calls, with the step they belong to. What a sandbox can do without goes to `gaps` instead.
pub(super) fn enter(spec: &SandboxSpec, gaps: &mut Vec<String>) -> io::Result<()> {
    let nothing = None::<&Path>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    step("make mounts private", mount(nothing, "/", nothing, private, nothing))?;
    let exposed = exposed(spec);
    let root = step("mount the root", Root::create())?;
    for path in SYSTEM {
        root.show_system(Path::new(path))?;
    }
    root.scratch(spec)?;
    root.kernel_file_systems(spec, gaps)?;
    device::populate(&root, spec.shm_bytes, gaps)?;
    etc::personalize(&root, spec, gaps)?;
    for path in &exposed {
        step(&path.display().to_string(), root.bind(path, path, SEALED))?;
    }
    for path in &spec.hide {
        step(&path.display().to_string(), root.cover(path))?;
    }
    for bind in &spec.binds {
        let read_only = if bind.read_only { attribute::READ_ONLY } else { 0 };
        let attributes = attribute::NO_SUID | attribute::NO_DEVICES | read_only;
        step(&bind.target.display().to_string(), root.bind(&bind.source, &bind.target, attributes))?;
    }
    seal()?;
    step("enter the root", pivot())
}

/// Directories to expose that no system directory covers, without symbolic links. A missing one is not shown.
fn exposed(spec: &SandboxSpec) -> Vec<PathBuf> {
    let resolved = spec.expose.iter().filter_map(|path| fs::canonicalize(path).ok());
    let mut paths: Vec<PathBuf> =
        resolved.filter(|path| path.parent().is_some() && !is_system(path)).collect();
    paths.sort();
    paths.dedup_by(|path, outer| path.starts_with(outer));
    paths
}

/// Whether a path of the host is shown without being exposed.
pub(super) fn is_system(path: &Path) -> bool {
    SYSTEM.iter().any(|system| path.starts_with(system))
}

/// Names the step that failed.
pub(super) fn step<T, E: Into<io::Error>>(what: &str, result: Result<T, E>) -> io::Result<T> {
    result.map_err(|error| {
        let error = error.into();
        io::Error::new(error.kind(), format!("{what}: {error}"))
    })
}

fn pivot() -> nix::Result<()> {
    chdir(BUILD_SITE)?;
    // The old root lands on top of the new one and is detached again.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}

/// The place of a path inside as long as the root is under construction.
pub(super) fn site(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    Path::new(BUILD_SITE).join(path.strip_prefix("/").unwrap_or(path))
}

/// A root under construction. Paths are given as they will be inside.
pub(super) struct Root {
    top: OwnedFd,
}

impl Root {
    fn create() -> io::Result<Self> {
        mount_new(
            "tmpfs",
            Path::new(BUILD_SITE),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            "mode=755,size=4m",
        )?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { top: nix::fcntl::open(BUILD_SITE, flags, Mode::empty())? })
    }

    /// Makes a directory and its parents, and opens it. Symbolic links are never followed: below a directory of the
    /// user they could lead anywhere.
    pub(super) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut at = self.top.try_clone()?;
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => {
                    at = match openat(&at, name, flags, Mode::empty()) {
                        Err(Errno::ENOENT) => {
                            mkdirat(&at, name, Mode::from_bits_truncate(0o755))?;
                            openat(&at, name, flags, Mode::empty())?
                        }
                        other => other?,
                    };
                }
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "path is not absolute and plain",
                    ));
                }
            }
        }
        Ok(at)
    }

    /// Shows a directory or file of the host at `target`, which is created when missing.
    pub(super) fn bind(&self, source: &Path, target: &Path, attributes: u64) -> io::Result<()> {
        let is_directory = fs::metadata(source)?.is_dir();
        let place = if is_directory { self.directory(target)? } else { self.file(target)? };
        sys::attach_mounts(&sys::copy_mounts(source, attributes)?, &place)
    }

    /// Opens a file, creating it when missing.
    fn file(&self, path: &Path) -> io::Result<OwnedFd> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let parent = self.directory(parent)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(parent.as_fd(), name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => {
                let create =
                    OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                Ok(openat(parent.as_fd(), name, create, Mode::from_bits_truncate(0o644))?)
            }
            other => Ok(other?),
        }
    }

    /// Makes an existing directory or file look empty; a missing one stays missing.
    pub(super) fn cover(&self, path: &Path) -> io::Result<()> {
        let Ok(metadata) = fs::symlink_metadata(site(path)) else { return Ok(()) };
        let cover = if metadata.is_dir() { etc::NO_ENTRIES } else { etc::NO_BYTES };
        self.bind(&site(cover), path, SEALED)
    }

    fn show_system(&self, path: &Path) -> io::Result<()> {
        let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
        let what = path.display().to_string();
        if metadata.is_symlink() {
            return step(&what, fs::read_link(path).and_then(|target| symlink(target, site(path))));
        }
        step(&what, self.bind(path, path, SEALED))
    }

    /// Directories that begin empty in every sandbox.
    fn scratch(&self, spec: &SandboxSpec) -> io::Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        for (path, options) in [
            ("/tmp", format!("mode=1777,size={}", spec.tmp_bytes)),
            ("/var/tmp", format!("mode=1777,size={}", spec.tmp_bytes)),
            ("/run", "mode=755,size=16m".to_owned()),
        ] {
            self.mount("tmpfs", path, flags, &options)?;
        }
        step("/var/run", symlink("/run", site("/var/run")))?;
        step("/home", self.directory(Path::new("/home")))?;
        Ok(())
    }

    /// `/proc` and `/sys`, of the latter only the sandbox's own control groups.
    fn kernel_file_systems(&self, spec: &SandboxSpec, gaps: &mut Vec<String>) -> io::Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        self.mount("proc", "/proc", flags, "")?;
        step("/opt/kernel", etc::blank(self))?;
        for name in PROC_READ_ONLY {
            let path = Path::new("/proc").join(name);
            if site(&path).exists() {
                let sealed = self.bind(&site(&path), &path, SEALED | attribute::NO_EXEC);
                gap(gaps, sealed, &format!("{} is not read-only", path.display()));
            }
        }
        for name in PROC_MASKED {
            let path = Path::new("/proc").join(name);
            gap(gaps, self.cover(&path), &format!("{} is visible", path.display()));
        }
        gap(gaps, self.show_sys(spec), "/sys is missing");
        Ok(())
    }

    fn show_sys(&self, spec: &SandboxSpec) -> io::Result<()> {
        self.bind(Path::new("/sys"), Path::new("/sys"), SEALED | attribute::NO_EXEC)?;
        self.cover(Path::new("/sys/firmware"))?;
        let cgroups = "/sys/fs/cgroup";
        if site(cgroups).exists() {
            self.mount("tmpfs", cgroups, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=755,size=64k")?;
            for cgroup in &spec.cgroups {
                let target = Path::new(cgroups).join(&cgroup.controller);
                self.bind(&cgroup.dir, &target, SEALED | attribute::NO_EXEC)?;
            }
        }
        Ok(())
    }

    /// Mounts a new file system of `kind`.
    pub(super) fn mount(&self, kind: &str, path: &str, flags: MsFlags, options: &str) -> io::Result<()> {
        step(path, self.directory(Path::new(path)))?;
        step(&format!("mount {kind} at {path}"), mount_new(kind, &site(path), flags, options))
    }
}

/// Nothing more is put into the root itself.
fn seal() -> io::Result<()> {
    let nothing = None::<&Path>;
    let sealed = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    for (path, flags) in [("/", sealed | MsFlags::MS_NODEV), ("/dev", sealed)] {
        step(path, mount(nothing, &site(path), nothing, flags, nothing))?;
    }
    Ok(())
}

fn mount_new(kind: &str, at: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    Ok(mount(Some(kind), at, Some(kind), flags, Some(options))?)
}
