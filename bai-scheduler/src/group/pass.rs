//! One pass.

use std::cmp::Reverse;

use bai_core::{SessionId, Timestamp};
use smallvec::SmallVec;

use super::Group;
use super::place::wishes_of;
use crate::explain::Verdict;
use crate::options::Backfill;
use crate::plan::{Cancellation, Plan};
use crate::queue::{LaneNo, Seat, SessionNo, State};
use crate::sequence::tree::{Path, Tree};
use crate::validate::{Candidate, Checks};

/// What a pass remembers while it is made.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Reservations that may still be made.
    pub(super) reservations: u32,
    /// Sessions for which victims may still be looked for.
    pub(super) attempts: u32,
    /// Somebody waits and nobody may overtake.
    pub(super) closed: bool,
    /// Sessions that a check of the user's own refuses. They come back to their lanes after the pass.
    aside: Vec<(LaneNo, Seat)>,
    /// Lanes in which nobody sits any more, unless somebody comes back.
    left: Vec<LaneNo>,
    /// Lanes that were stopped, and by what.
    stopped: Vec<(LaneNo, Verdict)>,
}

/// What came of the first session of a lane.
enum Step {
    /// It left the lane: the next one has its turn.
    Next,
    /// Nobody of this lane can start in this pass.
    Stop(Verdict),
}

impl Group {
    /// Decides about all sessions that wait, as of `now`. Times must not go back from pass to pass.
    ///
    /// The placements are taken for granted from here on; see [`Plan`].
    pub fn pass(&mut self, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        self.begin(now);
        self.cancel_doomed(&mut plan);
        self.admit_claims(&mut plan);
        let mut course = Course {
            reservations: self.options.backfill.reservations(),
            attempts: self.options.preemption.as_ref().map_or(0, |preemption| preemption.attempts),
            ..Course::default()
        };
        for priority in self.queue.priorities() {
            self.serve_band(priority, &mut course, &mut plan);
        }
        self.finish(&course, &mut plan);
        plan
    }

    /// Makes everything current, and wakes whom it concerns.
    fn begin(&mut self, now: Timestamp) {
        self.now = now.timestamp_micros();
        self.pass += 1;
        let other_agents = self.fleet.settle(&self.table);
        let grown = self.fleet.room.take_grown();
        if other_agents {
            for request in self.requests.iter_mut() {
                (request.refused, request.held_back) = (false, false);
                (request.possible, request.report) = (None, None);
            }
        } else if !grown.is_empty() {
            self.wake(&grown);
        }
        self.accounts.fade(now, self.table.width());
        self.fleet.begin(self.now);
        self.reservations.clear();
        while let Some((start, session)) = self.queue.early.first().copied() {
            if start > self.now {
                break;
            }
            self.queue.early.pop_first();
            self.route(session);
        }
    }

    /// Requests of which a kernel fits on an agent that has more room than before are tried again.
    fn wake(&mut self, grown: &[u32]) {
        for request in self.requests.iter_mut().filter(|request| request.refused) {
            let fits = |agent: &u32| {
                let free = self.fleet.room.free(*agent);
                request.needs.iter().any(|need| need.amounts.fits(free))
            };
            if grown.iter().any(fits) {
                request.refused = false;
            }
        }
    }

    /// Sessions that can never start, and those that depend on them.
    fn cancel_doomed(&mut self, plan: &mut Plan) {
        let mut all: Vec<SessionId> = self.queue.doomed.iter().copied().collect();
        let mut at = 0;
        while let Some(doomed) = all.get(at).copied() {
            at += 1;
            for child in self.queue.children.get(&doomed).into_iter().flatten() {
                if let Some(id) = self.queue.get(*child).map(|entry| entry.id)
                    && !all.contains(&id)
                {
                    all.push(id);
                }
            }
        }
        for session in all {
            let message = self.doom_of(session);
            plan.cancellations.push(Cancellation {
                session,
                reason: "dependency-failed".to_owned(),
                message,
            });
        }
        plan.cancellations.sort_by_key(|cancellation| cancellation.session);
    }

