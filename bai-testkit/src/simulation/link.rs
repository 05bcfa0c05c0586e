//! What one manager sees of agents, leases and events: all of it over the network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bai_core::error::code;
use bai_core::execution::{ExecuteReply, ExecuteRequest, FileEntry, UploadFile};
use bai_core::memory::{MemoryEvents, MemoryLease};
use bai_core::port::agent::{KernelRef, KernelSpec};
use bai_core::port::events::{Envelope, From};
use bai_core::port::lease::Grant;
use bai_core::port::{AgentApi, Events, Lease};
use bai_core::{AgentId, Error, Result};
use futures_util::stream::{BoxStream, StreamExt};
use serde_json::{Map, Value};

use super::{Network, Node};

/// The way from a manager to an agent.
#[derive(Debug, Clone)]
pub struct AgentLink {
    network: Arc<Network>,
    manager: Arc<str>,
    node: Arc<Node>,
}

impl AgentLink {
    /// The way from `manager` to the agent `id`.
    ///
    /// # Errors
    /// `Unavailable` when there is no such agent.
    pub fn to(
        nodes: &BTreeMap<AgentId, Arc<Node>>,
        id: &AgentId,
        network: &Arc<Network>,
        manager: &str,
    ) -> Result<Self> {
        let node = nodes.get(id).ok_or_else(|| Error::of(code::AGENT_UNREACHABLE, "no such agent"))?;
        Ok(Self { network: network.clone(), manager: Arc::from(manager), node: node.clone() })
    }

    async fn carry<T, F>(&self, deliver: impl Fn(Arc<Node>) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let node = self.node.clone();
        self.network.carry(&self.manager, self.node.id().as_str(), move || deliver(node.clone())).await
    }
}

#[async_trait]
impl AgentApi for AgentLink {
    async fn create_kernels(&self, specs: Vec<KernelSpec>) -> Result<()> {
        let manager = self.manager.clone();
        self.carry(move |node| {
            let (manager, specs) = (manager.clone(), specs.clone());
            async move { node.create(&manager, specs) }
        })
        .await
    }

    async fn destroy_kernel(&self, kernel: KernelRef, reason: &str) -> Result<()> {
        let reason: Arc<str> = Arc::from(reason);
        self.carry(move |node| {
            let reason = reason.clone();
            async move { node.destroy(kernel, &reason) }
        })
        .await
    }

    async fn forget(&self, kernel: KernelRef) -> Result<()> {
        self.carry(move |node| async move { node.forget(kernel) }).await
    }

    async fn start_batch(&self, kernel: KernelRef) -> Result<()> {
        self.carry(move |node| async move { node.start_batch(kernel) }).await
    }

    async fn execute(&self, kernel: KernelRef, request: ExecuteRequest) -> Result<ExecuteReply> {
        self.carry(move |node| {
            let request = request.clone();
            async move { node.execute(kernel, &request) }
        })
        .await
    }

    async fn interrupt(&self, kernel: KernelRef) -> Result<()> {
        self.carry(move |node| async move { node.known(kernel) }).await
    }

    async fn complete(&self, kernel: KernelRef, _: &str, _: &Map<String, Value>) -> Result<Vec<String>> {
        self.carry(move |node| async move { node.known(kernel).map(|()| Vec::new()) }).await
    }

    async fn logs(&self, kernel: KernelRef) -> Result<Vec<u8>> {
        self.carry(move |node| async move { node.logs(kernel) }).await
    }

    async fn upload(&self, kernel: KernelRef, _: Vec<UploadFile>) -> Result<()> {
        self.carry(move |node| async move { node.known(kernel) }).await
    }

    async fn download(&self, kernel: KernelRef, _: &str) -> Result<Vec<u8>> {
        self.carry(move |node| async move { node.known(kernel).map(|()| Vec::new()) }).await
    }

    async fn download_single(&self, kernel: KernelRef, _: &str) -> Result<Vec<u8>> {
        self.carry(move |node| async move { node.known(kernel).map(|()| Vec::new()) }).await
    }

    async fn list_files(&self, kernel: KernelRef, _: &str) -> Result<Vec<FileEntry>> {
        self.carry(move |node| async move { node.known(kernel).map(|()| Vec::new()) }).await
    }
}

/// The leases, as far as a manager reaches them.
#[derive(Debug)]
pub struct LeaseLink {
    leases: MemoryLease,
    network: Arc<Network>,
    manager: Arc<str>,
}

impl LeaseLink {
    /// The connection of `manager`.
    pub fn new(leases: MemoryLease, network: Arc<Network>, manager: &str) -> Self {
        Self { leases, network, manager: Arc::from(manager) }
    }

    async fn reach<T, F>(&self, call: impl FnOnce(MemoryLease) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let leases = self.leases.clone();
        self.network.reach(&self.manager, "lease", move || call(leases)).await
    }
}

#[async_trait]
impl Lease for LeaseLink {
    async fn try_acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Grant>> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.reach(move |leases| async move { leases.try_acquire(&name, &holder, ttl).await }).await
    }

    async fn renew(&self, grant: &Grant) -> Result<()> {
        let grant = grant.clone();
        self.reach(move |leases| async move { leases.renew(&grant).await }).await
    }

    async fn release(&self, grant: &Grant) -> Result<()> {
        let grant = grant.clone();
        self.reach(move |leases| async move { leases.release(&grant).await }).await
    }

    async fn holder(&self, name: &str) -> Result<Option<String>> {
        let name = name.to_owned();
        self.reach(move |leases| async move { leases.holder(&name).await }).await
    }
}

/// The events, as far as a manager hears of them. Some are lost on the way without a word.
#[derive(Debug)]
pub struct EventsLink {
    events: MemoryEvents,
    network: Arc<Network>,
    manager: Arc<str>,
}

impl EventsLink {
    /// The connection of `manager`.
    pub fn new(events: MemoryEvents, network: Arc<Network>, manager: &str) -> Self {
        Self { events, network, manager: Arc::from(manager) }
    }
}

#[async_trait]
impl Events for EventsLink {
    async fn publish(&self, topic: &str, payloads: &[Value]) -> Result<()> {
        let (events, topic, payloads) = (self.events.clone(), topic.to_owned(), payloads.to_vec());
        let publish = move || async move { events.publish(&topic, &payloads).await };
        self.network.reach(&self.manager, "events", publish).await
    }

    async fn subscribe(&self, from: From) -> Result<BoxStream<'static, Result<Envelope>>> {
        let stream = self.events.subscribe(from).await?;
        let (network, manager) = (self.network.clone(), self.manager.clone());
        let heard = stream.filter_map(move |event| {
            let (network, manager) = (network.clone(), manager.clone());
            async move {
                network.awake(&manager).await;
                (!network.loses_event() && !network.is_cut("events", &manager)).then_some(event)
            }
        });
        Ok(heard.boxed())
    }
}
