//! Owners: what they use, what they may use, what they have used.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bai_core::slots::{DefaultForUnspecified, ResourceSlots};
use bai_core::{Result, Timestamp};

use crate::decay::faded;
use crate::model::{Holder, Limits, Owner, UsageSlice};
use crate::sequence::{Level, Standing};
use crate::slots::{Amounts, SlotId, SlotTable, UNLIMITED, Units};

/// Number of an account.
pub(crate) type AccountNo = u32;

/// The accounts a session counts against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnerAccounts {
    pub(crate) keypair: AccountNo,
    pub(crate) user: AccountNo,
    pub(crate) project: AccountNo,
    pub(crate) domain: AccountNo,
    pub(crate) member: AccountNo,
}

impl OwnerAccounts {
    /// Those that have limits on amounts, in the order of the checks.
    pub(crate) fn limited(self) -> [AccountNo; 4] {
        [self.keypair, self.user, self.project, self.domain]
    }

    fn all(self) -> [AccountNo; 5] {
        [self.keypair, self.user, self.project, self.domain, self.member]
    }

    pub(crate) fn on(self, level: Level) -> AccountNo {
        match level {
            Level::Domain => self.domain,
            Level::Project => self.project,
            Level::Member => self.member,
            Level::User => self.user,
        }
    }
}

/// One holder.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) holder: Holder,
    /// Held in this group by sessions that are not private, by slot.
    used: Vec<Units>,
    elsewhere: Vec<Units>,
    /// Sessions that hold something: those that are not private, and private ones.
    sessions: [u32; 2],
    sessions_elsewhere: [u32; 2],
    /// By slot; beyond its end `unnamed` holds. `None`: no limit.
    limit: Option<(Vec<Units>, Units)>,
    pending_limit: Option<Amounts>,
    pub(crate) limits: Arc<Limits>,
    /// Waiting sessions and what they ask for.
    pub(crate) pending: u32,
    pending_slots: Vec<Units>,
    history: Vec<(i64, Vec<(SlotId, u128)>)>,
    faded: Vec<u128>,
    weight: u32,
    /// Lanes that wait for this account to use less.
    parked: BTreeSet<u32>,
}

impl Account {
    fn new(holder: Holder) -> Self {
        Self {
            holder,
            used: Vec::new(),
            elsewhere: Vec::new(),
            sessions: [0; 2],
            sessions_elsewhere: [0; 2],
            limit: None,
            pending_limit: None,
            limits: Arc::default(),
            pending: 0,
            pending_slots: Vec::new(),
            history: Vec::new(),
            faded: Vec::new(),
            weight: 1_000,
            parked: BTreeSet::new(),
        }
    }

    /// Everything it uses of a slot, in all groups.
    pub(crate) fn used_of(&self, slot: SlotId) -> Units {
        cell(&self.used, slot).saturating_add(cell(&self.elsewhere, slot))
    }

    /// What it may use of a slot.
    pub(crate) fn limit_of(&self, slot: SlotId) -> Units {
        let Some((named, unnamed)) = &self.limit else { return UNLIMITED };
        named.get(slot.index()).copied().unwrap_or(*unnamed)
    }

    /// The first slot of which `asked` would exceed the limit.
    pub(crate) fn first_excess(&self, asked: &Amounts) -> Option<(SlotId, Units)> {
        self.limit.as_ref()?;
        asked.iter().find(|(slot, units)| {
            let limit = self.limit_of(*slot);
            limit < UNLIMITED && self.used_of(*slot).saturating_add(*units) > limit
        })
    }

    /// The first slot of which waiting sessions would ask for too much.
    pub(crate) fn pending_excess(&self, asked: &Amounts) -> Option<(SlotId, Units)> {
        let limit = self.pending_limit.as_ref()?;
        limit.iter().find_map(|(slot, most)| {
            let sum = cell(&self.pending_slots, slot).saturating_add(asked.of(slot));
            (sum > most).then_some((slot, most))
        })
    }

