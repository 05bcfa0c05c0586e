//! The private networks of sessions with several kernels (spec agent.md, section 6).
//!
//! Kernels on one engine share a bridge; such on several engines an overlay of the swarm that the engines form. A network is
//! made with the first container that needs it and removed after the last one. It is found by its labels, so that a crash in
//! between leaves nothing behind: the next back end of the agent removes what no container needs.
//!
//! Whatever becomes of the removal, it is no reason for a kernel not to end: it is tried again when containers are listed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::{Error, ErrorKind, Result, code};
use bai_core::id::SessionId;
use bai_core::port::backend::StartSpec;
use bai_core::port::cluster::ClusterNetwork;
use bai_core::status::ClusterMode;
use bollard::models::{
    EndpointSettings, LocalNodeState, Network, NetworkCreateRequest, NetworkingConfig, SwarmInfo,
};
use bollard::query_parameters::{ListContainersOptions, ListNetworksOptions};
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::container::{CLUSTER, OWNER, SESSION};
use super::engine::{Engine, Failure};

/// Longest time that the removal of networks may hold up anything else.
const REMOVAL: Duration = Duration::from_secs(10);

/// Keeps a network while a container is put into it.
pub(super) type Hold = OwnedRwLockReadGuard<()>;

/// The networks that this back end has to do with.
#[derive(Debug, Default)]
pub(super) struct Networks {
    /// Shared by the starts of a session's kernels, exclusive for the removal of its network.
    sessions: Mutex<HashMap<SessionId, Arc<RwLock<()>>>>,
    /// The engine itself would make two of one name.
    making: tokio::sync::Mutex<()>,
    /// Or the last two kernels of a session might each leave the network to the other.
    removing: tokio::sync::Mutex<()>,
    /// Sessions whose network could not be removed yet.
    left: Mutex<HashSet<SessionId>>,
}

impl Networks {
    /// Keeps the network of the session, if there is one or will be, until the hold is dropped.
    pub(super) async fn hold(&self, spec: &StartSpec) -> Option<Hold> {
        spec.cluster.as_ref()?;
        Some(self.lock(spec.session).read_owned().await)
    }

    /// Makes the network of the session, unless it is there or needs none.
    ///
    /// # Errors
    /// `Unsupported` when the engine is in no swarm and the network needs one; those of the engine, which has room for a
    /// limited number of networks.
    pub(super) async fn make(&self, engine: &Engine, owner: &str, spec: &StartSpec) -> Result<()> {
        let Some(cluster) = &spec.cluster else { return Ok(()) };
        let _making = self.making.lock().await;
        if is_there(engine, spec.session, cluster).await? {
            return Ok(());
        }
        if cluster.mode == ClusterMode::MultiNode && !makes_overlays(engine).await? {
            // Only managers of a swarm can. It is seen here once a container is started in it.
            return Ok(());
        }
        let request = definition(owner, spec.session, cluster);
        let Err(failure) = engine.call(engine.docker.create_network(request)).await else { return Ok(()) };
        // The agent of another kernel may have been faster.
        if is_there(engine, spec.session, cluster).await.unwrap_or(false) {
            return Ok(());
        }
        Err(Error::from(failure).with("network", &cluster.name))
    }

    /// Removes the network of a session in which no container is left. It is not waited for one that is being started: its
    /// own end comes later.
    pub(super) async fn release(&self, engine: &Engine, session: SessionId) {
        let remove = async {
            let _turn = self.removing.lock().await;
            match self.lock(session).try_write_owned() {
                Ok(_alone) => remove_unused(engine, session).await,
                Err(_) => Ok(()),
            }
        };
        match tokio::time::timeout(REMOVAL, remove).await {
            Ok(Ok(())) => drop(self.left.lock().remove(&session)),
            Ok(Err(failure)) => self.keep(session, &Error::from(failure)),
            Err(_) => self.keep(session, &Error::from(Failure::Late)),
        }
    }

    fn keep(&self, session: SessionId, error: &Error) {
        if self.left.lock().insert(session) {
            tracing::warn!(%session, %error, "the network of a session cannot be removed yet");
        }
    }

    /// Removes what could not be removed before.
    pub(super) async fn retry(&self, engine: &Engine) {
        let left: Vec<_> = self.left.lock().iter().copied().collect();
        for session in left {
            self.release(engine, session).await;
        }
    }

    /// Removes what an earlier back end of the agent has left.
    ///
    /// # Errors
    /// Those of the engine when it cannot list networks.
    pub(super) async fn sweep(&self, engine: &Engine, owner: &str) -> Result<(), Failure> {
        for network in find(engine, &format!("{OWNER}={owner}")).await? {
            if let Some(session) = session_of(&network) {
                self.release(engine, session).await;
            }
        }
        Ok(())
    }

    fn lock(&self, session: SessionId) -> Arc<RwLock<()>> {
        let mut sessions = self.sessions.lock();
        sessions.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(sessions.entry(session).or_default())
    }
}

/// Whether a start failed because the network, which another engine of the swarm makes, is not there yet.
pub(super) fn is_awaited(spec: &StartSpec, failure: &Failure) -> bool {
    let Some(cluster) = spec.cluster.as_ref().filter(|cluster| cluster.mode == ClusterMode::MultiNode) else {
        return false;
    };
    matches!(failure, Failure::Refused(_, message)
        if message.contains(&*cluster.name) && (message.contains("not found") || message.contains("could not find")))
}

