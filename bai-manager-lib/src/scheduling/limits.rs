//! Limits of the owners of sessions (spec scheduler.md, sections 8 and 11).

use std::collections::{BTreeMap, HashMap};

use bai_core::identity::{Keypair, KeypairPolicy, Project, User};
use bai_core::port::store::Directory;
use bai_core::slots::{DefaultForUnspecified, ResourceSlots, SlotTypes};
use bai_core::{AccessKey, ProjectId, UserId};
use bai_scheduler::{Holder, Limits, Owner};
use serde_json::{Map, Value};

/// Where the limits of a holder come from; equal sources give equal limits.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// A policy, with its counts.
    Keypair(KeypairPolicy),
    /// Amounts, and whether slots that are not named are limited to nothing.
    Amounts(BTreeMap<String, String>, DefaultForUnspecified),
    /// There is no limit.
    None,
}

/// The rows of a directory by key.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    directory: &'a Directory,
    keypairs: HashMap<&'a AccessKey, &'a Keypair>,
    users: HashMap<UserId, &'a User>,
    projects: HashMap<ProjectId, &'a Project>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(directory: &'a Directory) -> Self {
        let projects = directory.projects.iter();
        Self {
            directory,
            keypairs: directory.keypairs.iter().map(|keypair| (&keypair.access_key, keypair)).collect(),
            users: directory.users.iter().map(|user| (user.id, user)).collect(),
            projects: projects.map(|(project, _)| (project.id, project)).collect(),
        }
    }

    pub(super) fn user(&self, id: UserId) -> Option<&'a User> {
        self.users.get(&id).copied()
    }

    pub(super) fn project(&self, id: ProjectId) -> Option<&'a Project> {
        self.projects.get(&id).copied()
    }

    /// The policy of a keypair.
    pub(super) fn policy(&self, key: &AccessKey) -> Option<&'a KeypairPolicy> {
        self.directory.policies.get(&self.keypairs.get(key)?.resource_policy)
    }

    /// What limits a holder. The amounts of a user are those of the main keypair, over the usage of all of them.
    pub(super) fn source(&self, holder: &Holder) -> Source {
        let unlimited = DefaultForUnspecified::Unlimited;
        match holder {
            Holder::Keypair(key) => {
                self.policy(key).map_or(Source::None, |policy| Source::Keypair(policy.clone()))
            }
            Holder::User(user) => {
                let policy = self.user(*user).and_then(|user| self.policy(user.main_access_key.as_ref()?));
                policy.map_or(Source::None, |policy| {
                    Source::Amounts(policy.total_resource_slots.clone(), others_of(policy))
                })
            }
            Holder::Project(id) => self.project(*id).map_or(Source::None, |project| {
                Source::Amounts(project.total_resource_slots.clone(), unlimited)
            }),
            Holder::Domain(name) => self.directory.domains.get(name).map_or(Source::None, |domain| {
                Source::Amounts(domain.total_resource_slots.clone(), unlimited)
            }),
            Holder::Member(..) => Source::None,
        }
    }
}

/// The holders whose limits an owner is under.
pub(super) fn holders(owner: &Owner) -> [Holder; 4] {
    [
        Holder::Keypair(owner.access_key.clone()),
        Holder::User(owner.user),
        Holder::Project(owner.project),
        Holder::Domain(owner.domain.clone()),
    ]
}

impl Source {
    /// The limits.
    pub(super) fn limits(&self, types: &SlotTypes) -> Limits {
        match self {
            Self::Keypair(policy) => Limits {
                total: Some((
                    slots(types, &policy.total_resource_slots, others_of(policy)),
                    others_of(policy),
                )),
                max_sessions: policy.max_concurrent_sessions,
                max_private_sessions: 0,
                max_pending_sessions: policy.max_pending_session_count,
                max_pending_slots: pending_slots(types, policy),
                max_priority: policy.max_priority,
                max_kernels: policy.max_containers_per_session,
            },
            Self::Amounts(amounts, others) => {
                Limits { total: Some((slots(types, amounts, *others), *others)), ..Limits::default() }
            }
            Self::None => Limits::default(),
        }
    }
}

/// What waiting sessions of a keypair may ask for together, of the slots that are named.
pub(crate) fn pending_slots(types: &SlotTypes, policy: &KeypairPolicy) -> Option<ResourceSlots> {
    let stored = policy.max_pending_session_resource_slots.as_ref()?;
    let all = slots(types, stored, DefaultForUnspecified::Unlimited);
    Some(
        all.iter()
            .filter(|(_, most)| !most.is_infinite())
            .map(|(name, most)| (name.clone(), *most))
            .collect(),
    )
}

fn others_of(policy: &KeypairPolicy) -> DefaultForUnspecified {
    policy.default_for_unspecified.parse().unwrap_or(DefaultForUnspecified::Limited)
}

/// Stored amounts; one that cannot be read limits to nothing, the safe side.
fn slots(
    types: &SlotTypes,
    stored: &BTreeMap<String, String>,
    others: DefaultForUnspecified,
) -> ResourceSlots {
    let given: Map<String, Value> =
        stored.iter().map(|(name, amount)| (name.clone(), amount.as_str().into())).collect();
    types.parse_policy(&given, others).unwrap_or_else(|error| {
        tracing::warn!(%error, "a resource limit cannot be read: nothing is allowed by it");
        types.filled_with(bai_core::slots::Amount::ZERO)
    })
}
