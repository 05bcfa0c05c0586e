//! Explanations, as of the end of the last pass.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bai_core::SessionId;

use super::Group;
use super::pack::{Packing, Stuck};
use super::place::wishes_of;
use crate::explain::{Explanation, NearestMiss, Rejection, RoomReport, Shortfall, Verdict, WaitsFor};
use crate::fleet::Wishes;
use crate::model::DependencyState;
use crate::plan::{Plan, Unplaced};
use crate::queue::{Entry, LaneNo, SessionNo, State};
use crate::request::Need;
use crate::room::AgentNo;
use crate::slots::{SlotId, Units};
use crate::validate::Outcomes;

/// The checks that another session's end can change.
const LIMITS: [&str; 5] = [
    "concurrency",
    "keypair_resource_limit",
    "user_resource_limit",
    "user_group_resource_limit",
    "domain_resource_limit",
];

impl Group {
    /// Why a session waits, with its place in the queue; `None` for one that does not wait.
    pub fn explain(&mut self, session: SessionId) -> Option<Unplaced> {
        let number = self.queue.find(session)?;
        let waits = self.queue.get(number).is_some_and(|entry| !matches!(entry.state, State::Held(_)));
        if !waits {
            return None;
        }
        let explanation = Arc::new(self.explanation(number)?);
        let position = self.positions().iter().position(|id| *id == session);
        let position = position.and_then(|position| u32::try_from(position).ok());
        Some(Unplaced { session, position, explanation })
    }

    /// All sessions that wait and why: first those in the queue, in the order in which they would be served if nobody got
    /// anything, then the others in the order of their ids.
    pub fn waiting(&mut self) -> Vec<Unplaced> {
        let mut shared = BTreeMap::new();
        let mut all = Vec::new();
        for (position, session) in (0..).zip(self.positions()) {
            let Some(number) = self.queue.find(session) else { continue };
            if let Some(explanation) = self.shared_explanation(number, &mut shared) {
                all.push(Unplaced { session, position: Some(position), explanation });
            }
        }
        let mut others: Vec<_> = self
            .queue
            .iter()
            .filter(|(_, entry)| !matches!(entry.state, State::Held(_) | State::Queued(_)))
            .map(|(number, entry)| (entry.id, number))
            .collect();
        others.sort_unstable();
        for (session, number) in others {
            if let Some(explanation) = self.explanation(number) {
                all.push(Unplaced { session, position: None, explanation: Arc::new(explanation) });
            }
        }
        all
    }

    /// The sessions in the queue, in the order in which they would be served if nobody got anything.
    pub fn positions(&self) -> Vec<SessionId> {
        let sequencer = &self.options.sequencer;
        let mut order = Vec::with_capacity(self.queue.queued());
        for (_, lane) in self.queue.lanes() {
            let owner = self.accounts.owner(lane.owner);
            let shares: smallvec::SmallVec<[u64; 3]> = sequencer
                .levels()
                .iter()
                .map(|level| {
                    let total = self.fleet.total();
                    sequencer.share(*level, &self.accounts.standing(owner.on(*level), total, &self.table))
                })
                .collect();
            let band = std::cmp::Reverse(lane.priority);
            order.extend(lane.seats.iter().map(|seat| (band, shares.clone(), seat.0, seat.1)));
        }
        order.sort_unstable();
        order.into_iter().map(|(_, _, _, id)| id).collect()
    }

    /// Tells of sessions whose reason is new.
    pub(super) fn tell(&mut self, stopped: &[(LaneNo, Verdict)], plan: &mut Plan) {
        let mut news: Vec<SessionNo> = std::mem::take(&mut self.queue.fresh);
        news.retain(|number| self.queue.get(*number).is_some_and(|entry| !entry.told));
        for (number, verdict) in stopped {
            let Some(lane) = self.queue.lane_mut(*number) else { continue };
            if lane.told.replace(*verdict).is_some_and(|told| told != *verdict) {
                news.extend(lane.seats.iter().map(|seat| seat.2));
            }
        }
        let mut shared = BTreeMap::new();
        news.sort_unstable_by_key(|number| self.queue.get(*number).map(|entry| entry.id));
        news.dedup();
        for number in news {
            let Some(entry) = self.queue.get_mut(number) else { continue };
            entry.told = true;
            let session = entry.id;
            if matches!(entry.state, State::Held(_) | State::Doomed) {
                continue;
            }
            if let Some(explanation) = self.shared_explanation(number, &mut shared) {
                plan.unplaced.push(Unplaced { session, position: None, explanation });
            }
        }
    }

    /// Sessions of one lane share an explanation, unless something is special about them.
    fn shared_explanation(
        &mut self,
        number: SessionNo,
        shared: &mut BTreeMap<LaneNo, Arc<Explanation>>,
    ) -> Option<Arc<Explanation>> {
        let entry = self.queue.get(number)?;
        let special = entry.extras.is_some()
            || !self.options.validators.is_empty()
            || self.reservations.iter().any(|reservation| reservation.session == entry.id);
        let State::Queued(lane) = entry.state else { return self.explanation(number).map(Arc::new) };
        if special {
            return self.explanation(number).map(Arc::new);
        }
        if let Some(explanation) = shared.get(&lane) {
            return Some(explanation.clone());
        }
        let explanation = Arc::new(self.explanation(number)?);
        shared.insert(lane, explanation.clone());
        Some(explanation)
    }