/// The error for a network that was [awaited](is_awaited) in vain.
pub(super) fn never_made() -> Error {
    Error::of(
        code::BACKEND_FAILED,
        "no manager of the swarm has made the network of the session: one of its kernels must be on a manager",
    )
}

/// Our networks with another label.
async fn find(engine: &Engine, label: &str) -> Result<Vec<Network>, Failure> {
    let labels = vec![format!("{CLUSTER}=1"), label.to_owned()];
    let options = ListNetworksOptions { filters: Some(HashMap::from([("label".to_owned(), labels)])) };
    engine.call(engine.docker.list_networks(Some(options))).await
}

async fn is_there(engine: &Engine, session: SessionId, cluster: &ClusterNetwork) -> Result<bool, Failure> {
    let known = find(engine, &format!("{SESSION}={session}")).await?;
    Ok(known.iter().any(|network| network.name.as_deref() == Some(&*cluster.name)))
}

fn session_of(network: &Network) -> Option<SessionId> {
    network.labels.as_ref()?.get(SESSION)?.parse().ok()
}

async fn remove_unused(engine: &Engine, session: SessionId) -> Result<(), Failure> {
    let label = format!("{SESSION}={session}");
    let networks = find(engine, &label).await?;
    if networks.is_empty() {
        return Ok(());
    }
    let filters = Some(HashMap::from([("label".to_owned(), vec![label])]));
    let options = ListContainersOptions { all: true, limit: Some(1), filters, ..Default::default() };
    if !engine.call(engine.docker.list_containers(Some(options))).await?.is_empty() {
        return Ok(());
    }
    for network in networks {
        let id = network.id.unwrap_or_default();
        match engine.call(engine.docker.remove_network(&id)).await {
            Err(failure) if !failure.is_missing() => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

/// Whether this engine can make overlays, or another one of its swarm.
///
/// # Errors
/// `Unsupported` when it is in no swarm.
async fn makes_overlays(engine: &Engine) -> Result<bool> {
    let info = engine.call(engine.docker.info()).await?;
    swarm_role(info.swarm.as_ref()).map_err(|state| {
        let why = "the container engine of this agent is in no swarm, which multi-node sessions need: \
                   `docker swarm init` on one host and `docker swarm join` on the others make one";
        Error::new(ErrorKind::Unsupported, why).with("swarm", state)
    })
}

/// Whether the engine is a manager of its swarm, or the state that it is in instead.
fn swarm_role(swarm: Option<&SwarmInfo>) -> Result<bool, String> {
    let state = swarm.and_then(|swarm| swarm.local_node_state);
    if state != Some(LocalNodeState::ACTIVE) {
        return Err(state.map_or_else(|| "unknown".to_owned(), |state| state.to_string()));
    }
    Ok(swarm.and_then(|swarm| swarm.control_available) == Some(true))
}

fn definition(owner: &str, session: SessionId, cluster: &ClusterNetwork) -> NetworkCreateRequest {
    let labels = [(CLUSTER, "1".to_owned()), (SESSION, session.to_string()), (OWNER, owner.to_owned())];
    let (driver, overlay) = match cluster.mode {
        ClusterMode::SingleNode => ("bridge", false),
        ClusterMode::MultiNode => ("overlay", true),
    };
    NetworkCreateRequest {
        name: cluster.name.clone(),
        driver: Some(driver.to_owned()),
        // Containers are no services of the swarm.
        attachable: Some(overlay),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
        ..NetworkCreateRequest::default()
    }
}

/// The container's place in the network, under its host name.
pub(super) fn place(cluster: &ClusterNetwork, hostname: &str) -> NetworkingConfig {
    let endpoint =
        EndpointSettings { aliases: Some(vec![hostname.to_owned()]), ..EndpointSettings::default() };
    NetworkingConfig { endpoints_config: Some(HashMap::from([(cluster.name.clone(), endpoint)])) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_an_engine_in_its_swarm_is_seen() {
        let swarm = |state, control| SwarmInfo {
            local_node_state: Some(state),
            control_available: Some(control),
            ..SwarmInfo::default()
        };
        assert_eq!(swarm_role(Some(&swarm(LocalNodeState::ACTIVE, true))), Ok(true));
        assert_eq!(swarm_role(Some(&swarm(LocalNodeState::ACTIVE, false))), Ok(false));
        assert_eq!(swarm_role(Some(&swarm(LocalNodeState::INACTIVE, false))), Err("inactive".into()));
        assert_eq!(swarm_role(Some(&swarm(LocalNodeState::LOCKED, false))), Err("locked".into()));
        assert_eq!(swarm_role(None), Err("unknown".into()));
    }

    #[test]
    fn only_networks_of_several_nodes_are_overlays() {
        for (mode, driver, attachable) in
            [(ClusterMode::SingleNode, "bridge", false), (ClusterMode::MultiNode, "overlay", true)]
        {
            let cluster = ClusterNetwork { mode, name: "bai-x".into(), hosts: Vec::new() };
            let session = SessionId::random();
            let made = definition("a1", session, &cluster);
            assert_eq!((made.name.as_str(), made.driver.as_deref()), ("bai-x", Some(driver)));
            assert_eq!(made.attachable, Some(attachable));
            let labels = made.labels.unwrap();
            assert_eq!((labels[CLUSTER].as_str(), labels[OWNER].as_str()), ("1", "a1"));
            let network = Network { labels: Some(labels), ..Network::default() };
            assert_eq!(session_of(&network), Some(session));
        }
    }
}
