//! `/etc` of a sandbox: the host's, with its users and secrets taken out.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    SandboxSpec,
    power::gap,
    root::{Root, SEALED, is_system, site, step},
};

/// An empty directory and an empty file inside, to cover others with.
pub(super) const NO_ENTRIES: &str = "/opt/kernel/etc/none";
/// See [`NO_ENTRIES`].
pub(super) const NO_BYTES: &str = "/opt/kernel/etc/empty";

const GENERATED: &str = "/opt/kernel/etc";

/// What would tell of the host's users, keys and services. Most of it only root may read; inside nobody can.
const SECRET: &[&str] = &[
    "shadow",
    "shadow-",
    "gshadow",
    "gshadow-",
    "passwd-",
    "group-",
    "subuid",
    "subgid",
    "sudoers",
    "sudoers.d",
    "security/opasswd",
    "krb5.keytab",
    "ssh",
    "ssl/private",
    "docker",
    "containerd",
    "kubernetes",
    "rancher",
    "wireguard",
    "NetworkManager",
    "crontab",
    "cron.d",
];

/// Makes the two empty things.
pub(super) fn blank(root: &Root) -> io::Result<()> {
    root.directory(Path::new(NO_ENTRIES))?;
    fs::write(site(NO_BYTES), "")
}

/// Puts the sandbox's own accounts and names over the host's, and nothing over its secrets.
pub(super) fn personalize(root: &Root, spec: &SandboxSpec, gaps: &mut Vec<String>) -> io::Result<()> {
    for name in SECRET {
        gap(gaps, root.cover(&Path::new("/etc").join(name)), &format!("/etc/{name} is visible"));
    }
    for (name, text) in [
        ("passwd", passwd(spec.uid, spec.gid)),
        ("group", group(spec.gid)),
        ("hostname", format!("{}\n", spec.hostname)),
        ("hosts", hosts(&fs::read_to_string("/etc/hosts").unwrap_or_default(), spec)),
    ] {
        let source = site(GENERATED).join(name);
        step(name, fs::write(&source, text))?;
        let target = Path::new("/etc").join(name);
        // What the host lacks cannot be created in its read-only directory, and nothing reads it.
        if site(&target).exists() {
            gap(gaps, root.bind(&source, &target, SEALED), &format!("{} is the host's", target.display()));
        }
    }
    gap(gaps, resolver(root), "names may not resolve");
    Ok(())
}

/// The host's names, and those of the sandbox: it and what shares its network are reached on the loopback address.
fn hosts(of_host: &str, spec: &SandboxSpec) -> String {
    let names =
        std::iter::once(&spec.hostname).chain(spec.aliases.iter().filter(|name| **name != spec.hostname));
    let names = names.map(String::as_str).collect::<Vec<_>>().join(" ");
    format!("{}\n127.0.0.1 {names}\n", of_host.trim_end())
}

/// Where the resolver's configuration is a link into `/run`, which begins empty, its text is copied there.
fn resolver(root: &Root) -> io::Result<()> {
    let Ok(file) = fs::canonicalize("/etc/resolv.conf") else { return Ok(()) };
    if is_system(&file) {
        return Ok(());
    }
    let parent: PathBuf = file.parent().map(Path::to_path_buf).unwrap_or_default();
    root.directory(&parent)?;
    fs::copy(&file, site(&file))?;
    Ok(())
}

fn passwd(uid: u32, gid: u32) -> String {
    let shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    let nobody = "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
    let root = "root:x:0:0:root:/root:/bin/sh\n";
    let nobody = if uid == 65534 { "" } else { nobody };
    format!("{root}{nobody}work:x:{uid}:{gid}::/home/work:{shell}\n")
}

fn group(gid: u32) -> String {
    let fixed = [("root", 0), ("tty", 5), ("nogroup", 65534)];
    let others = fixed.iter().filter(|(_, id)| *id != gid).map(|(name, id)| format!("{name}:x:{id}:\n"));
    others.chain([format!("work:x:{gid}:\n")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_on_the_loopback_address() {
        let text =
            r#"{"state_dir": "/s", "command": [], "hostname": "sub1", "uid": 1, "gid": 1, "binds": []}"#;
        let mut spec: SandboxSpec = serde_json::from_str(text).unwrap();
        assert_eq!(hosts("127.0.0.1 localhost\n", &spec), "127.0.0.1 localhost\n127.0.0.1 sub1\n");
        spec.aliases = vec!["main1".into(), "sub1".into(), "sub2".into()];
        assert_eq!(hosts("", &spec), "\n127.0.0.1 sub1 main1 sub2\n");
    }

    #[test]
    fn every_id_has_one_name() {
        for id in [1000, 65534] {
            assert_eq!(
                passwd(id, id).lines().filter(|line| line.split(':').nth(2) == Some(&id.to_string())).count(),
                1
            );
            assert_eq!(
                group(id).lines().filter(|line| line.split(':').nth(2) == Some(&id.to_string())).count(),
                1
            );
            assert!(passwd(id, id).ends_with("sh\n"));
        }
    }
}
