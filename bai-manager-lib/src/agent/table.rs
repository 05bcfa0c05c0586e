//! The agents in memory: rows, their last reports, and connections.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bai_core::error::code;
use bai_core::port::AgentApi;
use bai_core::port::agent::{AgentReport, KernelRef, KernelReport};
use bai_core::port::store::{Agent, AgentStatus};
use bai_core::slots::{SlotType, SlotTypes};
use bai_core::{AgentId, Error, KernelId, Result, Timestamp};
use chrono::TimeDelta;
use parking_lot::{Mutex, RwLock};

use super::AgentDialer;
use super::pace::Pace;

/// All agents.
#[derive(Debug)]
pub(crate) struct AgentTable {
    dialer: Arc<dyn AgentDialer>,
    /// Counts the changes that the scheduler has to know of.
    version: AtomicU64,
    /// Types of all slots, as of a version.
    types: RwLock<Option<(u64, SlotTypes)>>,
    entries: RwLock<BTreeMap<AgentId, Entry>>,
    pace: Mutex<Pace>,
}

#[derive(Debug)]
struct Entry {
    row: Agent,
    /// Of the last report taken here; `None` when this manager has had none.
    report: Option<LastReport>,
    /// Since when silence counts: a manager that was away cannot blame the agent.
    heard: Timestamp,
    /// When the row was last written to the store from here.
    stored: Option<Timestamp>,
    /// The last heartbeat by the row that was last read from the store.
    loaded: Option<Timestamp>,
    /// Commands do not reach it; until it is heard again.
    unreachable: bool,
    api: Option<(String, u64, Arc<dyn AgentApi>)>,
}

#[derive(Debug)]
struct LastReport {
    incarnation: u64,
    seq: u64,
    has_images: bool,
    kernels: HashMap<KernelId, Arc<KernelReport>>,
    /// How many reports in a row did not list a kernel that was asked for.
    misses: HashMap<KernelRef, u32>,
}

/// What taking a report has shown.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Row to write to the store, when it is due.
    pub(crate) row: Option<Agent>,
    /// The agent is new, came back or changed its capacity: its group may place more.
    pub(crate) capacity_changed: bool,
    /// Its images are not known.
    pub(crate) send_images: bool,
    /// It is not the process that the report before came from.
    pub(crate) restarted: bool,
}

/// How often an unchanged row is written: it carries the last heartbeat.
const ROW_INTERVAL: TimeDelta = TimeDelta::seconds(10);

/// How long after its last report a run of an agent has precedence over earlier ones.
const LAST_WORD: TimeDelta = TimeDelta::minutes(1);

impl AgentTable {
    pub(crate) fn new(dialer: Arc<dyn AgentDialer>, now: Timestamp) -> Self {
        Self {
            dialer,
            version: AtomicU64::new(0),
            types: RwLock::default(),
            entries: RwLock::default(),
            pace: Mutex::new(Pace::start(now)),
        }
    }

