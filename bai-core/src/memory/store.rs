//! All rows in memory: sessions, identities, agents, images and logs behind one lock.

mod agents;
pub mod fields;
mod identities;
pub mod rules;
mod sessions;

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::Result;
use crate::id::{AccessKey, AgentId, KernelId, SessionId, UserId};
use crate::identity::{Credential, Domain, Keypair, KeypairPolicy, Project, ResourceGroup, User};
use crate::image::Image;
use crate::port::store::{
    Agent, Committed, Directory, Page, SessionChange, SessionEvent, SessionQuery, StoreCapability, UserKey,
};
use crate::port::{AgentStore, IdentityStore, ImageStore, LogStore, SessionStore};
use crate::session::Session;

/// A store that forgets everything when it is dropped. Clones share the rows.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct State {
    sessions: sessions::Sessions,
    identities: identities::Identities,
    agents: agents::Agents,
}

impl MemoryStore {
    /// An empty store on the system's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty store that dates events by `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { state: Arc::default(), clock }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    fn capability(&self) -> StoreCapability {
        StoreCapability { exclusive: true, parallel_commits: 2 }
    }

    async fn insert(&self, new: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
        let now = self.clock.now();
        let State { sessions, agents, .. } = &mut *self.state.lock();
        Ok(new.into_iter().map(|change| sessions.insert(change, agents, now)).collect())
    }

    async fn commit(&self, changes: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
        let now = self.clock.now();
        let State { sessions, agents, .. } = &mut *self.state.lock();
        Ok(changes.into_iter().map(|change| sessions.commit(change, agents, now)).collect())
    }

    async fn get(&self, id: SessionId) -> Result<Option<Session>> {
        Ok(self.state.lock().sessions.get(id).cloned())
    }

    async fn versions(&self) -> Result<Vec<(SessionId, i64)>> {
        Ok(self.state.lock().sessions.versions())
    }

    async fn find(&self, query: &SessionQuery) -> Result<Page<Session>> {
        let State { sessions, identities, .. } = &*self.state.lock();
        sessions.find(query, identities)
    }

    async fn history(&self, id: SessionId) -> Result<Vec<SessionEvent>> {
        Ok(self.state.lock().sessions.history(id))
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<SessionEvent>> {
        Ok(self.state.lock().sessions.unpublished(limit))
    }

    async fn mark_published(&self, seqs: &[i64]) -> Result<()> {
        self.state.lock().sessions.mark_published(seqs);
        Ok(())
    }

    async fn purge(&self, before: Timestamp, limit: u32) -> Result<u64> {
        let State { sessions, agents, .. } = &mut *self.state.lock();
        let gone = sessions.purge(before, limit);
        agents.drop_logs_of(&gone);
        Ok(gone.len() as u64)
    }
}

#[async_trait]
impl IdentityStore for MemoryStore {
    async fn put_domain(&self, row: &Domain) -> Result<()> {
        self.state.lock().identities.put_domain(row);
        Ok(())
    }

    async fn put_project(&self, row: &Project, members: &[UserId]) -> Result<()> {
        self.state.lock().identities.put_project(row, members);
        Ok(())
    }

    async fn put_user(&self, row: &User) -> Result<()> {
        self.state.lock().identities.put_user(row)
    }

    async fn put_keypair(&self, row: &Keypair) -> Result<()> {
        self.state.lock().identities.put_keypair(row)
    }

    async fn put_policy(&self, row: &KeypairPolicy) -> Result<()> {
        self.state.lock().identities.put_policy(row);
        Ok(())
    }

    async fn put_resource_group(&self, row: &ResourceGroup) -> Result<()> {
        self.state.lock().identities.put_resource_group(row);
        Ok(())
    }

    async fn credential(&self, access_key: &AccessKey) -> Result<Option<Credential>> {
        self.state.lock().identities.credential(access_key)
    }

    async fn user(&self, key: &UserKey) -> Result<Option<User>> {
        Ok(self.state.lock().identities.user(key).cloned())
    }

    async fn directory(&self) -> Result<Directory> {
        Ok(self.state.lock().identities.directory())
    }
}

#[async_trait]
impl AgentStore for MemoryStore {
    async fn put_agent(&self, row: &Agent) -> Result<()> {
        self.state.lock().agents.put(row);
        Ok(())
    }

    async fn agents(&self) -> Result<Vec<Agent>> {
        Ok(self.state.lock().agents.all())
    }

    async fn set_schedulable(&self, id: &AgentId, schedulable: bool) -> Result<()> {
        self.state.lock().agents.set_schedulable(id, schedulable)
    }
}

#[async_trait]
impl ImageStore for MemoryStore {
    async fn put_agent_images(&self, agent: &AgentId, images: &[Image]) -> Result<()> {
        self.state.lock().agents.put_images(agent, images);
        Ok(())
    }

    async fn images(&self) -> Result<Vec<Image>> {
        Ok(self.state.lock().agents.images())
    }

    async fn agents_with(&self, name: &str) -> Result<Vec<AgentId>> {
        Ok(self.state.lock().agents.with_image(name))
    }
}

#[async_trait]
impl LogStore for MemoryStore {
    async fn put_log(&self, kernel: KernelId, session: SessionId, log: &[u8]) -> Result<()> {
        self.state.lock().agents.put_log(kernel, session, log);
        Ok(())
    }

    async fn log(&self, kernel: KernelId) -> Result<Option<Vec<u8>>> {
        Ok(self.state.lock().agents.log(kernel))
    }
}
