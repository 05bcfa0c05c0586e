//! One resource group, hot.

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bai_core::port::store::Directory;
use bai_core::slots::{ResourceSlots, SlotTypes};
use bai_core::{AgentId, Result, Session, SessionId, Timestamp};
use bai_scheduler::explain::Explanation;
use bai_scheduler::{Agent, Delta, Dependency, Group, Holder, Owner, Plan, Unplaced};
use chrono::TimeDelta;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::history::History;
use super::inbox::Notes;
use super::limits::{Rows, Source, holders};
use super::options::{options, weights};
use super::project::{Context, claims, deltas, owner};
use super::settings::Settings;
use super::weights::{EVEN, weighed, weight};

/// Agents are looked at again after this time, since other managers take reports too.
const AGENTS_MAX_AGE: Duration = Duration::from_secs(1);

/// What a group is brought up to date with.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// Name of the group.
    pub(crate) name: &'a str,
    pub(crate) now: Timestamp,
    pub(crate) directory: Arc<Directory>,
    pub(crate) settings: Arc<Settings>,
    /// For a new group: the agents that round robin used last, by architecture.
    pub(crate) turns: BTreeMap<String, AgentId>,
    /// Past usage that the group has not been told.
    pub(crate) history: History,
    /// The agents, unless nothing about them has changed.
    pub(crate) agents: Option<AgentFacts>,
    /// What has changed.
    pub(crate) notes: Notes,
    /// The living sessions that the notes name.
    pub(crate) sessions: HashMap<SessionId, Arc<Session>>,
    /// Of the sessions that waiting ones depend on.
    pub(crate) dependencies: BTreeMap<SessionId, Dependency>,
}

/// The agents of a group.
#[derive(Debug)]
pub(crate) struct AgentFacts {
    /// Which state of the agents this is.
    pub(crate) version: u64,
    pub(crate) agents: Vec<Agent>,
    /// Types of all slots that any agent offers, in whichever group.
    pub(crate) types: SlotTypes,
}

/// What a holder uses in other groups.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    holder: Holder,
    slots: ResourceSlots,
    sessions: [u32; 2],
}

impl Elsewhere {
    fn sum<'a>(holder: Holder, others: impl Iterator<Item = &'a HotGroup>) -> Self {
        let mut sum = Self { slots: ResourceSlots::new(), sessions: [0, 0], holder };
        for other in others {
            sum.slots.add(&other.group.used_by(&sum.holder));
            let [public, private] = other.group.sessions_of(&sum.holder);
            sum.sessions[0] = sum.sessions[0].saturating_add(public);
            sum.sessions[1] = sum.sessions[1].saturating_add(private);
        }
        sum
    }
}

/// A resource group that follows the records.
#[derive(Debug)]
pub(crate) struct HotGroup {
    group: Group,
    /// The sessions as the group knows them.
    known: HashMap<SessionId, Arc<Session>>,
    agents: BTreeMap<AgentId, Agent>,
    /// Which state of the agents that is, and when it was looked at.
    agents_seen: Option<(u64, Instant)>,
    types: SlotTypes,
    directory: Option<Arc<Directory>>,
    settings: Arc<Settings>,
    limits: HashMap<Holder, Source>,
    /// Of the owners whose weights have been looked at.
    weights: HashMap<Holder, u32>,
    /// The agents that round robin used last, as stored.
    turns: BTreeMap<String, AgentId>,
    /// Holders whose usage in other groups is not known, or has changed.
    elsewhere: HashSet<Holder>,
    /// Holders whose usage here may have changed since the other groups were last told.
    touched: HashSet<Holder>,
    /// What the other groups were told.
    told: HashMap<Holder, (ResourceSlots, [u32; 2])>,
    /// Reasons that are not recorded yet, those of the first sessions first.
    news: BTreeMap<SessionId, Arc<Explanation>>,
}

impl HotGroup {
    pub(super) fn new(
        name: &str,
        directory: &Directory,
        settings: &Arc<Settings>,
        types: &SlotTypes,
    ) -> Self {
        Self {
            group: Group::new(options(directory.resource_groups.get(name), settings), types.clone()),
            known: HashMap::new(),
            agents: BTreeMap::new(),
            agents_seen: None,
            types: types.clone(),
            directory: None,
            settings: settings.clone(),
            limits: HashMap::new(),
            weights: HashMap::new(),
            turns: BTreeMap::new(),
            elsewhere: HashSet::new(),
            touched: HashSet::new(),
            told: HashMap::new(),
            news: BTreeMap::new(),
        }
    }

    /// A group that knows these facts, to be looked at only.
    ///
    /// # Errors
    /// `Invalid` when a record cannot be scheduled at all.
    pub(crate) fn afresh(facts: &Facts<'_>, others: &[Self]) -> Result<Self> {
        let types = facts.agents.as_ref().map(|agents| agents.types.clone()).unwrap_or_default();
        let mut group = Self::new(facts.name, &facts.directory, &facts.settings, &types);
        group.follow(facts, || others.iter())?;
        Ok(group)
    }

