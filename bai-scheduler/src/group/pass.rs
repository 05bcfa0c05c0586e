//! One pass.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bai_core::{SessionId, Timestamp};
use smallvec::SmallVec;

use super::pack::Packing;
use super::place::wishes_of;
use super::{Group, Pools};
use crate::accounts::OwnerAccounts;
use crate::explain::Verdict;
use crate::options::Backfill;
use crate::plan::{Cancellation, Plan};
use crate::queue::{LaneNo, Seat, SessionNo, State};
use crate::sequence::tree::{LEVELS, Path, Rank, Tree};
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

impl Course {
    /// Nothing is left to be given to sessions that find no room.
    fn done(&self) -> bool {
        self.reservations == 0 && self.attempts == 0
    }
}

/// The lanes of one priority.
struct Band {
    /// Those that may start.
    tree: Tree,
    /// Those that cannot, as is known.
    hopeless: BinaryHeap<Reverse<(Rank, LaneNo)>>,
}

/// Shares of owners that have been computed already, by account. Owners repeat from lane to lane.
#[derive(Default)]
struct Shares(Vec<Option<u64>>);

impl Shares {
    fn get(&mut self, account: u32, share: impl FnOnce() -> u64) -> u64 {
        let at = account as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        *self.0[at].get_or_insert_with(share)
    }
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
        if other_agents {
            _ = self.fleet.room.take_grown();
            for request in self.requests.iter_mut() {
                (request.refused, request.held_back) = (false, false);
                (request.possible, request.report) = (None, None);
            }
        } else {
            self.wake_grown();
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
    pub(super) fn wake_grown(&mut self) {
        let grown = self.fleet.room.take_grown();
        if grown.is_empty() {
            return;
        }
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
        let Band { mut tree, mut hopeless } = self.band(priority, course);
        loop {
            let blocked = if course.done() { None } else { self.first_hopeless(&mut hopeless) };
            match (tree.first(), blocked) {
                (None, None) => return,
                (live, Some((rank, lane))) if live.is_none_or(|live| rank < live) => {
                    hopeless.pop();
                    let named = plan.preemptions.len();
                    if let Some(seat) = self.serve_hopeless(lane, course, plan) {
                        // Out of date by now, which is found out when it is its turn.
                        hopeless.push(Reverse(((rank.0, seat.0, seat.1), lane)));
                    }
                    if plan.preemptions.len() > named {
                        tree.relink(&mut |level, account| self.share(level, account));
                    }
                }
                _ => self.serve_live(&mut tree, course, plan),
            }
        }
    }

    /// The first session of a lane that may start has its turn.
    fn serve_live(&mut self, tree: &mut Tree, course: &mut Course, plan: &mut Plan) {
        let Some((lane, path)) = tree.take() else { return };
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
        self.put_back(tree, path, again);
    }

    /// A lane for which there is no room, as is known: what it may get is a reservation or victims. The next one of the lane is
    /// returned when it may get something too.
    fn serve_hopeless(&mut self, lane: LaneNo, course: &mut Course, plan: &mut Plan) -> Option<Seat> {
        let next = match self.serve(lane, course, plan) {
            Step::Next => self.front(lane),
            Step::Stop(verdict) => {
                course.stopped.push((lane, verdict));
                None
            }
        };
        if next.is_none() {
            course.left.push(lane);
        }
        next
    }

    fn front(&self, lane: LaneNo) -> Option<Seat> {
        self.queue.lane(lane)?.seats.first().copied()
    }

    /// The lanes of a priority in their order: those that may start apart from those that cannot. Lanes of which nothing is to be
    /// expected are left out.
    fn band(&self, priority: Reverse<i32>, course: &Course) -> Band {
        let levels = self.options.sequencer.levels();
        let mut tree = Tree::new(levels.len());
        let mut hopeless = Vec::new();
        let mut shares = Shares::default();
        for (number, lane) in self.queue.band(priority).filter(|(_, lane)| !lane.parked) {
            let (Some(request), Some(first)) = (self.requests.get(lane.request), lane.seats.first()) else {
                continue;
            };
            let owner = self.accounts.owner(lane.owner);
            if request.refused && lane.told.is_some() {
                if !course.done() && request.possible != Some(false) {
                    let share = |level, account| shares.get(account, || self.share(level, account));
                    let rank = self.rank(owner, (first.0, first.1), share);
                    hopeless.push(Reverse((rank, number)));
                }
                continue;
            }
            let path: SmallVec<[u32; LEVELS]> = levels.iter().map(|level| owner.on(*level)).collect();
            tree.add(&path, number, (first.0, first.1));
        }
        tree.link(&mut |level, account| self.share(level, account));
        Band { tree, hopeless: hopeless.into() }
    }

    fn rank(
        &self,
        owner: OwnerAccounts,
        first: (i64, SessionId),
        mut share: impl FnMut(usize, u32) -> u64,
    ) -> Rank {
        let mut shares = [0; LEVELS];
        let levels = self.options.sequencer.levels().iter().enumerate();
        for (at, (level, on)) in shares.iter_mut().zip(levels) {
            *at = share(level, owner.on(*on));
        }
        (shares, first.0, first.1)
    }

    /// The first of the lanes that cannot start. Owners only get more while a pass is made, so a rank that is still true for the first one
    /// makes it the first.
    fn first_hopeless(&self, hopeless: &mut BinaryHeap<Reverse<(Rank, LaneNo)>>) -> Option<(Rank, LaneNo)> {
        loop {
            let Reverse((rank, number)) = *hopeless.peek()?;
            let lane = self.queue.lane(number)?;
            let owner = self.accounts.owner(lane.owner);
            let now = self.rank(owner, (rank.1, rank.2), |level, account| self.share(level, account));
            if now == rank {
                return Some((rank, number));
            }
            hopeless.pop();
            hopeless.push(Reverse((now, number)));
        }
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
        let pass = self.pass;
        let refused =
            self.requests.get(number).is_none_or(|request| request.refused || request.refused_in == pass);
        if refused && course.done() {
            let held_back = self.requests.get(number).is_some_and(|request| request.held_back);
            return Step::Stop(if held_back { Verdict::HeldBack } else { Verdict::NoRoom });
        }
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

    /// Whether a request that found no room would find some if none were reserved.
    fn fits_free(&self, session: SessionNo, number: u32, pools: &Pools) -> bool {
        let (Some(request), Some(entry)) = (self.requests.get(number), self.queue.get(session)) else {
            return false;
        };
        let room = &self.fleet.room;
        let wishes = wishes_of(entry, &self.members);
        if let ([need], false) = (&request.needs[..], request.gang()) {
            // Only on agents with reservations is more free than a session may take.
            let fits = |agent: &u32| {
                pools.iter().all(|pool| self.fleet.pool(*pool).contains(*agent))
                    && wishes.allows(*agent)
                    && need.amounts.fits(room.free(*agent))
            };
            return room.reserved().any(|agent| fits(&agent));
        }
        let mut packing = Packing::new(|agent| Cow::Borrowed(room.free(agent)));
        packing.pack(request, pools, &self.fleet, wishes).is_ok()
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
