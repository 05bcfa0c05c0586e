//! What this host offers for isolating kernels, for `bai doctor`.

use std::fs;
use std::io;
use std::path::Path;

use nix::unistd::Uid;

use crate::cgroup::Cgroups;

/// A facility of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facility {
    /// What it is.
    pub name: &'static str,
    /// Whether it can be used.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What is worse without it; shown when it is missing.
    pub consequence: &'static str,
}

/// Looks at the host without changing it; `cgroups` is what [`cgroup::detect`](crate::cgroup::detect) found. The last word
/// has a real sandbox, which [`ProcessBackend::open`](super::ProcessBackend::open) builds.
pub fn doctor(cgroups: Option<&dyn Cgroups>) -> Vec<Facility> {
    vec![
        kernel_version(),
        namespaces(),
        user_namespaces(),
        control_groups(cgroups),
        seccomp(),
        landlock(),
        overlay(),
        resource_capability(),
    ]
}

/// Why no sandbox can be built, with the likely cause if the host's settings show one.
pub(super) fn explain(error: &io::Error) -> String {
    let needed = [kernel_version(), namespaces()].into_iter();
    let needed = needed.chain((!Uid::effective().is_root()).then(user_namespaces));
    let causes: Vec<String> = needed
        .filter(|facility| !facility.ok)
        .map(|facility| format!("; {} needed, found: {}", facility.name, facility.found))
        .collect();
    format!("no sandbox can be built on this host: {error}{}", causes.concat())
}

fn kernel_version() -> Facility {
    let release = read("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Facility {
        name: "Linux 5.12 or newer",
        ok: version >= (5, 12),
        found: release,
        consequence: "the process sandbox does not start",
    }
}

fn namespaces() -> Facility {
    let missing: Vec<&str> = ["mnt", "pid", "uts", "ipc", "net", "cgroup"]
        .into_iter()
        .filter(|kind| !Path::new("/proc/self/ns").join(kind).exists())
        .collect();
    Facility {
        name: "namespaces",
        ok: missing.is_empty(),
        found: if missing.is_empty() { "all".into() } else { format!("without {}", missing.join(", ")) },
        consequence: "without mnt, pid, uts and ipc the process sandbox does not start",
    }
}

fn user_namespaces() -> Facility {
    let name = "user namespaces for normal users";
    let consequence = "the process sandbox needs root";
    let refused = [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ]
    .into_iter()
    .find(|(path, value)| read(path) == *value);
    match refused {
        Some((path, value)) => Facility { name, ok: false, found: format!("{path} is {value}"), consequence },
        None => Facility {
            name,
            ok: Path::new("/proc/self/ns/user").exists(),
            found: "allowed".into(),
            consequence,
        },
    }
}

fn control_groups(cgroups: Option<&dyn Cgroups>) -> Facility {
    let found = cgroups.map(|cgroups| format!("version {}", cgroups.version()));
    Facility {
        name: "control groups",
        ok: found.is_some(),
        found: found.unwrap_or_else(|| "none that this user may make groups in".into()),
        consequence: "memory and processes are limited one by one, processor time is not",
    }
}

fn seccomp() -> Facility {
    let actions = read("/proc/sys/kernel/seccomp/actions_avail");
    Facility {
        name: "seccomp filters",
        ok: actions.contains("errno"),
        found: if actions.is_empty() { "none".into() } else { actions },
        consequence: "kernels may use every system call",
    }
}

fn landlock() -> Facility {
    const ASK_VERSION: u32 = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call reads no memory and returns a number.
    #[allow(unsafe_code)]
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, ASK_VERSION) };
    Facility {
        name: "Landlock with scopes (version 6)",
        ok: version >= 6,
        found: if version < 0 { "none".into() } else { format!("version {version}") },
        consequence: "kernels on the host's network can reach abstract unix sockets of the host",
    }
}

fn overlay() -> Facility {
    let known =
        read("/proc/filesystems").lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay");
    Facility {
        name: "overlay file system",
        ok: known,
        found: if known { "known to the kernel".into() } else { "not loaded".into() },
        consequence: "container engines need it; the process sandbox does not",
    }
}

fn resource_capability() -> Facility {
    const CAP_SYS_RESOURCE: u64 = 24;
    let status = read("/proc/self/status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    let ok = effective & (1 << CAP_SYS_RESOURCE) != 0;
    Facility {
        name: "CAP_SYS_RESOURCE",
        ok,
        found: format!(
            "{} as {}",
            if ok { "held" } else { "not held" },
            if Uid::effective().is_root() { "root" } else { "a normal user" }
        ),
        consequence: "runners cannot be protected from the out-of-memory killer beyond their children's preference",
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_facility_says_what_was_found() {
        let rows = doctor(None);
        assert_eq!(rows.len(), 8);
        for row in rows {
            assert!(!row.ok || row.name != "control groups");
            assert!(!row.found.is_empty() && !row.consequence.is_empty(), "{row:?}");
        }
    }
}