    /// Whether the group need not look at the agents again.
    pub(crate) fn has_agents(&self, version: u64) -> bool {
        self.agents_seen.is_some_and(|(seen, at)| seen == version && at.elapsed() < AGENTS_MAX_AGE)
    }

    /// Whether other slots are offered than the group was built with: it has to be built afresh.
    pub(crate) fn is_outdated(&self, types: &SlotTypes) -> bool {
        self.types != *types
    }

    /// Brings the group up to date, with what is used in the others.
    pub(super) fn follow<'a, I>(&mut self, facts: &Facts<'_>, others: impl Fn() -> I) -> Result<()>
    where
        I: Iterator<Item = &'a Self>,
    {
        if let Some(facts) = &facts.agents {
            self.follow_agents(&facts.agents)?;
            self.agents_seen = Some((facts.version, Instant::now()));
        }
        self.follow_directory(facts)?;
        for (architecture, agent) in &facts.turns {
            self.group.apply(Delta::LastUsed(architecture.clone(), agent.clone()))?;
        }
        self.turns.extend(facts.turns.clone());
        for (holder, slices) in &facts.history {
            self.group.apply(Delta::History(holder.clone(), slices.clone()))?;
        }
        for (id, outcome) in &facts.notes.outcomes {
            self.group.apply(Delta::Dependency(*id, *outcome))?;
        }
        let rows = LazyCell::new(|| Rows::of(&facts.directory));
        for id in &facts.notes.sessions {
            self.follow_session(*id, facts, &rows)?;
        }
        for holder in std::mem::take(&mut self.elsewhere) {
            let Elsewhere { holder, slots, sessions } = Elsewhere::sum(holder, others());
            self.group.apply(Delta::UsedElsewhere(holder, slots, sessions))?;
        }
        Ok(())
    }

    /// Brings one session up to date.
    fn follow_session<'a>(
        &mut self,
        id: SessionId,
        facts: &Facts<'_>,
        rows: &impl Deref<Target = Rows<'a>>,
    ) -> Result<()> {
        let new = facts.sessions.get(&id);
        let old = self.known.get(&id).cloned();
        if old.as_ref().zip(new).is_some_and(|(old, new)| old.version >= new.version) {
            return Ok(());
        }
        let Some(owner) = new.or(old.as_ref()).map(|session| owner(session)) else { return Ok(()) };
        for holder in holders(&owner) {
            if !self.limits.contains_key(&holder) {
                self.limit(&holder, rows)?;
                self.elsewhere.insert(holder.clone());
            }
            self.touched.insert(holder);
        }
        for holder in weighed(&owner) {
            if !self.weights.contains_key(&holder) {
                self.weigh(
                    holder,
                    &weights(facts.directory.resource_groups.get(facts.name), &facts.settings),
                    rows,
                )?;
            }
        }
        let context = Context { dependencies: &facts.dependencies, lifetime: self.lifetime(&owner) };
        for delta in deltas(id, old.as_deref(), new.map(AsRef::as_ref), &context) {
            self.group.apply(delta)?;
        }
        if let Some(session) = new {
            self.known.insert(id, session.clone());
        } else {
            self.known.remove(&id);
            self.news.remove(&id);
        }
        Ok(())
    }

    /// Longest life of a session of this owner.
    fn lifetime(&self, owner: &Owner) -> Option<TimeDelta> {
        let Some(Source::Keypair(policy)) = self.limits.get(&Holder::Keypair(owner.access_key.clone()))
        else {
            return None;
        };
        let seconds = i64::try_from(policy.max_session_lifetime).ok().filter(|seconds| *seconds > 0)?;
        TimeDelta::try_seconds(seconds)
    }

    fn follow_agents(&mut self, agents: &[Agent]) -> Result<()> {
        for agent in agents {
            if self.agents.get(&agent.id) != Some(agent) {
                self.group.apply(Delta::Agent(Box::new(agent.clone())))?;
                self.agents.insert(agent.id.clone(), agent.clone());
            }
        }
        if self.agents.len() > agents.len() {
            let present: HashSet<_> = agents.iter().map(|agent| &agent.id).collect();
            let gone: Vec<_> = self.agents.keys().filter(|id| !present.contains(id)).cloned().collect();
            for id in gone {
                self.agents.remove(&id);
                self.group.apply(Delta::AgentLeft(id))?;
            }
        }
        Ok(())
    }

    /// Takes over options and limits that have changed.
    fn follow_directory(&mut self, facts: &Facts<'_>) -> Result<()> {
        let settings = std::mem::replace(&mut self.settings, facts.settings.clone());
        let Some(before) = self.directory.replace(facts.directory.clone()) else { return Ok(()) };
        let same_settings = Arc::ptr_eq(&settings, &facts.settings);
        if same_settings && Arc::ptr_eq(&before, &facts.directory) {
            return Ok(());
        }
        let row = facts.directory.resource_groups.get(facts.name);
        if !same_settings || before.resource_groups.get(facts.name) != row {
            self.group.apply(Delta::Options(Box::new(options(row, &facts.settings))))?;
        }
        if same_settings && *before == *facts.directory {
            return Ok(());
        }
        let rows = Rows::of(&facts.directory);
        for holder in self.limits.keys().cloned().collect::<Vec<_>>() {
            self.limit(&holder, &rows)?;
        }
        let given = weights(row, &facts.settings);
        for holder in self.weights.keys().cloned().collect::<Vec<_>>() {
            self.weigh(holder, &given, &rows)?;
        }
        Ok(())
    }

    /// Tells the group the weight of an owner if it is news.
    fn weigh(&mut self, holder: Holder, given: &Map<String, Value>, rows: &Rows<'_>) -> Result<()> {
        let weight = weight(given, &holder, rows);
        if self.weights.get(&holder).copied().unwrap_or(EVEN) != weight {
            self.group.apply(Delta::Weight(holder.clone(), weight))?;
        }
        self.weights.insert(holder, weight);
        Ok(())
    }

    /// Tells the group the limits of a holder if they are news.
    fn limit(&mut self, holder: &Holder, rows: &Rows<'_>) -> Result<()> {
        let source = rows.source(holder);
        if self.limits.get(holder) != Some(&source) {
            self.group.apply(Delta::Limits(holder.clone(), Box::new(source.limits(&self.types))))?;
            self.limits.insert(holder.clone(), source);
        }
        Ok(())
    }

    /// Makes a pass.
    pub(crate) fn pass(&mut self, now: Timestamp) -> Plan {
        let plan = self.group.pass(now);
        for placement in &plan.placements {
            self.touch(placement.session);
        }
        for Unplaced { session, explanation, .. } in &plan.unplaced {
            self.news.insert(*session, explanation.clone());
        }
        plan
    }

    /// The agents that round robin has used since this was last asked, by architecture.
    pub(crate) fn take_turns(&mut self) -> BTreeMap<String, AgentId> {
        let used = self.group.last_used().iter();
        let news = used.filter(|(architecture, agent)| self.turns.get(*architecture) != Some(agent));
        let news: BTreeMap<_, _> =
            news.map(|(architecture, agent)| (architecture.clone(), agent.clone())).collect();
        self.turns.extend(news.clone());
        news
    }

    /// A placement has been recorded: this is the session now.
    pub(super) fn placed(&mut self, session: Arc<Session>) {
        self.news.remove(&session.id);
        self.known.insert(session.id, session);
    }

    /// A placement or a claim was not recorded: the session still waits, as far as is known, with the claim of its record.
    pub(super) fn waits_again(&mut self, session: SessionId, record: Option<&Session>) {
        let requeued = Delta::Requeued(session, Vec::new());
        let claims = record.and_then(|record| claims(session, None, record));
        for delta in [requeued].into_iter().chain(claims) {
            if let Err(error) = self.group.apply(delta) {
                tracing::error!(%session, %error, "a session cannot wait again");
            }
        }
        self.touch(session);
    }

    /// Its owners use more or less here.
    fn touch(&mut self, session: SessionId) {
        if let Some(session) = self.known.get(&session) {
            self.touched.extend(holders(&owner(session)));
        }
    }

    /// At most `most` sessions with reasons that are not recorded yet.
    pub(crate) fn take_news(&mut self, most: usize) -> Vec<(SessionId, Arc<Explanation>)> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(news) = self.news.pop_first()
        {
            taken.push(news);
        }
        taken
    }

    /// Puts back a reason that is to be recorded later, unless there is a newer one.
    pub(crate) fn put_back(&mut self, session: SessionId, explanation: Arc<Explanation>) {
        self.news.entry(session).or_insert(explanation);
    }

    /// Whether reasons are left to record.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Why a session waits; `None` for one that does not.
    pub(crate) fn explain(&mut self, session: SessionId) -> Option<Unplaced> {
        self.group.explain(session)
    }

    /// All sessions that wait and why.
    pub(crate) fn waiting(&mut self) -> Vec<Unplaced> {
        self.group.waiting()
    }

    /// Holders whose usage here has changed since this was last asked.
    pub(super) fn take_touched(&mut self) -> HashSet<Holder> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.retain(|holder| {
            let usage = (self.group.used_by(holder), self.group.sessions_of(holder));
            self.told.insert(holder.clone(), usage.clone()).unwrap_or_default() != usage
        });
        touched
    }

    /// Whether the other groups have not been told anything yet.
    pub(super) fn is_untold(&self) -> bool {
        self.told.is_empty()
    }

    /// Notes that nothing of what holders use in other groups is known any more; whether it concerns this one.
    pub(super) fn doubt_elsewhere(&mut self) -> bool {
        self.elsewhere.extend(self.limits.keys().cloned());
        !self.elsewhere.is_empty()
    }

    /// Notes that holders use more or less in another group; whether it concerns this one.
    pub(super) fn note_elsewhere(&mut self, touched: &HashSet<Holder>) -> bool {
        let ours = touched.iter().filter(|holder| self.limits.contains_key(holder));
        let before = self.elsewhere.len();
        self.elsewhere.extend(ours.cloned());
        self.elsewhere.len() > before
    }
}

#[cfg(test)]
mod tests;