    /// Which state of the agents this is, as far as the scheduler is concerned: capacity, health, images.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Something has changed that the scheduler has to know of.
    pub(crate) fn touch(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes rows from the store: at start, and those that other managers keep fresh.
    pub(crate) fn load(&self, rows: Vec<Agent>, now: Timestamp) {
        let mut entries = self.entries.write();
        self.touch();
        for row in rows {
            match entries.get_mut(&row.id) {
                None => {
                    let entry = Entry::new(row, now);
                    entries.insert(entry.row.id.clone(), entry);
                }
                Some(entry) => {
                    entry.row.schedulable = row.schedulable;
                    if let Some(heard) = entry.heard_elsewhere(&row, now) {
                        entry.heard = entry.heard.max(heard);
                        entry.unreachable = false;
                        entry.row = Agent { last_seen: row.last_seen.min(now), ..row };
                    }
                }
            }
        }
    }

    /// To be called every [`TICK`](super::pace::TICK). When the clock has jumped or this process has stood still, the silence of all
    /// agents counts from now on, and so does the time since some were lost.
    pub(crate) fn keep_pace(&self, now: Timestamp) {
        if !self.pace.lock().stumbles(now) {
            return;
        }
        tracing::warn!("the clock has jumped, or this process stood still: no agent is blamed for it");
        for entry in self.entries.write().values_mut() {
            entry.heard = now;
            entry.row.lost_at = entry.row.lost_at.map(|_| now);
        }
    }

    /// Takes a report; `None` when a newer one has already been taken. One of an earlier run may be late: it counts only when the later
    /// run has said nothing for long, since the clock of the agent may have gone back between the two.
    pub(crate) fn accept(&self, report: &AgentReport, now: Timestamp) -> Option<Taken> {
        let mut entries = self.entries.write();
        let entry = entries
            .entry(report.agent.clone())
            .or_insert_with(|| Entry { stored: None, ..Entry::new(row_of(report, None, now), now) });
        let same_run = entry.report.as_ref().filter(|last| last.incarnation == report.incarnation);
        let is_earlier = |last: &LastReport| report.incarnation < last.incarnation;
        let is_replaced = entry.report.as_ref().is_some_and(is_earlier) && now - entry.heard < LAST_WORD;
        if is_replaced || same_run.is_some_and(|last| last.seq >= report.seq) {
            return None;
        }
        let has_images = report.images.is_some() || same_run.is_some_and(|last| last.has_images);
        let restarted = entry.report.is_some() && same_run.is_none();
        let (misses, mut before) =
            entry.report.take().map(|last| (last.misses, last.kernels)).unwrap_or_default();
        let row = row_of(report, Some(&entry.row), now);
        let old = std::mem::replace(&mut entry.row, row);
        let capacity_changed = std::mem::take(&mut entry.unreachable)
            || entry.stored.is_none()
            || entry.row.status != old.status
            || entry.row.capacity != old.capacity
            || entry.row.slot_types != old.slot_types
            || entry.row.resource_group != old.resource_group;
        let due = capacity_changed || is_changed(old, &entry.row) || entry.is_due(now);
        let mut keep = |kernel: &KernelReport| {
            let same = before.remove(&kernel.kernel.id).filter(|before| **before == *kernel);
            same.unwrap_or_else(|| Arc::new(kernel.clone()))
        };
        let kernels = report.kernels.iter().map(|kernel| (kernel.kernel.id, keep(kernel))).collect();
        entry.report = Some(LastReport {
            incarnation: report.incarnation,
            seq: report.seq,
            has_images,
            kernels,
            misses,
        });
        entry.heard = now;
        if due {
            entry.stored = Some(now);
        }
        let row = due.then(|| entry.row.clone());
        if capacity_changed {
            self.touch();
        }
        Some(Taken { row, capacity_changed, send_images: !has_images, restarted })
    }

    /// The row could not be written: the next report tries again.
    pub(crate) fn store_failed(&self, id: &AgentId) {
        if let Some(entry) = self.entries.write().get_mut(id) {
            entry.stored = None;
        }
    }

    /// The images could not be stored: the next reply asks for them again.
    pub(crate) fn images_failed(&self, id: &AgentId) {
        if let Some(report) = self.entries.write().get_mut(id).and_then(|entry| entry.report.as_mut()) {
            report.has_images = false;
        }
    }

    pub(crate) fn list(&self) -> Vec<Agent> {
        self.entries.read().values().map(|entry| entry.row.clone()).collect()
    }

    pub(crate) fn get(&self, id: &AgentId) -> Option<Agent> {
        self.entries.read().get(id).map(|entry| entry.row.clone())
    }

    /// Since when the agent is lost; `None` when it is not.
    pub(crate) fn lost_since(&self, id: &AgentId) -> Option<Timestamp> {
        let entries = self.entries.read();
        let row = &entries.get(id)?.row;
        (row.status == AgentStatus::Lost).then(|| row.lost_at.unwrap_or(row.status_changed))
    }

    /// Commands do not reach the agent.
    pub(crate) fn not_reached(&self, id: &AgentId) {
        if let Some(entry) = self.entries.write().get_mut(id) {
            entry.unreachable = true;
        }
        self.touch();
    }

    /// Whether commands reach the agent, as far as is known.
    pub(crate) fn is_reachable(&self, id: &AgentId) -> bool {
        self.entries.read().get(id).is_some_and(|entry| !entry.unreachable)
    }

    pub(crate) fn set_schedulable(&self, id: &AgentId, schedulable: bool) {
        if let Some(entry) = self.entries.write().get_mut(id) {
            entry.row.schedulable = schedulable;
        }
        self.touch();
    }

    /// What the agent last said about a kernel in this generation. `Err` when it has said nothing to this manager.
    pub(crate) fn kernel(
        &self,
        agent: &AgentId,
        kernel: KernelRef,
    ) -> Result<Option<Arc<KernelReport>>, Unheard> {
        let entries = self.entries.read();
        let report = entries.get(agent).and_then(|entry| entry.report.as_ref()).ok_or(Unheard)?;
        Ok(report
            .kernels
            .get(&kernel.id)
            .filter(|known| known.kernel.generation == kernel.generation)
            .cloned())
    }

    /// How long no code has run in a kernel when its agent last reported; `None` when the agent is silent or does not say.
    pub(crate) fn unused_for(&self, agent: &AgentId, kernel: KernelId) -> Option<Duration> {
        let entries = self.entries.read();
        let entry = entries.get(agent).filter(|entry| entry.row.status == AgentStatus::Alive)?;
        entry.report.as_ref()?.kernels.get(&kernel)?.unused_ms.map(Duration::from_millis)
    }

    /// What the agent last said about a kernel, of whichever generation.
    pub(crate) fn last_report(&self, agent: &AgentId, kernel: KernelId) -> Option<Arc<KernelReport>> {
        let entries = self.entries.read();
        entries.get(agent)?.report.as_ref()?.kernels.get(&kernel).cloned()
    }

    /// Counts once more that the report just taken does not list these kernels, and forgets about those it does.
    pub(crate) fn note_missing(&self, agent: &AgentId, missing: &[KernelRef]) {
        let mut entries = self.entries.write();
        let Some(report) = entries.get_mut(agent).and_then(|entry| entry.report.as_mut()) else { return };
        report.misses.retain(|kernel, _| missing.contains(kernel));
        for kernel in missing {
            *report.misses.entry(*kernel).or_default() += 1;
        }
    }

    /// How many reports in a row did not list a kernel.
    pub(crate) fn misses(&self, agent: &AgentId, kernel: KernelRef) -> u32 {
        let entries = self.entries.read();
        let report = entries.get(agent).and_then(|entry| entry.report.as_ref());
        report.and_then(|report| report.misses.get(&kernel)).copied().unwrap_or(0)
    }

    /// The agent has a kernel although its lists have left it out.
    pub(crate) fn found(&self, agent: &AgentId, kernel: KernelRef) {
        if let Some(report) = self.entries.write().get_mut(agent).and_then(|entry| entry.report.as_mut()) {
            report.misses.remove(&kernel);
        }
    }

    /// Agents that have been silent for longer than `patience` and are not yet marked lost; they are marked now.
    pub(crate) fn lose_silent(&self, patience: Duration, now: Timestamp) -> Vec<Agent> {
        self.keep_pace(now);
        let deadline = now - patience;
        let mut entries = self.entries.write();
        let silent = entries.values_mut().filter(|entry| {
            entry.heard < deadline && matches!(entry.row.status, AgentStatus::Alive | AgentStatus::Restarting)
        });
        silent
            .inspect(|_| self.touch())
            .map(|entry| {
                entry.row.status = AgentStatus::Lost;
                entry.row.status_changed = now;
                entry.row.lost_at = Some(now);
                entry.row.clone()
            })
            .collect()
    }

    /// Types of all slots that any agent offers.
    pub(crate) fn slot_types(&self) -> SlotTypes {
        // Taken first: what changes meanwhile makes the result an old one.
        let version = self.version();
        if let Some((seen, types)) = &*self.types.read()
            && *seen == version
        {
            return types.clone();
        }
        let types = self.gather_types();
        *self.types.write() = Some((version, types.clone()));
        types
    }

    fn gather_types(&self) -> SlotTypes {
        let mut types: SlotTypes = [("cpu", SlotType::Count), ("mem", SlotType::Bytes)].into_iter().collect();
        for entry in self.entries.read().values() {
            for (name, slot_type) in entry.row.slot_types.iter() {
                types.insert(name.clone(), slot_type);
            }
        }
        types
    }

    /// A handle to the agent, made anew when its address or incarnation has changed.
    pub(crate) async fn api(&self, id: &AgentId) -> Result<Arc<dyn AgentApi>> {
        let (row, incarnation) = {
            let entries = self.entries.read();
            let entry = entries
                .get(id)
                .ok_or_else(|| Error::of(code::AGENT_NOT_FOUND, "no such agent").with("agent", id))?;
            let incarnation = entry.report.as_ref().map_or(0, |report| report.incarnation);
            match &entry.api {
                Some((addr, run, api)) if *addr == entry.row.addr && *run == incarnation => {
                    return Ok(api.clone());
                }
                _ => (entry.row.clone(), incarnation),
            }
        };
        let api = self.dialer.dial(&row).await?;
        if let Some(entry) = self.entries.write().get_mut(id) {
            entry.api = Some((row.addr, incarnation, api.clone()));
        }
        Ok(api)
    }
}

/// This manager has had no report of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unheard;

impl Entry {
    /// Of an agent that has not reported here.
    fn new(row: Agent, now: Timestamp) -> Self {
        let (stored, loaded) = (Some(row.last_seen), Some(row.last_seen));
        Self { heard: now, stored, loaded, report: None, unreachable: false, api: None, row }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.stored.is_none_or(|stored| (now - stored).abs() >= ROW_INTERVAL)
    }

