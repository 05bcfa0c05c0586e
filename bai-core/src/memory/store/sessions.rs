//! Rows of sessions, their history and the queue of events to publish.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::agents::Agents;
use super::fields::{self, SessionRow};
use super::identities::Identities;
use super::rules;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{AccessKey, AgentId, SessionId};
use crate::port::store::{Committed, NewEvent, Page, SessionChange, SessionEvent, SessionQuery};
use crate::session::Session;
use crate::slots::ResourceSlots;

#[derive(Debug, Default)]
pub(super) struct Sessions {
    rows: HashMap<SessionId, Session>,
    /// Who has which name, living sessions only.
    names: HashMap<(AccessKey, String), SessionId>,
    /// Sessions with a kernel on the agent that holds something: whose allocations to sum up.
    holders: HashMap<AgentId, HashSet<SessionId>>,
    events: BTreeMap<i64, SessionEvent>,
    history: HashMap<SessionId, Vec<i64>>,
    unpublished: BTreeSet<i64>,
    last_seq: i64,
}

impl Sessions {
    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.rows.get(&id)
    }

    pub(super) fn versions(&self) -> Vec<(SessionId, i64)> {
        let living = self.rows.values().filter(|session| !session.status.is_dead());
        living.map(|session| (session.id, session.version)).collect()
    }

    pub(super) fn insert(
        &mut self,
        change: SessionChange,
        agents: &Agents,
        now: Timestamp,
    ) -> Result<Committed> {
        let session = &change.session;
        rules::require_kernels(session)?;
        let taken =
            self.rows.contains_key(&session.id).then_some(session.id).or_else(|| self.name_taken(session));
        if let Some(existing) = taken {
            return Err(rules::session_exists(existing, &session.name));
        }
        self.guard(&change, agents)?;
        Ok(self.store(change, 1, now))
    }

    pub(super) fn commit(
        &mut self,
        change: SessionChange,
        agents: &Agents,
        now: Timestamp,
    ) -> Result<Committed> {
        let session = &change.session;
        rules::require_kernels(session)?;
        let stored = self.rows.get(&session.id).ok_or_else(|| rules::no_such_session(session.id))?;
        if stored.version != session.version {
            return Err(rules::moved_on(session.id, session.version));
        }
        if self.name_taken(session).is_some() {
            return Err(rules::name_taken(session));
        }
        self.guard(&change, agents)?;
        let version = session.version + 1;
        Ok(self.store(change, version, now))
    }

    /// The living session of the same owner that stands in the way of this one's name.
    fn name_taken(&self, session: &Session) -> Option<SessionId> {
        if session.status.is_dead() {
            return None;
        }
        self.names.get(&name_key(session)).copied().filter(|id| *id != session.id)
    }

    fn guard(&self, change: &SessionChange, agents: &Agents) -> Result<()> {
        if !change.guard_capacity {
            return Ok(());
        }
        for (agent, asked) in rules::held_by(&change.session) {
            let others = self.held_by_others(agent, change.session.id);
            rules::require_room(change.session.id, agent, &agents.capacity(agent), &others, &asked)?;
        }
        Ok(())
    }

    fn held_by_others(&self, agent: &AgentId, except: SessionId) -> ResourceSlots {
        let holders = self.holders.get(agent).into_iter().flatten().filter(|id| **id != except);
        let kernels = holders.filter_map(|id| self.rows.get(id)).flat_map(|session| &session.kernels);
        kernels.filter(|kernel| kernel.agent.as_ref() == Some(agent)).map(|kernel| &kernel.allocated).sum()
    }

    fn store(&mut self, change: SessionChange, version: i64, now: Timestamp) -> Committed {
        let SessionChange { mut session, events, .. } = change;
        session.version = version;
        if let Some(old) = self.rows.remove(&session.id) {
            self.forget_indexes(&old);
        }
        if !session.status.is_dead() {
            self.names.insert(name_key(&session), session.id);
        }
        for agent in rules::held_by(&session).into_keys() {
            self.holders.entry(agent.clone()).or_default().insert(session.id);
        }
        let events = events.into_iter().map(|event| self.append(&session, event, now)).collect();
        self.rows.insert(session.id, session.clone());
        Committed { session, events }
    }

    fn append(&mut self, session: &Session, event: NewEvent, now: Timestamp) -> SessionEvent {
        self.last_seq += 1;
        let event = rules::session_event(session, event, self.last_seq, now);
        self.events.insert(event.seq, event.clone());
        self.history.entry(session.id).or_default().push(event.seq);
        self.unpublished.insert(event.seq);
        event
    }

    fn forget_indexes(&mut self, old: &Session) {
        if self.names.get(&name_key(old)) == Some(&old.id) {
            self.names.remove(&name_key(old));
        }
        for agent in rules::held_by(old).into_keys() {
            if let Some(holders) = self.holders.get_mut(agent) {
                holders.remove(&old.id);
            }
        }
    }

    fn remove(&mut self, id: SessionId) {
        if let Some(old) = self.rows.remove(&id) {
            self.forget_indexes(&old);
        }
        for seq in self.history.remove(&id).unwrap_or_default() {
            self.events.remove(&seq);
            self.unpublished.remove(&seq);
        }
    }

    pub(super) fn find(&self, query: &SessionQuery, identities: &Identities) -> Result<Page<Session>> {
        let query = fields::checked(query)?;
        let mut found: Vec<_> = (self.rows.values())
            .filter(|session| matches(session, &query))
            .map(|session| SessionRow { session, full_name: identities.full_name(session.owner.user_id) })
            .filter(|row| query.filter.as_ref().is_none_or(|filter| filter.matches(row)))
            .collect();
        found.sort_by(|a, b| fields::compare(a, b, &query));
        let total = found.len() as u64;
        let skip = usize::try_from(query.offset).unwrap_or(usize::MAX);
        let take = query.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let items = found.into_iter().skip(skip).take(take).map(|row| row.session.clone()).collect();
        Ok(Page { items, total })
    }

    pub(super) fn history(&self, id: SessionId) -> Vec<SessionEvent> {
        let seqs = self.history.get(&id).into_iter().flatten();
        seqs.filter_map(|seq| self.events.get(seq)).cloned().collect()
    }

    pub(super) fn unpublished(&self, limit: u32) -> Vec<SessionEvent> {
        let seqs = self.unpublished.iter().take(limit as usize);
        seqs.filter_map(|seq| self.events.get(seq)).cloned().collect()
    }

    pub(super) fn mark_published(&mut self, seqs: &[i64]) {
        for seq in seqs {
            self.unpublished.remove(seq);
        }
    }

    /// Removes the sessions that ended first, and returns which.
    pub(super) fn purge(&mut self, before: Timestamp, limit: u32) -> HashSet<SessionId> {
        let ended = |session: &Session| session.terminated_at.filter(|at| *at < before);
        let mut gone: Vec<_> = (self.rows.values())
            .filter(|session| session.status.is_dead())
            .filter_map(|session| Some((ended(session)?, session.id)))
            .collect();
        gone.sort_unstable();
        gone.truncate(limit as usize);
        gone.into_iter().map(|(_, id)| id).inspect(|id| self.remove(*id)).collect()
    }
}

fn name_key(session: &Session) -> (AccessKey, String) {
    (session.owner.access_key.clone(), session.name.clone())
}

fn matches(session: &Session, query: &SessionQuery) -> bool {
    let owner = &session.owner;
    query.access_key.as_ref().is_none_or(|key| *key == owner.access_key)
        && query.domain.as_ref().is_none_or(|domain| *domain == owner.domain)
        && query.project.is_none_or(|project| project == owner.project_id)
        && (query.statuses.is_empty() || query.statuses.contains(&session.status))
        && query.name.as_ref().is_none_or(|name| *name == session.name)
}
