//! The seccomp filter: system calls that a kernel of users' code has no business with.
//!
//! A list of what is refused, with EPERM, like that of container engines. `umount2` is not on it: the runner detaches its
//! control directory, and user code lacks the capability. What stays allowed still needs a capability where Linux says so.

use std::io;

use libc::{BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

use super::sys;

/// The architecture word of `struct seccomp_data`; `None` where system call numbers are not known here.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

const REFUSED: &[libc::c_long] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_quotactl,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Large attack surface.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_nfsservctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lookup_dcookie,
];

/// Answered as by a kernel without them, so that programs use their older ways. The flags of `clone3` cannot be
/// looked at by a filter; io_uring would do system calls past it.
const ABSENT: &[libc::c_long] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Flags of `clone` and `unshare` that make a namespace.
const NEW_NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Address families that programs of users need.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Execution domains that change nothing of importance (plain, 32-bit name, both with the old `uname`, and the query).
const PERSONALITIES: &[u32] = &[0, 0x0008, 0x2_0000, 0x2_0008, u32::MAX];

/// `ioctl` requests that type into or select from a terminal.
const TERMINAL_INJECTION: &[u32] = &[0x5412, 0x541c];

const NUMBER: u32 = 0;
const ARCHITECTURE_WORD: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const SECOND_ARGUMENT: u32 = 24;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

const fn fail(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()
}

/// Installs the filter on this process and all it will start.
///
/// # Errors
/// `Unsupported` on an architecture without a list; those of the system call.
pub(super) fn install() -> io::Result<()> {
    let architecture = ARCHITECTURE.ok_or(io::ErrorKind::Unsupported)?;
    sys::install_filter(&mut program(architecture))
}

fn program(architecture: u32) -> Vec<sock_filter> {
    let mut filter = Filter::default();
    filter.load(ARCHITECTURE_WORD);
    // Other numbers for other architectures (32-bit programs, x32): none of them.
    filter.unless_equal(architecture, fail(libc::ENOSYS));
    filter.load(NUMBER);
    filter.jump(BPF_JGE, 0x4000_0000, &[ret(fail(libc::ENOSYS))]);
    for number in REFUSED {
        filter.jump(BPF_JEQ, word(*number), &[ret(fail(libc::EPERM))]);
    }
    for number in ABSENT {
        filter.jump(BPF_JEQ, word(*number), &[ret(fail(libc::ENOSYS))]);
    }
    for number in [libc::SYS_clone, libc::SYS_unshare] {
        filter.refuse_bits(word(number), NEW_NAMESPACES.unsigned_abs());
    }
    let families: Vec<u32> = FAMILIES.iter().map(|family| family.unsigned_abs()).collect();
    filter.only(word(libc::SYS_socket), &families, fail(libc::EAFNOSUPPORT));
    filter.only(word(libc::SYS_personality), PERSONALITIES, fail(libc::EPERM));
    filter.except(word(libc::SYS_ioctl), SECOND_ARGUMENT, TERMINAL_INJECTION, fail(libc::EPERM));
    filter.0.push(ret(ALLOW));
    filter.0
}

/// A program under construction: after [`load`](Self::load) of the number, every method leaves it loaded.
#[derive(Default)]
struct Filter(Vec<sock_filter>);

impl Filter {
    fn load(&mut self, offset: u32) {
        self.0.push(statement(BPF_LD | BPF_W | BPF_ABS, offset));
    }

    /// Runs `body` if the comparison holds, else skips it.
    fn jump(&mut self, comparison: u32, value: u32, body: &[sock_filter]) {
        let skip = u8::try_from(body.len()).unwrap_or(u8::MAX);
        self.0.push(sock_filter { jf: skip, ..statement(BPF_JMP | comparison | BPF_K, value) });
        self.0.extend_from_slice(body);
    }

    fn unless_equal(&mut self, value: u32, answer: u32) {
        self.0.push(sock_filter { jt: 1, ..statement(BPF_JMP | BPF_JEQ | BPF_K, value) });
        self.0.push(ret(answer));
    }

