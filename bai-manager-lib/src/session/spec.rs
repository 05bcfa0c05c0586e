//! What an agent is told about a kernel: its specification and environment (spec agent.md, section 7).

use std::collections::BTreeMap;

use bai_core::image::Image;
use bai_core::port::agent::KernelSpec;
use bai_core::{Kernel, Result, Secret, Session};

use super::cluster::cluster_spec;
use super::registry::kernel_ref;

/// The specification of `kernel` for its agent. `secret` is that of the cluster.
///
/// # Errors
/// `Internal` when the keys of the session cannot be made.
pub(crate) fn kernel_spec(
    session: &Session,
    kernel: &Kernel,
    image: Option<&Image>,
    secret: &Secret<[u8; 32]>,
) -> Result<KernelSpec> {
    let is_main = kernel.id == session.main().id;
    Ok(KernelSpec {
        kernel: kernel_ref(kernel),
        session: session.id,
        session_name: session.name.clone(),
        session_type: session.session_type.as_str().to_owned(),
        image: kernel.image.clone(),
        image_labels: image.map(|image| image.labels.clone()).unwrap_or_default(),
        role: kernel.role.clone(),
        hostname: kernel.hostname.clone(),
        slots: kernel.allocated.clone(),
        resource_opts: session.spec.resource_opts.clone(),
        environ: environ(session, kernel, image),
        bootstrap_script: session.spec.bootstrap_script.clone().filter(|_| is_main),
        preopen_ports: session.spec.preopen_ports.clone(),
        startup_command: session.spec.startup_command.clone().filter(|_| is_main),
        batch_timeout: session.spec.batch_timeout.filter(|_| is_main),
        cluster: cluster_spec(session, secret)?,
    })
}

/// The user's variables and ours; ours win, since programs rely on them.
fn environ(session: &Session, kernel: &Kernel, image: Option<&Image>) -> BTreeMap<String, String> {
    let owner = &session.owner;
    let hosts = session.kernels.iter().map(|kernel| kernel.hostname.as_str()).collect::<Vec<_>>().join(",");
    let preopen = session.spec.preopen_ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let service_ports = image.and_then(|image| image.label("service-ports")).unwrap_or_default();
    let ours = [
        ("BACKENDAI_USER_UUID", owner.user_id.to_string()),
        ("BACKENDAI_USER_EMAIL", owner.email.clone()),
        ("BACKENDAI_SESSION_ID", session.id.to_string()),
        ("BACKENDAI_SESSION_NAME", session.name.clone()),
        ("BACKENDAI_ACCESS_KEY", owner.access_key.to_string()),
        ("BACKENDAI_KERNEL_ID", kernel.id.to_string()),
        ("BACKENDAI_KERNEL_IMAGE", kernel.image.clone()),
        ("BACKENDAI_SERVICE_PORTS", service_ports.to_owned()),
        ("BACKENDAI_PREOPEN_PORTS", preopen),
        ("BACKENDAI_CLUSTER_SIZE", session.kernels.len().to_string()),
        ("BACKENDAI_CLUSTER_REPLICAS", replicas(session)),
        ("BACKENDAI_CLUSTER_HOSTS", hosts),
        ("BACKENDAI_CLUSTER_ROLE", kernel.role.clone()),
        ("BACKENDAI_CLUSTER_IDX", kernel.idx.to_string()),
        ("BACKENDAI_CLUSTER_LOCAL_RANK", kernel.local_rank.to_string()),
        ("BACKENDAI_CLUSTER_HOST", kernel.hostname.clone()),
    ];
    let mut environ = session.spec.environ.clone();
    environ.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    environ
}

/// `main:1,sub:3`; roles without a kernel are left out.
fn replicas(session: &Session) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for kernel in &session.kernels {
        match counts.iter_mut().find(|(role, _)| *role == kernel.role) {
            Some((_, count)) => *count += 1,
            None => counts.push((&kernel.role, 1)),
        }
    }
    counts.iter().map(|(role, count)| format!("{role}:{count}")).collect::<Vec<_>>().join(",")
}
