//! Who has used how much of a resource group, for the fair share (spec scheduler.md, section 12).
//!
//! The records of sessions say it all, so nothing else is stored: a planning manager reads the sessions that ended lately when
//! it first plans for the group, and from then on adds those that end, and now and then what the living ones have used since.
//! Amounts times seconds are summed by day.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bai_core::slots::ResourceSlots;
use bai_core::{Kernel, KernelStatus, Session, SessionId, Timestamp};
use bai_scheduler::{Holder, UsageSlice};
use chrono::{DateTime, TimeDelta};
use parking_lot::Mutex;

mod load;

pub(crate) use load::open;

const DAY: i64 = 86_400;

/// All past usage of holders.
pub(crate) type History = Vec<(Holder, Vec<UsageSlice>)>;

/// The books of all groups that need one.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    books: Mutex<BTreeMap<String, Book>>,
}

/// The book of one group.
#[derive(Debug, Default)]
struct Book {
    /// Told apart from the book that another reading was for.
    number: u64,
    /// Whether the records have been read.
    is_read: bool,
    /// Sessions that have ended since the reading began.
    ended: Vec<Arc<Session>>,
    /// Sessions of the reading.
    read: HashSet<SessionId>,
    /// Amounts times seconds, by holder and day.
    days: BTreeMap<Holder, BTreeMap<i64, ResourceSlots>>,
    /// Up to when the usage of living sessions is in the book.
    seen: HashMap<SessionId, Timestamp>,
    /// Holders with news.
    changed: BTreeSet<Holder>,
    /// When news was last told.
    told: Option<Timestamp>,
}

impl Histories {
    /// Forgets everything: another manager may plan meanwhile.
    pub(crate) fn clear(&self) {
        self.books.lock().clear();
    }

    /// A session has ended.
    pub(crate) fn ended(&self, session: &Arc<Session>) {
        let mut books = self.books.lock();
        let Some(book) = books.get_mut(&session.resource_group) else { return };
        if book.is_read {
            book.close(session);
        } else {
            book.ended.push(session.clone());
        }
    }

    /// What a group has not been told: everything when it `is_new`, else what has changed, at intervals.
    pub(crate) fn news(
        &self,
        group: &str,
        is_new: bool,
        living: impl FnOnce() -> Vec<Arc<Session>>,
        lookback: TimeDelta,
        interval: TimeDelta,
        now: Timestamp,
    ) -> History {
        let mut books = self.books.lock();
        let Some(book) = books.get_mut(group).filter(|book| book.is_read) else { return History::new() };
        if !is_new && book.told.is_some_and(|told| now - told < interval) {
            return History::new();
        }
        book.told = Some(now);
        for session in living() {
            book.add(&session, now);
        }
        book.forget_before(now - lookback);
        let changed = std::mem::take(&mut book.changed);
        let told = book.days.iter().filter(|(holder, _)| is_new || changed.contains(holder));
        let told = told.map(|(holder, days)| (holder.clone(), slices(days)));
        // Holders whose whole past is forgotten.
        let gone = changed.iter().filter(|holder| !book.days.contains_key(holder));
        told.chain(gone.map(|holder| (holder.clone(), Vec::new()))).collect()
    }
}

impl Book {
    /// Adds what a session has used up to `now` that is not in the book.
    fn add(&mut self, session: &Session, now: Timestamp) {
        let seen = self.seen.insert(session.id, now);
        self.add_since(session, seen, now);
    }

    /// Adds the rest of a session that has ended.
    fn close(&mut self, session: &Session) {
        let seen = self.seen.remove(&session.id);
        if !self.read.remove(&session.id) {
            self.add_since(session, seen, session.terminated_at.unwrap_or(session.created_at));
        }
    }

    fn add_since(&mut self, session: &Session, seen: Option<Timestamp>, until: Timestamp) {
        for kernel in &session.kernels {
            let Some((from, until)) = held(kernel, until) else { continue };
            for (day, seconds) in by_day(seen.map_or(from, |seen| seen.max(from)), until) {
                self.count(session, day, seconds, &kernel.requested);
            }
        }
    }

    fn count(&mut self, session: &Session, day: i64, seconds: u64, amounts: &ResourceSlots) {
        // More than can be counted is not told at all rather than wrongly; no cluster is that large.
        let Ok(volume) = amounts.checked_mul(seconds) else { return };
        let owner = &session.owner;
        for holder in [
            Holder::Domain(owner.domain.clone()),
            Holder::Project(owner.project_id),
            Holder::Member(owner.project_id, owner.user_id),
        ] {
            self.changed.insert(holder.clone());
            self.days.entry(holder).or_default().entry(day).or_default().add(&volume);
        }
    }

    /// Forgets the days that ended before `start`.
    fn forget_before(&mut self, start: Timestamp) {
        let first = start.timestamp().div_euclid(DAY);
        let changed = &mut self.changed;
        self.days.retain(|holder, days| {
            if days.first_key_value().is_some_and(|(day, _)| *day < first) {
                *days = days.split_off(&first);
                changed.insert(holder.clone());
            }
            !days.is_empty()
        });
    }
}

/// When a kernel held its agent, up to `until`.
fn held(kernel: &Kernel, until: Timestamp) -> Option<(Timestamp, Timestamp)> {
    kernel.agent.as_ref()?;
    let scheduled = kernel.status_history.get(KernelStatus::Scheduled.as_str()).copied();
    let from = scheduled.or(kernel.started_at)?;
    Some((from, kernel.terminated_at.map_or(until, |end| end.min(until))))
}

/// The seconds between two moments, by day. Whole ones are counted, such that adjoining stretches add up.
fn by_day(from: Timestamp, until: Timestamp) -> impl Iterator<Item = (i64, u64)> {
    let (from, until) = (from.timestamp(), until.timestamp());
    let days = from.div_euclid(DAY)..=until.div_euclid(DAY);
    days.filter_map(move |day| {
        let seconds = until.min((day + 1) * DAY) - from.max(day * DAY);
        u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(|seconds| (day, seconds))
    })
}

fn slices(days: &BTreeMap<i64, ResourceSlots>) -> Vec<UsageSlice> {
    let noon = |day: i64| DateTime::from_timestamp(day * DAY + DAY / 2, 0).unwrap_or_default();
    days.iter().map(|(day, volume)| UsageSlice { at: noon(*day), slot_seconds: volume.clone() }).collect()
}

#[cfg(test)]
mod tests;