    fn serve_band(&mut self, priority: Reverse<i32>, course: &mut Course, plan: &mut Plan) {
        let Some(mut tree) = self.tree_of(priority, course) else { return };
        while let Some((lane, path)) = tree.take() {
            let again = match self.serve(lane, course, plan) {
                Step::Next => self.front(lane).map(|seat| (lane, (seat.0, seat.1))),
                Step::Stop(verdict) => {
                    course.stopped.push((lane, verdict));
                    None
                }
            };
            if again.is_none() {
                course.left.push(lane);
            }
            self.put_back(&mut tree, path, again);
        }
    }

    fn front(&self, lane: LaneNo) -> Option<Seat> {
        self.queue.lane(lane)?.seats.first().copied()
    }

    /// The lanes of a priority in their order, without those that need not be looked at.
    fn tree_of(&self, priority: Reverse<i32>, course: &Course) -> Option<Tree> {
        let levels = self.options.sequencer.levels();
        let mut tree = Tree::new(levels.len());
        let mut any = false;
        // A lane that cannot start anyway matters only as long as it may get a reservation or victims.
        let matters = course.reservations > 0 || course.attempts > 0;
        for (number, lane) in self.queue.band(priority).filter(|(_, lane)| !lane.parked) {
            let Some(request) = self.requests.get(lane.request) else { continue };
            let hopeless = request.refused && (!matters || request.possible == Some(false));
            let Some(first) = lane.seats.first().filter(|_| !hopeless || lane.told.is_none()) else {
                continue;
            };
            let owner = self.accounts.owner(lane.owner);
            let path: SmallVec<[u32; 4]> = levels.iter().map(|level| owner.on(*level)).collect();
            tree.add(&path, number, (first.0, first.1));
            any = true;
        }
        tree.link(&mut |level, account| self.share(level, account));
        any.then_some(tree)
    }

    fn put_back(&self, tree: &mut Tree, path: Path, lane: Option<(LaneNo, (i64, SessionId))>) {
        tree.put_back(path, lane, &mut |level, account| self.share(level, account));
    }

    fn share(&self, level: usize, account: u32) -> u64 {
        let Some(level) = self.options.sequencer.levels().get(level) else { return 0 };
        let standing = self.accounts.standing(account, self.fleet.total(), &self.table);
        self.options.sequencer.share(*level, &standing)
    }

    /// Tries the first session of a lane.
    fn serve(&mut self, lane: LaneNo, course: &mut Course, plan: &mut Plan) -> Step {
        let Some(seat) = self.front(lane) else { return Step::Stop(Verdict::Checks) };
        let Some((owner, number)) = self.queue.lane(lane).map(|lane| (lane.owner, lane.request)) else {
            return Step::Stop(Verdict::Checks);
        };
        if let Some(stop) = self.check(lane, owner, number) {
            return stop;
        }
        if self.refused_by_plugin(seat.2) {
            self.queue.unseat(lane, seat);
            course.aside.push((lane, seat));
            return Step::Next;
        }
        if course.closed {
            return Step::Stop(Verdict::HeldBack);
        }
        let pass = self.pass;
        let refused =
            self.requests.get(number).is_none_or(|request| request.refused || request.refused_in == pass);
        if !refused && let Some(parts) = self.try_place(seat.2) {
            self.place(lane, seat, parts, plan);
            return Step::Next;
        }
        self.no_room(lane, seat, course, plan)
    }

    /// The built-in checks. A lane that exceeds a limit is parked until its owner uses less.
    fn check(&mut self, lane: LaneNo, owner: u32, number: u32) -> Option<Step> {
        let request = self.requests.get(number)?;
        let checks = self.checks();
        if checks.flawed(request) {
            return Some(Step::Stop(Verdict::Checks));
        }
        let account = checks.exceeded(owner, request)?;
        self.accounts.park(account, lane);
        if let Some(lane) = self.queue.lane_mut(lane) {
            lane.parked = true;
        }
        Some(Step::Stop(Verdict::Checks))
    }