    fn explanation(&mut self, number: SessionNo) -> Option<Explanation> {
        let report = self.room_report(number)?;
        let possible = self.possible(self.queue.get(number)?.request);
        let entry = self.queue.get(number)?;
        let request = self.requests.get(entry.request)?;
        let candidate = self.candidate(number)?;
        let mut outcomes = self.checks().all(&candidate, entry.owner, request, entry.extras.as_deref());
        if matches!(entry.state, State::Claimed(_)) {
            // It has passed them, and counts against its own limits by now.
            outcomes.passed.extend(outcomes.failed.drain(..).map(|failure| failure.name));
        }
        let verdict = self.verdict(entry, &outcomes, &report, possible);
        let waits_for = self.waits_for(entry, verdict, &outcomes);
        let estimate = self.estimate(entry, &waits_for);
        let RoomReport { rejections, nearest, kernels, .. } = (*report).clone();
        Some(Explanation {
            verdict,
            passed: outcomes.passed,
            failed: outcomes.failed,
            rejections,
            nearest,
            kernels,
            waits_for,
            estimate,
        })
    }

    fn verdict(&self, entry: &Entry, outcomes: &Outcomes, report: &RoomReport, possible: bool) -> Verdict {
        match &entry.state {
            State::Early => Verdict::Early,
            State::Dependent => Verdict::Dependent,
            State::Doomed => Verdict::Doomed,
            State::Claimed(_) => Verdict::Claimed,
            State::Queued(_) | State::Held(_) => {
                if !outcomes.failed.is_empty() {
                    Verdict::Checks
                } else if !possible {
                    Verdict::Impossible
                } else if !report.fits {
                    Verdict::NoRoom
                } else if self.reservations.is_empty() && !self.closed {
                    Verdict::Ready
                } else {
                    Verdict::HeldBack
                }
            }
        }
    }

    fn waits_for(&self, entry: &Entry, verdict: Verdict, outcomes: &Outcomes) -> WaitsFor {
        let extras = entry.extras.as_deref();
        let first = outcomes.failed.first().map(|failure| failure.name.clone()).unwrap_or_default();
        match verdict {
            Verdict::Ready => WaitsFor::NextPass,
            Verdict::Early => {
                let at = extras.and_then(|extras| extras.starts_at).unwrap_or(self.now);
                WaitsFor::Time { at: Self::time(at) }
            }
            Verdict::Dependent => {
                let dependencies = extras.map_or(&[][..], |extras| &extras.dependencies);
                let open = dependencies.iter().filter(|other| other.state == DependencyState::Waiting);
                WaitsFor::Sessions { ids: open.map(|dependency| dependency.id).collect() }
            }
            Verdict::Checks if LIMITS.contains(&first.as_str()) => WaitsFor::Limit { check: first },
            Verdict::Checks => WaitsFor::Check { check: first },
            Verdict::Doomed | Verdict::Impossible => WaitsFor::Change,
            Verdict::NoRoom => WaitsFor::Room,
            Verdict::HeldBack => {
                let others = self.reservations.iter().filter(|reservation| reservation.session != entry.id);
                others
                    .map(|reservation| reservation.session)
                    .next()
                    .map_or(WaitsFor::NextPass, |session| WaitsFor::Reservation { session })
            }
            Verdict::Claimed => match &entry.state {
                State::Claimed(claim) => WaitsFor::Victims { ids: claim.victims.clone() },
                _ => WaitsFor::NextPass,
            },
        }
    }

    fn estimate(&self, entry: &Entry, waits_for: &WaitsFor) -> Option<bai_core::Timestamp> {
        let own = self.reservations.iter().find(|reservation| reservation.session == entry.id);
        match (own, waits_for) {
            (Some(reservation), _) => reservation.starts_at,
            (None, WaitsFor::Time { at }) => Some(*at),
            _ => None,
        }
    }

    /// Why a session that depends on others is to be cancelled.
    pub(super) fn doom_of(&self, session: SessionId) -> String {
        let entry = self.queue.find(session).and_then(|number| self.queue.get(number));
        let dependencies = entry.and_then(|entry| entry.extras.as_ref()).map(|extras| &extras.dependencies);
        let failed = dependencies.into_iter().flatten().filter(|dependency| {
            dependency.state == DependencyState::Failed || self.queue.doomed.contains(&dependency.id)
        });
        let failed: Vec<_> =
            failed.map(|dependency| format!("{} ({})", dependency.name, dependency.id)).collect();
        let which = if failed.is_empty() { String::new() } else { format!(" ({})", failed.join(", ")) };
        format!("Dependency sessions have failed.{which}")
    }

