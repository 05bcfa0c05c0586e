//! Groups that someone else made.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CgroupV1, CgroupV2, Cgroups, v1_mounts, v2_mount};

/// The group that a process was put in by someone else, such as a container engine: for reading. Nothing is made or
/// changed.
///
/// # Errors
/// `NotFound` when the process has ended or this host shows no control groups; `InvalidData` for a process in no group.
pub fn of_process(pid: u32) -> io::Result<(Arc<dyn Cgroups>, String)> {
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    find(&membership, &mounts)
}

fn find(membership: &str, mounts: &str) -> io::Result<(Arc<dyn Cgroups>, String)> {
    let v1: BTreeMap<String, PathBuf> = v1_mounts(mounts).into_iter().collect();
    let (mut parents, mut group) = (BTreeMap::new(), None);
    for (controllers, path) in lines(membership).filter(|(controllers, _)| !controllers.is_empty()) {
        for controller in controllers.split(',') {
            if let (Some(mount), Some((parent, name))) = (v1.get(controller), split(path)) {
                parents.insert(controller.to_owned(), mount.join(parent));
                group = Some(name);
            }
        }
    }
    if let Some(group) = group {
        return Ok((Arc::new(CgroupV1::existing(parents)), group.to_owned()));
    }
    let (_, path) = lines(membership)
        .find(|(controllers, _)| controllers.is_empty())
        .ok_or(io::ErrorKind::InvalidData)?;
    let (parent, group) = split(path).ok_or(io::ErrorKind::InvalidData)?;
    let root = v2_mount(mounts).ok_or(io::ErrorKind::NotFound)?;
    Ok((Arc::new(CgroupV2::existing(root.join(parent))), group.to_owned()))
}

/// Controllers and path of each `number:controllers:path` line.
fn lines(membership: &str) -> impl Iterator<Item = (&str, &str)> {
    membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    })
}

/// Parent, relative to the mount, and name.
fn split(path: &str) -> Option<(&Path, &str)> {
    let path = Path::new(path.strip_prefix('/')?);
    Some((path.parent()?, path.file_name()?.to_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for dir in ["memory/docker/abc", "v2/docker/abc"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        fs::write(at("memory/docker/abc/memory.usage_in_bytes"), "10\n").unwrap();
        fs::write(at("v2/docker/abc/memory.current"), "20\n").unwrap();
        let v1 = format!("cgroup {} cgroup rw,memory 0 0\n", at("memory").display());
        let v2 = format!("cgroup2 {} cgroup2 rw 0 0\n", at("v2").display());

        let (cgroups, group) = find("4:memory:/docker/abc\n0::/docker/abc\n", &format!("{v1}{v2}")).unwrap();
        assert_eq!((cgroups.version(), cgroups.usage(&group).unwrap().memory), (1, 10));
        let (cgroups, group) = find("0::/docker/abc\n", &v2).unwrap();
        assert_eq!((cgroups.version(), cgroups.usage(&group).unwrap().memory), (2, 20));
        assert!(find("0::/\n", &v2).is_err());
        assert!(find("", &v1).is_err());
    }

    #[test]
    fn a_process_that_has_ended_is_not_found() {
        assert_eq!(of_process(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