    pub(super) fn checks(&self) -> Checks<'_> {
        Checks { accounts: &self.accounts, table: &self.table, options: &self.options, now: self.now }
    }

    /// The session as checks of the user's own see it.
    pub(super) fn candidate(&self, session: SessionNo) -> Option<Candidate<'_>> {
        let entry = self.queue.get(session)?;
        let accounts = self.accounts.owner(entry.owner).limited();
        Some(Candidate {
            id: entry.id,
            priority: entry.priority,
            created_at: Self::time(entry.created_at),
            now: Self::time(self.now),
            request: self.requests.get(entry.request)?,
            accounts: accounts.map(|number| self.accounts.get(number)),
            table: &self.table,
        })
    }

    fn refused_by_plugin(&self, session: SessionNo) -> bool {
        let validators = &self.options.validators;
        !validators.is_empty()
            && self.candidate(session).is_some_and(|candidate| {
                validators.iter().any(|validator| validator.check(&candidate).is_err())
            })
    }

    /// No agent has room for the first session of a lane, and thus for none that is like it.
    fn no_room(&mut self, lane: LaneNo, seat: Seat, course: &mut Course, plan: &mut Plan) -> Step {
        let Some(number) = self.queue.get(seat.2).map(|entry| entry.request) else {
            return Step::Stop(Verdict::NoRoom);
        };
        let held_back = self.note_refusal(seat.2, number);
        if !self.possible(number) {
            return Step::Stop(Verdict::Impossible);
        }
        if course.attempts > 0 && self.preempt(lane, seat, course, plan) {
            return Step::Next;
        }
        if course.reservations > 0 {
            course.reservations -= 1;
            self.reserve_for(seat, plan);
            course.closed = self.options.backfill == Backfill::Strict;
        }
        Step::Stop(if held_back { Verdict::HeldBack } else { Verdict::NoRoom })
    }

    /// Remembers that a request finds no room: until an agent has more, or, when it is only kept from room that is reserved,
    /// for this pass. Tells whether it is kept from it.
    fn note_refusal(&mut self, session: SessionNo, number: u32) -> bool {
        let pass = self.pass;
        let Some(request) = self.requests.get(number) else { return false };
        if request.refused || request.refused_in == pass {
            return request.held_back;
        }
        let strict_group = request.strict_group().is_some();
        let pools = self.pools_of(number);
        let held_back =
            self.fleet.room.reserved().next().is_some() && self.fits_free(session, number, &pools);
        if let Some(request) = self.requests.get_mut(number) {
            request.refused_in = pass;
            request.held_back = held_back;
            request.refused = !held_back && !strict_group;
        }
        held_back
    }

    fn fits_free(&self, session: SessionNo, number: u32, pools: &super::Pools) -> bool {
        let (Some(request), Some(entry)) = (self.requests.get(number), self.queue.get(session)) else {
            return false;
        };
        let room = &self.fleet.room;
        let mut packing = super::pack::Packing::new(|agent| room.free(agent).to_vec());
        packing.pack(request, pools, &self.fleet, wishes_of(entry, &self.members)).is_ok()
    }

    /// Puts everything back in place and tells what is new.
    fn finish(&mut self, course: &Course, plan: &mut Plan) {
        for (lane, seat) in &course.aside {
            self.queue.seat(*lane, *seat);
        }
        course.left.iter().for_each(|lane| self.queue.tidy(*lane));
        self.fleet.end(&self.table, self.requests.profiles());
        self.reservations.clone_from(&plan.reservations);
        self.closed = course.closed;
        plan.wake_at = self.wake_at();
        self.tell(&course.stopped, plan);
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let start = self.queue.early.first().map(|(start, _)| *start);
        let expiry = self.queue.claims.iter().filter_map(|(_, id)| {
            let entry = self.queue.get(self.queue.find(*id)?)?;
            if let State::Claimed(claim) = &entry.state { Some(claim.expires) } else { None }
        });
        start.into_iter().chain(expiry).min().map(Self::time)
    }
}
