//! System calls that no library wraps, each as one safe function. Only for a process with a single thread.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{errno::Errno, sched::CloneFlags, unistd::Pid};

/// Forks into new namespaces. `None` in the child.
pub(super) fn fork_into(namespaces: CloneFlags) -> io::Result<Option<Pid>> {
    let flags = libc::c_long::from(namespaces.bits() | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack this is a fork; the process has one thread, so that the child finds
    // no lock held by another.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// Attributes of a mount.
pub(super) mod attribute {
    pub(in super::super) const READ_ONLY: u64 = 1;
    pub(in super::super) const NO_SUID: u64 = 2;
    pub(in super::super) const NO_DEVICES: u64 = 4;
    pub(in super::super) const NO_EXEC: u64 = 8;
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// A copy of the mount tree at `source`, attached nowhere yet, with `attributes` on all its mounts. Linux 5.12.
pub(super) fn copy_mounts(source: &Path, attributes: u64) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: i32 = 1;
    let path = CString::new(source.as_os_str().as_bytes())?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_RECURSIVE;
    // SAFETY: the path is live for the call; the descriptor returned is new and owned by nobody else.
    let tree = unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags))?;
        OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?)
    };
    let attributes = MountAttributes { set: attributes, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: path and attributes are live for the call, and the size is that of the structure.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_RECURSIVE | libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    Errno::result(done)?;
    Ok(tree)
}

/// Attaches a tree from [`copy_mounts`] at the directory or file that `target` refers to.
pub(super) fn attach_mounts(tree: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    const FROM_EMPTY_PATH: i32 = 0x04;
    const TO_EMPTY_PATH: i32 = 0x40;
    // SAFETY: both descriptors are open and both paths are empty strings.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            FROM_EMPTY_PATH | TO_EMPTY_PATH,
        )
    };
    Errno::result(done)?;
    Ok(())
}

/// `prctl` with up to two numbers.
pub(super) fn prctl(option: i32, first: u64, second: u64) -> io::Result<i32> {
    // SAFETY: the options used here take numbers, not pointers.
    Ok(Errno::result(unsafe { libc::prctl(option, first, second, 0_u64, 0_u64) })?)
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

static CAPABILITIES: CapabilityHeader = CapabilityHeader { version: 0x2008_0522, pid: 0 };

/// Makes `set` (bit n for capability n) the effective, permitted and inheritable capabilities of this thread.
pub(super) fn set_capabilities(set: u64) -> io::Result<()> {
    let words = [set & 0xffff_ffff, set >> 32].map(|word| {
        let word = u32::try_from(word).unwrap_or_default();
        CapabilityWord { effective: word, permitted: word, inheritable: word }
    });
    // SAFETY: this version of the call reads the header and two words.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const CAPABILITIES, words.as_ptr()) };
    Errno::result(done)?;
    Ok(())
}

/// Takes one capability (below 32) from this thread.
pub(super) fn drop_capability(capability: u64) -> io::Result<()> {
    let mut words = [CapabilityWord { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: this version of the calls reads the header and reads or writes two words.
    unsafe {
        Errno::result(libc::syscall(libc::SYS_capget, &raw const CAPABILITIES, words.as_mut_ptr()))?;
        let keep = !(1_u32 << capability);
        let CapabilityWord { effective, permitted, inheritable } = &mut words[0];
        for set in [effective, permitted, inheritable] {
            *set &= keep;
        }
        Errno::result(libc::syscall(libc::SYS_capset, &raw const CAPABILITIES, words.as_ptr()))?;
    }
    Ok(())
}

/// Puts this thread into a Landlock domain that cannot connect to abstract unix sockets made outside. Linux 6.12.
pub(super) fn refuse_abstract_sockets() -> io::Result<()> {
    const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
    // struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped.
    let attributes = [0_u64, 0, SCOPE_ABSTRACT_UNIX_SOCKET];
    // SAFETY: the attributes are live for the call and of the size given; the descriptor is used once and closed.
    unsafe {
        let size = size_of_val(&attributes);
        let fd = libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0);
        let fd = Errno::result(fd)?;
        let done = Errno::result(libc::syscall(libc::SYS_landlock_restrict_self, fd, 0));
        libc::close(i32::try_from(fd).unwrap_or(-1));
        done?;
    }
    Ok(())
}

/// Installs a seccomp program for this process and all it starts. Needs `no_new_privs`.
pub(super) fn install_filter(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the program is live for the call and of the length given.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(done)?;
    Ok(())
}

/// Marks every descriptor but the standard ones to be closed by exec.
pub(super) fn close_others_on_exec() -> io::Result<()> {
    // SAFETY: sets a flag on descriptors; nothing is closed here.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(done)?;
    Ok(())
}

/// Sets both values of a resource limit, at most to the present hard limit.
pub(super) fn lower_limit(resource: nix::sys::resource::Resource, value: u64) -> io::Result<()> {
    let (_, hard) = nix::sys::resource::getrlimit(resource)?;
    let value = value.min(hard);
    Ok(nix::sys::resource::setrlimit(resource, value, value)?)
}

/// Brings the loopback device of a new network namespace up.
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: an ifreq of zeroes is valid; the name stays terminated; the ioctls read and write that structure.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = libc::c_char::try_from(b'l').unwrap_or_default();
        request.ifr_name[1] = libc::c_char::try_from(b'o').unwrap_or_default();
        Errno::result(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request))?;
        request.ifr_ifru.ifru_flags |= libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
        Errno::result(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request))?;
    }
    Ok(())
}