    /// Call `number` fails with EPERM if its first argument has one of the bits.
    fn refuse_bits(&mut self, number: u32, bits: u32) {
        let mut body = Self::default();
        body.load(FIRST_ARGUMENT);
        body.jump(BPF_JSET, bits, &[ret(fail(libc::EPERM))]);
        body.0.push(ret(ALLOW));
        self.jump(BPF_JEQ, number, &body.0);
    }

    /// Call `number` gets `answer` unless its first argument is one of `values`.
    fn only(&mut self, number: u32, values: &[u32], answer: u32) {
        let mut body = Self::default();
        body.load(FIRST_ARGUMENT);
        for value in values {
            body.jump(BPF_JEQ, *value, &[ret(ALLOW)]);
        }
        body.0.push(ret(answer));
        self.jump(BPF_JEQ, number, &body.0);
    }

    /// Call `number` gets `answer` if the argument at `offset` is one of `values`.
    fn except(&mut self, number: u32, offset: u32, values: &[u32], answer: u32) {
        let mut body = Self::default();
        body.load(offset);
        for value in values {
            body.jump(BPF_JEQ, *value, &[ret(answer)]);
        }
        body.0.push(ret(ALLOW));
        self.jump(BPF_JEQ, number, &body.0);
    }
}

fn statement(code: u32, value: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: 0, jf: 0, k: value }
}

fn ret(answer: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, answer)
}

fn word(number: libc::c_long) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: u32 = 0xc000_003e;

    /// Runs a program the way the kernel does, on the few instructions used here.
    fn answer(architecture: u32, number: libc::c_long, arguments: [u32; 2]) -> u32 {
        let program = program(HOST);
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    loaded = match step.k {
                        NUMBER => word(number),
                        ARCHITECTURE_WORD => architecture,
                        FIRST_ARGUMENT => arguments[0],
                        SECOND_ARGUMENT => arguments[1],
                        other => panic!("offset {other}"),
                    };
                }
                code if code == BPF_RET | BPF_K => return step.k,
                code => {
                    let holds = match code & 0xf0 {
                        BPF_JEQ => loaded == step.k,
                        BPF_JGE => loaded >= step.k,
                        BPF_JSET => loaded & step.k != 0,
                        other => panic!("comparison {other}"),
                    };
                    at += usize::from(if holds { step.jt } else { step.jf });
                }
            }
        }
    }

    #[test]
    fn answers_per_call_and_argument() {
        let namespace = libc::CLONE_NEWUSER.unsigned_abs();
        let eperm = fail(libc::EPERM);
        for (number, arguments, expected) in [
            (libc::SYS_read, [0, 0], ALLOW),
            (libc::SYS_umount2, [0, 0], ALLOW),
            (libc::SYS_mount, [0, 0], eperm),
            (libc::SYS_ptrace, [0, 0], eperm),
            (libc::SYS_clone3, [0, 0], fail(libc::ENOSYS)),
            (libc::SYS_clone, [libc::SIGCHLD.unsigned_abs(), 0], ALLOW),
            (libc::SYS_clone, [namespace, 0], eperm),
            (libc::SYS_unshare, [libc::CLONE_FILES.unsigned_abs(), 0], ALLOW),
            (libc::SYS_unshare, [namespace, 0], eperm),
            (libc::SYS_socket, [2, 0], ALLOW),
            (libc::SYS_socket, [libc::AF_ALG.unsigned_abs(), 0], fail(libc::EAFNOSUPPORT)),
            (libc::SYS_personality, [u32::MAX, 0], ALLOW),
            (libc::SYS_personality, [0x4_0000, 0], eperm),
            (libc::SYS_ioctl, [0, 0x5401], ALLOW),
            (libc::SYS_ioctl, [0, 0x5412], eperm),
        ] {
            assert_eq!(answer(HOST, number, arguments), expected, "{number} {arguments:?}");
        }
    }

    #[test]
    fn other_architectures_have_no_calls() {
        assert_eq!(answer(0x4000_0003, libc::SYS_read, [0, 0]), fail(libc::ENOSYS));
        assert_eq!(answer(HOST, 0x4000_0000 + libc::SYS_mount, [0, 0]), fail(libc::ENOSYS));
    }
}