    /// When another manager has heard the agent, by a row of the store that tells more than is known here. The clock of that manager may
    /// be another: a time that is not about now is taken for now.
    fn heard_elsewhere(&mut self, row: &Agent, now: Timestamp) -> Option<Timestamp> {
        let seen = Some(row.last_seen);
        let is_new = self.loaded != seen && self.stored != seen;
        self.loaded = seen;
        let recent = now - ROW_INTERVAL * 2;
        let is_news = is_new && (row.last_seen.min(now) > self.row.last_seen || self.heard < recent);
        let at = if (recent..now).contains(&row.last_seen) { row.last_seen } else { now };
        is_news.then_some(at)
    }
}

fn row_of(report: &AgentReport, old: Option<&Agent>, now: Timestamp) -> Agent {
    let status = if report.leaving { AgentStatus::Restarting } else { AgentStatus::Alive };
    let status_changed = old.filter(|old| old.status == status).map_or(now, |old| old.status_changed);
    Agent {
        id: report.agent.clone(),
        status,
        status_changed,
        region: report.region.clone(),
        resource_group: report.resource_group.clone(),
        schedulable: old.is_none_or(|old| old.schedulable),
        addr: report.addr.clone(),
        public_host: report.public_host.clone(),
        capacity: report.capacity.clone(),
        slot_types: report.slot_types.clone(),
        architecture: report.architecture.clone(),
        version: report.version.clone(),
        compute_plugins: report.compute_plugins.clone(),
        first_contact: old.map_or(now, |old| old.first_contact),
        last_seen: now,
        lost_at: None,
        live_stat: report.live_stat.clone(),
        isolation_gaps: report.isolation_gaps.clone(),
    }
}

/// Whether more than the heartbeat and its statistics differ.
fn is_changed(mut old: Agent, new: &Agent) -> bool {
    old.last_seen = new.last_seen;
    old.live_stat.clone_from(&new.live_stat);
    old != *new
}

#[cfg(test)]
mod tests;