    pub(crate) fn sessions(&self, private: bool) -> u32 {
        let at = usize::from(private);
        self.sessions[at].saturating_add(self.sessions_elsewhere[at])
    }

    /// Of this group: those that are not private, and private ones.
    pub(crate) fn sessions_here(&self) -> [u32; 2] {
        self.sessions
    }

    pub(crate) fn max_sessions(&self, private: bool) -> u32 {
        if private { self.limits.max_private_sessions } else { self.limits.max_sessions }
    }

    pub(crate) fn used(&self) -> &[Units] {
        &self.used
    }
}

fn cell(row: &[Units], slot: SlotId) -> Units {
    row.get(slot.index()).copied().unwrap_or(0)
}

fn widen(row: &mut Vec<Units>, width: usize) {
    if row.len() < width {
        row.resize(width, 0);
    }
}

/// All accounts of a group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accounts {
    list: Vec<Account>,
    by_holder: HashMap<Holder, AccountNo>,
    owners: Vec<OwnerAccounts>,
    by_owner: HashMap<Owner, u32>,
    half_life: Option<i64>,
    faded_at: Option<i64>,
}

impl Accounts {
    pub(crate) fn get(&self, number: AccountNo) -> &Account {
        &self.list[number as usize]
    }

    pub(crate) fn owner(&self, number: u32) -> OwnerAccounts {
        self.owners[number as usize]
    }

    pub(crate) fn find(&self, holder: &Holder) -> Option<AccountNo> {
        self.by_holder.get(holder).copied()
    }

    fn number(&mut self, holder: &Holder) -> AccountNo {
        if let Some(number) = self.by_holder.get(holder) {
            return *number;
        }
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(Account::new(holder.clone()));
        self.by_holder.insert(holder.clone(), number);
        number
    }

    fn account(&mut self, holder: &Holder) -> &mut Account {
        let number = self.number(holder);
        &mut self.list[number as usize]
    }

    /// The number of an owner, with an account for each holder.
    pub(crate) fn intern(&mut self, owner: &Owner) -> u32 {
        if let Some(number) = self.by_owner.get(owner) {
            return *number;
        }
        let accounts = OwnerAccounts {
            keypair: self.number(&Holder::Keypair(owner.access_key.clone())),
            user: self.number(&Holder::User(owner.user)),
            project: self.number(&Holder::Project(owner.project)),
            domain: self.number(&Holder::Domain(owner.domain.clone())),
            member: self.number(&Holder::Member(owner.project, owner.user)),
        };
        let number = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        self.owners.push(accounts);
        self.by_owner.insert(owner.clone(), number);
        number
    }

    /// A session gets amounts. Those of private sessions do not count.
    pub(crate) fn charge(&mut self, owner: u32, amounts: &Amounts, private: bool, width: usize) {
        if private {
            return;
        }
        for account in self.owner(owner).all() {
            let used = &mut self.list[account as usize].used;
            widen(used, width);
            amounts.add_to(used);
        }
    }

    /// A session gives amounts back. The lanes that this may help are returned.
    pub(crate) fn discharge(&mut self, owner: u32, amounts: &Amounts, private: bool) -> Vec<u32> {
        let mut woken = Vec::new();
        for account in self.owner(owner).all() {
            let account = &mut self.list[account as usize];
            if !private {
                amounts.take_from(&mut account.used);
            }
            woken.extend(std::mem::take(&mut account.parked));
        }
        woken
    }

    pub(crate) fn count_session(&mut self, owner: u32, private: bool, more: bool) {
        let keypair = self.owner(owner).keypair;
        let count = &mut self.list[keypair as usize].sessions[usize::from(private)];
        *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
    }

    pub(crate) fn count_pending(&mut self, owner: u32, amounts: &Amounts, more: bool, width: usize) {
        let keypair = self.owner(owner).keypair;
        let account = &mut self.list[keypair as usize];
        widen(&mut account.pending_slots, width);
        if more {
            account.pending = account.pending.saturating_add(1);
            amounts.add_to(&mut account.pending_slots);
        } else {
            account.pending = account.pending.saturating_sub(1);
            amounts.take_from(&mut account.pending_slots);
        }
    }