    /// Why the agents have no room; computed once per request for as long as nothing changes on them.
    fn room_report(&mut self, number: SessionNo) -> Option<Arc<RoomReport>> {
        let request = self.queue.get(number)?.request;
        let version = self.fleet.room.version();
        let entry = self.requests.get(request)?;
        if let Some((of, report)) = &entry.report
            && *of == version
            && entry.strict_group().is_none()
        {
            return Some(report.clone());
        }
        let report = Arc::new(self.fresh_report(number)?);
        if let Some(entry) = self.requests.get_mut(request) {
            entry.report = Some((version, report.clone()));
        }
        Some(report)
    }

    fn fresh_report(&mut self, number: SessionNo) -> Option<RoomReport> {
        let pools = self.pools_of(self.queue.get(number)?.request);
        let entry = self.queue.get(number)?;
        let request = self.requests.get(entry.request)?;
        let room = &self.fleet.room;
        let mut packing = Packing::new(|agent| Cow::Borrowed(room.free(agent)));
        let wishes = wishes_of(entry, &self.members);
        let (need, placed, fits) = match packing.pack(request, &pools, &self.fleet, wishes) {
            Ok(_) => (0, 0, true),
            Err(Stuck { need, placed }) => (need, placed, false),
        };
        let (need, pool) = (request.needs.get(need)?, *pools.get(need)?);
        let (counts, nearest) = self.survey(need, pool, wishes, &packing);
        let nearest = nearest.filter(|_| !fits).map(|agent| NearestMiss {
            agent: self.fleet.node(agent).id.clone(),
            shortfalls: packing.with_row(agent, |row| self.shortfalls(need, agent, row)),
        });
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let kernels = (request.gang() && !fits).then(|| (count(placed), count(request.kernels.len())));
        Some(RoomReport { fits, rejections: self.rejections(need, counts), nearest, kernels })
    }

    /// How many agents of a pool are ruled out by the session group, by the limit on kernels and by lack of room, and the one that
    /// comes closest.
    fn survey<'r, R: Fn(AgentNo) -> Cow<'r, [Units]>>(
        &self,
        need: &Need,
        pool: u32,
        wishes: Wishes<'_>,
        packing: &Packing<R>,
    ) -> ([u32; 3], Option<AgentNo>) {
        let mut counts = [0_u32; 3];
        let mut nearest: Option<((usize, i64), AgentNo)> = None;
        for agent in self.fleet.pool(pool).members.iter().copied() {
            if !wishes.allows(agent) {
                counts[0] += 1;
                continue;
            }
            let (short, free, kernels) = packing.with_row(agent, |row| self.lacking(need, row));
            if short == 0 {
                continue;
            }
            counts[if kernels { 1 } else { 2 }] += 1;
            if nearest.is_none_or(|(best, _)| (short, -free) < best) {
                nearest = Some(((short, -free), agent));
            }
        }
        (counts, nearest.map(|(_, agent)| agent))
    }

    fn rejections(&self, need: &Need, [group, containers, resource]: [u32; 3]) -> Vec<Rejection> {
        let site = self.fleet.site_report(&need.site);
        let rules = [
            ("unavailable", site.unavailable),
            ("architecture", site.architecture),
            ("image", site.image),
            ("designated", site.designated),
            ("session-group", group),
            ("container-limit", containers),
            ("resource", resource),
        ];
        let some = rules.into_iter().filter(|(_, agents)| *agents > 0);
        some.map(|(rule, agents)| Rejection { rule: rule.to_owned(), agents }).collect()
    }

    /// How many slots are short, how much is free of the most important one of them, and whether kernels are among them.
    fn lacking(&self, need: &Need, row: &[Units]) -> (usize, i64, bool) {
        let has = |slot: SlotId| row.get(slot.index()).copied().unwrap_or(0);
        let all = need.amounts.iter().filter(|(slot, units)| *units > has(*slot)).count();
        if all == 0 {
            return (0, 0, false);
        }
        let profile = &self.requests.profiles()[need.profile as usize];
        let first = profile.asked.iter().find(|slot| need.amounts.of(**slot) > has(**slot));
        (all, first.map_or(0, |slot| has(*slot)), need.amounts.of(SlotId::KERNELS) > has(SlotId::KERNELS))
    }

    fn shortfalls(&self, need: &Need, agent: AgentNo, row: &[Units]) -> Vec<Shortfall> {
        let profile = &self.requests.profiles()[need.profile as usize];
        let slots = profile.asked.iter().copied().chain([SlotId::KERNELS]);
        let capacity = self.fleet.room.capacity(agent);
        let has = |row: &[Units], slot: SlotId| row.get(slot.index()).copied().unwrap_or(0);
        slots
            .filter(|slot| need.amounts.of(*slot) > has(row, *slot))
            .map(|slot| Shortfall {
                slot: self.table.name(slot).to_owned(),
                asked: self.table.text(slot, need.amounts.of(slot)),
                free: self.table.text(slot, has(row, slot)),
                capacity: self.table.text(slot, has(capacity, slot)),
            })
            .collect()
    }
}
