//! A store over the network, which several managers may share, with a ledger that checks what they write.

use std::sync::Arc;

use async_trait::async_trait;
use bai_core::image::Image;
use bai_core::memory::MemoryStore;
use bai_core::port::store::{
    Agent, Committed, Page, SessionChange, SessionEvent, SessionQuery, StoreCapability,
};
use bai_core::port::{AgentStore, ImageStore, LogStore, SessionStore};
use bai_core::{AgentId, KernelId, Result, Session, SessionId, Timestamp};

use super::{Ledger, Network};

/// The rows of a cluster.
#[derive(Debug)]
pub struct SharedStore {
    rows: MemoryStore,
    ledger: Arc<Ledger>,
    network: Arc<Network>,
    exclusive: bool,
}

impl SharedStore {
    /// A store whose commits `ledger` checks. With `exclusive`, each manager may take itself for the only one: at most one may then live
    /// at a time.
    pub fn new(rows: MemoryStore, ledger: Arc<Ledger>, network: Arc<Network>, exclusive: bool) -> Arc<Self> {
        Arc::new(Self { rows, ledger, network, exclusive })
    }

    /// The rows, without network and ledger: to look at.
    pub fn rows(&self) -> &MemoryStore {
        &self.rows
    }

    /// What the records say.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The connection of a manager.
    pub fn link(self: &Arc<Self>, manager: &str) -> StoreLink {
        StoreLink { store: self.clone(), manager: Arc::from(manager) }
    }
}

/// What a manager sees of the store.
#[derive(Debug, Clone)]
pub struct StoreLink {
    store: Arc<SharedStore>,
    manager: Arc<str>,
}

impl StoreLink {
    async fn reach<T, F>(
        &self,
        call: impl FnOnce(Arc<SharedStore>, Arc<str>) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let (store, manager) = (self.store.clone(), self.manager.clone());
        self.store.network.reach(&self.manager, "store", move || call(store, manager)).await
    }
}

#[async_trait]
impl SessionStore for StoreLink {
    fn capability(&self) -> StoreCapability {
        let mut capability = StoreCapability::default();
        capability.exclusive = self.store.exclusive;
        capability.parallel_commits = 2;
        capability
    }

    async fn insert(&self, new: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
        self.reach(|store, manager| async move {
            let done = store.rows.insert(new).await?;
            for committed in done.iter().flatten() {
                store.ledger.enter(&manager, &committed.session);
            }
            Ok(done)
        })
        .await
    }

    async fn commit(&self, changes: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
        self.reach(|store, manager| async move {
            let mut results = Vec::with_capacity(changes.len());
            for change in changes {
                let mut one = store.rows.commit(vec![change]).await?;
                if let Some(Ok(committed)) = one.first() {
                    store.ledger.enter(&manager, &committed.session);
                }
                results.append(&mut one);
            }
            Ok(results)
        })
        .await
    }

    async fn get(&self, id: SessionId) -> Result<Option<Session>> {
        self.reach(move |store, _| async move { store.rows.get(id).await }).await
    }

    async fn versions(&self) -> Result<Vec<(SessionId, i64)>> {
        self.reach(|store, _| async move { store.rows.versions().await }).await
    }

    async fn find(&self, query: &SessionQuery) -> Result<Page<Session>> {
        let query = query.clone();
        self.reach(move |store, _| async move { store.rows.find(&query).await }).await
    }

    async fn history(&self, id: SessionId) -> Result<Vec<SessionEvent>> {
        self.reach(move |store, _| async move { store.rows.history(id).await }).await
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<SessionEvent>> {
        self.reach(move |store, _| async move { store.rows.unpublished(limit).await }).await
    }

    async fn mark_published(&self, seqs: &[i64]) -> Result<()> {
        let seqs = seqs.to_vec();
        self.reach(move |store, _| async move { store.rows.mark_published(&seqs).await }).await
    }

    async fn purge(&self, before: Timestamp, limit: u32) -> Result<u64> {
        self.reach(move |store, _| async move { store.rows.purge(before, limit).await }).await
    }
}

#[async_trait]
impl AgentStore for StoreLink {
    async fn put_agent(&self, row: &Agent) -> Result<()> {
        let row = row.clone();
        self.reach(move |store, _| async move { store.rows.put_agent(&row).await }).await
    }

    async fn agents(&self) -> Result<Vec<Agent>> {
        self.reach(|store, _| async move { store.rows.agents().await }).await
    }

    async fn set_schedulable(&self, id: &AgentId, schedulable: bool) -> Result<()> {
        let id = id.clone();
        self.reach(move |store, _| async move { store.rows.set_schedulable(&id, schedulable).await }).await
    }
}

#[async_trait]
impl ImageStore for StoreLink {
    async fn put_agent_images(&self, agent: &AgentId, images: &[Image]) -> Result<()> {
        let (agent, images) = (agent.clone(), images.to_vec());
        self.reach(move |store, _| async move { store.rows.put_agent_images(&agent, &images).await }).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.reach(|store, _| async move { store.rows.images().await }).await
    }

    async fn agents_with(&self, name: &str) -> Result<Vec<AgentId>> {
        let name = name.to_owned();
        self.reach(move |store, _| async move { store.rows.agents_with(&name).await }).await
    }
}

#[async_trait]
impl LogStore for StoreLink {
    async fn put_log(&self, kernel: KernelId, session: SessionId, log: &[u8]) -> Result<()> {
        let log = log.to_vec();
        self.reach(move |store, _| async move { store.rows.put_log(kernel, session, &log).await }).await
    }

    async fn log(&self, kernel: KernelId) -> Result<Option<Vec<u8>>> {
        self.reach(move |store, _| async move { store.rows.log(kernel).await }).await
    }
}