    /// A lane waits until an account uses less or may use more.
    pub(crate) fn park(&mut self, account: AccountNo, lane: u32) {
        self.list[account as usize].parked.insert(lane);
    }

    /// New limits; the lanes that may go on are returned.
    pub(crate) fn set_limits(
        &mut self,
        holder: &Holder,
        limits: Limits,
        table: &mut SlotTable,
    ) -> Result<Vec<u32>> {
        let limit = match &limits.total {
            None => None,
            Some((slots, unnamed)) => Some(limit_row(slots, *unnamed, table)?),
        };
        let pending = limits.max_pending_slots.as_ref().map(|slots| table.supply(slots)).transpose()?;
        let account = self.account(holder);
        account.limit = limit;
        account.pending_limit = pending;
        account.limits = Arc::new(limits);
        Ok(std::mem::take(&mut account.parked).into_iter().collect())
    }

    /// Usage in other groups; the lanes that may go on are returned.
    pub(crate) fn set_elsewhere(
        &mut self,
        holder: &Holder,
        slots: &ResourceSlots,
        sessions: [u32; 2],
        table: &mut SlotTable,
    ) -> Result<Vec<u32>> {
        let amounts = table.demand(slots)?;
        let account = self.account(holder);
        account.elsewhere = vec![0; table.width()];
        amounts.add_to(&mut account.elsewhere);
        account.sessions_elsewhere = sessions;
        Ok(std::mem::take(&mut account.parked).into_iter().collect())
    }

    pub(crate) fn set_history(
        &mut self,
        holder: &Holder,
        slices: &[UsageSlice],
        table: &mut SlotTable,
    ) -> Result<()> {
        let mut history = Vec::with_capacity(slices.len());
        for slice in slices {
            history.push((slice.at.timestamp_micros(), table.volume(&slice.slot_seconds)?));
        }
        self.account(holder).history = history;
        self.faded_at = None;
        Ok(())
    }

    pub(crate) fn set_weight(&mut self, holder: &Holder, weight: u32) {
        self.account(holder).weight = weight.max(1);
    }

    pub(crate) fn set_half_life(&mut self, half_life: Option<i64>) {
        self.half_life = half_life;
        self.faded_at = None;
    }

    /// Lets the past fade up to `now`. All fade alike, so a step of five minutes is fine enough.
    pub(crate) fn fade(&mut self, now: Timestamp, width: usize) {
        const STEP: i64 = 300_000_000;
        let now = now.timestamp_micros().div_euclid(STEP) * STEP;
        if self.faded_at == Some(now) {
            return;
        }
        self.faded_at = Some(now);
        for account in &mut self.list {
            account.faded.clear();
            account.faded.resize(width, 0);
            for (at, amounts) in &account.history {
                for (slot, units) in amounts {
                    account.faded[slot.index()] += faded(*units, now - at, self.half_life);
                }
            }
        }
    }

    pub(crate) fn standing<'a>(
        &'a self,
        account: AccountNo,
        capacity: &'a [Units],
        table: &'a SlotTable,
    ) -> Standing<'a> {
        let account = self.get(account);
        Standing { weight: account.weight, table, used: &account.used, faded: &account.faded, capacity }
    }
}

fn limit_row(
    slots: &ResourceSlots,
    unnamed: DefaultForUnspecified,
    table: &mut SlotTable,
) -> Result<(Vec<Units>, Units)> {
    let unnamed = match unnamed {
        DefaultForUnspecified::Limited => 0,
        DefaultForUnspecified::Unlimited => UNLIMITED,
    };
    let named = table.supply(slots)?;
    for (name, _) in slots {
        table.intern(name)?;
    }
    let mut row = vec![unnamed; table.width()];
    for (name, _) in slots {
        if let Some(slot) = table.find(name.as_str()) {
            row[slot.index()] = named.of(slot);
        }
    }
    Ok((row, unnamed))
}
