//! Limits of keypairs, users, projects and domains, and what counts against them.

use std::collections::BTreeMap;

use bai_core::slots::{Amount, DefaultForUnspecified, ResourceSlots};
use bai_core::{AccessKey, ProjectId, UserId};

use crate::snapshot::Pending;

/// Somebody whose usage is limited.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A keypair.
    Keypair(AccessKey),
    /// A user, over all keypairs.
    User(UserId),
    /// A project.
    Project(ProjectId),
    /// A domain.
    Domain(String),
}

impl Holder {
    /// Everybody whose limits a session counts against, in the order of the checks.
    pub fn of(session: &Pending) -> [Self; 4] {
        [
            Self::Keypair(session.access_key.clone()),
            Self::User(session.user),
            Self::Project(session.project),
            Self::Domain(session.domain.clone()),
        ]
    }

    /// Name of the check, as clients know it.
    pub fn check_name(&self) -> &'static str {
        match self {
            Self::Keypair(_) => "keypair_resource_limit",
            Self::User(_) => "user_resource_limit",
            Self::Project(_) => "user_group_resource_limit",
            Self::Domain(_) => "domain_resource_limit",
        }
    }

    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::Keypair(_) => "keypair",
            Self::User(_) => "user",
            Self::Project(_) => "project",
            Self::Domain(_) => "domain",
        }
    }
}

/// Most amounts somebody may use.
#[derive(Debug, Clone)]
pub struct Limit {
    /// Amounts of the slots that are limited by name.
    pub slots: ResourceSlots,
    /// What holds for all others.
    pub others: DefaultForUnspecified,
}

impl Limit {
    /// No limit at all.
    pub fn none() -> Self {
        Self { slots: ResourceSlots::new(), others: DefaultForUnspecified::Unlimited }
    }

    /// The limit of one slot.
    pub fn of(&self, slot: &str) -> Amount {
        if self.slots.names(slot) { self.slots.get(slot) } else { self.others.amount() }
    }
}

/// A limit and what counts against it.
#[derive(Debug, Clone)]
pub struct Quota {
    /// Most that may be used.
    pub limit: Limit,
    /// What is used.
    pub used: ResourceSlots,
}

/// How many sessions a keypair may have and has; a `most` of zero means no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Concurrency {
    /// Most sessions at once.
    pub most: u32,
    /// Sessions that count now.
    pub used: u32,
}

/// Everybody's limits. Whoever is not mentioned has none.
#[derive(Debug, Clone, Default)]
pub struct Quotas {
    /// Amounts.
    pub amounts: BTreeMap<Holder, Quota>,
    /// Sessions.
    pub sessions: BTreeMap<AccessKey, Concurrency>,
}

impl Quotas {
    /// Counts a session that has been placed.
    pub(crate) fn charge(&mut self, session: &Pending) {
        if let Some(count) = self.sessions.get_mut(&session.access_key) {
            count.used = count.used.saturating_add(1);
        }
        let requested = session.requested();
        for holder in Holder::of(session) {
            if let Some(quota) = self.amounts.get_mut(&holder) {
                quota.used.add(&requested);
            }
        }
    }
}
