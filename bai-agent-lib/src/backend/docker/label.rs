//! Whether the labels of an image make it one that kernels can be started from (spec image-recipes.md, section 1).

use std::collections::{BTreeMap, HashSet};

/// Labels that belong to a container. An image made from a kernel's container carries them on, and they say nothing about
/// the image.
const OF_CONTAINERS: [&str; 8] = [
    "kernel-id",
    "session-id",
    "generation",
    "owner",
    "agent-id",
    "owner-user-id",
    "owner-project-id",
    "cluster-network",
];

const PREFIX: &str = "ai.backend.";
const ROLES: [&str; 3] = ["COMPUTE", "INFERENCE", "SYSTEM"];
const PROTOCOLS: [&str; 6] = ["http", "tcp", "preopen", "vnc", "rdp", "pty"];

/// Ports of the kernel itself.
const RESERVED: [u16; 6] = [2000, 2001, 2002, 2003, 2200, 7681];

/// The labels that describe the image.
pub(super) fn of_image(labels: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let is_of_image = |key: &str| {
        key.strip_prefix(PREFIX)
            .is_some_and(|key| !OF_CONTAINERS.contains(&key) && !key.starts_with("internal."))
    };
    labels.into_iter().filter(|(key, _)| is_of_image(key)).collect()
}

/// Checks the labels.
///
/// # Errors
/// The reason, in words, why the image cannot be used.
pub(super) fn check(labels: &BTreeMap<String, String>) -> Result<(), String> {
    let label = |key: &str| labels.get(&format!("{PREFIX}{key}")).map(|value| value.trim());
    if label("kernelspec") != Some("1") {
        return Err("the label kernelspec is not 1".into());
    }
    let role = label("role").unwrap_or("COMPUTE");
    if !ROLES.contains(&role) {
        return Err(format!("unknown role {role}"));
    }
    if label("runtime-path").is_some_and(|path| !path.starts_with('/')) {
        return Err("the label runtime-path is no absolute path".into());
    }
    let preopen = check_service_ports(label("service-ports").unwrap_or_default())?;
    if role == "INFERENCE" {
        check_inference(label("endpoint-ports"), label("model-path"), &preopen)?;
    }
    Ok(())
}

fn check_inference(
    endpoints: Option<&str>,
    model_path: Option<&str>,
    preopen: &HashSet<&str>,
) -> Result<(), String> {
    if model_path.is_none() {
        return Err("an inference image needs the label model-path".into());
    }
    let mut names =
        endpoints.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty()).peekable();
    if names.peek().is_none() {
        return Err("an inference image needs the label endpoint-ports".into());
    }
    match names.find(|name| !preopen.contains(name)) {
        Some(name) => Err(format!("the endpoint {name} is no preopen service port")),
        None => Ok(()),
    }
}

/// Checks `name:protocol:port` and `name:protocol:[p1,p2]` entries and returns the names of the preopen ones.
fn check_service_ports(text: &str) -> Result<HashSet<&str>, String> {
    let (mut preopen, mut seen) = (HashSet::new(), HashSet::new());
    for entry in split_entries(text) {
        let mut fields = entry.splitn(3, ':').map(str::trim);
        let (Some(name), Some(protocol), Some(ports)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(format!("malformed service port {entry}"));
        };
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
            return Err(format!("malformed name of the service port {entry}"));
        }
        if !PROTOCOLS.contains(&protocol) {
            return Err(format!("unknown protocol of the service port {entry}"));
        }
        let list = ports.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(ports);
        for port in list.split(',') {
            check_port(port.trim()).and_then(|port| seen.insert(port).then_some(())).ok_or_else(|| {
                format!("the port {port} of {name} is malformed, reserved, out of range or used twice")
            })?;
        }
        if protocol == "preopen" {
            preopen.insert(name);
        }
    }
    Ok(preopen)
}

fn check_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| (1025..=65534).contains(port) && !RESERVED.contains(port))
}

/// Splits at the commas outside of brackets.
fn split_entries(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.split(move |c| {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ => {}
        }
        c == ',' && !inside
    })
    .map(str::trim)
    .filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(more: &[(&str, &str)]) -> BTreeMap<String, String> {
        let base = [("kernelspec", "1"), ("runtime-type", "python"), ("runtime-path", "/usr/bin/python3")];
        let all = base.iter().chain(more);
        all.map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect()
    }

    #[test]
    fn good_labels_pass() {
        for more in [
            &[][..],
            &[("service-ports", "")],
            &[("service-ports", "jupyter:http:8080, multi:tcp:[8081,8082],old:pty:3000")],
            &[
                ("role", "INFERENCE"),
                ("service-ports", "api:preopen:8000"),
                ("endpoint-ports", "api"),
                ("model-path", "/models"),
            ],
        ] {
            assert_eq!(check(&labels(more)), Ok(()), "{more:?}");
        }
    }

    #[test]
    fn bad_labels_are_refused_with_a_reason() {
        for (key, value, reason) in [
            ("kernelspec", "2", "kernelspec"),
            ("role", "TOY", "TOY"),
            ("role", "INFERENCE", "model-path"),
            ("runtime-path", "python3", "absolute"),
            ("service-ports", "web:http", "malformed"),
            ("service-ports", "we b:http:8080", "name"),
            ("service-ports", "web:gopher:8080", "protocol"),
            ("service-ports", "web:http:80", "80"),
            ("service-ports", "web:http:2200", "2200"),
            ("service-ports", "a:http:8080,b:http:8080", "twice"),
            ("service-ports", "a:http:[8080,x]", "x"),
        ] {
            let error = check(&labels(&[(key, value)])).unwrap_err();
            assert!(error.contains(reason), "{key}={value}: {error}");
        }
    }

    #[test]
    fn labels_of_a_container_do_not_describe_an_image() {
        let all = labels(&[("kernel-id", "x"), ("internal.block-service-ports", "1"), ("owner", "a")]);
        let kept = of_image(all.into_iter().chain([("maintainer".to_owned(), "m".to_owned())]));
        assert_eq!(kept, labels(&[]));
    }
}
