//! Giving up powers: capabilities, limits, new privileges, system calls.

use std::io;

use nix::sys::resource::Resource;

use super::{Network, Rlimits, SandboxSpec, filter, sys};

const CHOWN: u64 = 0;
const DAC_OVERRIDE: u64 = 1;
const FOWNER: u64 = 3;
const KILL: u64 = 5;
const SETGID: u64 = 6;
const SETUID: u64 = 7;
const SYS_ADMIN: u64 = 21;

/// What the runner of a root-built sandbox keeps: to become the user, to signal and serve the user's processes and
/// files, and to detach its control directory.
const RUNNER_AS_ROOT: u64 =
    1 << CHOWN | 1 << DAC_OVERRIDE | 1 << FOWNER | 1 << KILL | 1 << SETGID | 1 << SETUID | 1 << SYS_ADMIN;

/// What it keeps in a user namespace: to detach its control directory, and to stay out of reach of user code, which has
/// the same user id but may not trace a process with more capabilities than its own.
const RUNNER_IN_USER_NAMESPACE: u64 = 1 << KILL | 1 << SYS_ADMIN;

/// Prepares this process for the exec that makes it the runner. What the host refuses is added to `gaps`.
///
/// # Errors
/// Those of dropping capabilities: a runner with more than it needs is not started.
pub(super) fn restrict(
    spec: &SandboxSpec,
    in_user_namespace: bool,
    gaps: &mut Vec<String>,
) -> io::Result<()> {
    limit(&spec.rlimits, gaps);
    if spec.network == Network::Host {
        gap(gaps, sys::refuse_abstract_sockets(), "abstract unix sockets of the host can be reached");
    }
    drop_bounding(if in_user_namespace { RUNNER_IN_USER_NAMESPACE } else { RUNNER_AS_ROOT })?;
    if in_user_namespace {
        keep_across_exec(RUNNER_IN_USER_NAMESPACE)?;
    }
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    gap(gaps, filter::install(), "system calls are not filtered");
    Ok(())
}

/// Adds a sentence when a protection was refused.
pub(super) fn gap<T>(gaps: &mut Vec<String>, result: io::Result<T>, consequence: &str) {
    if let Err(error) = result {
        gaps.push(format!("{consequence} ({error})"));
    }
}

fn limit(limits: &Rlimits, gaps: &mut Vec<String>) {
    let wanted = [
        (Resource::RLIMIT_CORE, Some(0), "core dumps are not limited"),
        (Resource::RLIMIT_NOFILE, limits.nofile, "open files are not limited"),
        (Resource::RLIMIT_NPROC, limits.nproc, "processes per user are not limited"),
        (Resource::RLIMIT_DATA, limits.data, "memory per process is not limited"),
        (Resource::RLIMIT_FSIZE, limits.fsize, "the size of a file is not limited"),
    ];
    for (resource, value, consequence) in wanted {
        if let Some(value) = value {
            gap(gaps, sys::lower_limit(resource, value), consequence);
        }
    }
}

fn drop_bounding(keep: u64) -> io::Result<()> {
    for capability in 0..64 {
        if keep & (1 << capability) != 0 {
            continue;
        }
        match sys::prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            // Beyond the last capability this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        };
    }
    Ok(())
}

/// A process that is not root loses its capabilities on exec, but for ambient ones.
fn keep_across_exec(keep: u64) -> io::Result<()> {
    sys::set_capabilities(keep)?;
    for capability in (0..64).filter(|capability| keep & (1 << capability) != 0) {
        sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE.unsigned_abs().into(), capability)?;
    }
    Ok(())
}

/// Makes sure that no program started from here on inherits a capability of this process. The first thing a runner does.
///
/// # Errors
/// Those of the system call; none is known on a kernel that runs this library.
pub fn keep_from_children() -> io::Result<()> {
    sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs().into(), 0)?;
    Ok(())
}

/// Gives up the capability to change mounts, once the control directory is detached. Capabilities belong to threads: call
/// this before others are started.
///
/// # Errors
/// Those of the system call. A process without the capability is fine.
pub fn give_up_mounting() -> io::Result<()> {
    sys::drop_capability(SYS_ADMIN)
}
