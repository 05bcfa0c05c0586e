//! Limits of the owners of waiting sessions, and what living sessions use of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bai_core::Session;
use bai_core::port::store::Directory;
use bai_core::slots::{DefaultForUnspecified, ResourceSlots, SlotTypes};
use bai_core::{AccessKey, UserId};
use bai_scheduler::{Concurrency, Holder, Limit, Quota, Quotas};
use serde_json::{Map, Value};

/// The quotas that matter for `waiting`.
pub(crate) fn quotas(
    directory: &Directory,
    types: &SlotTypes,
    sessions: &[Arc<Session>],
    waiting: &[Arc<Session>],
) -> Quotas {
    let mut quotas = Quotas::default();
    for session in waiting {
        let owner = &session.owner;
        let key = &owner.access_key;
        if !quotas.sessions.contains_key(key)
            && let Some(policy) = policy_of(directory, key)
        {
            quotas
                .sessions
                .insert(key.clone(), Concurrency { most: policy.max_concurrent_sessions, used: 0 });
        }
        for holder in [
            Holder::Keypair(key.clone()),
            Holder::User(owner.user_id),
            Holder::Project(owner.project_id),
            Holder::Domain(owner.domain.clone()),
        ] {
            quotas.amounts.entry(holder).or_insert_with_key(|holder| Quota {
                limit: limit_of(directory, types, holder),
                used: ResourceSlots::new(),
            });
        }
    }
    count_usage(&mut quotas, sessions);
    quotas
}

fn count_usage(quotas: &mut Quotas, sessions: &[Arc<Session>]) {
    for session in sessions.iter().filter(|session| session.status.occupies_quota()) {
        let owner = &session.owner;
        if let Some(count) = quotas.sessions.get_mut(&owner.access_key) {
            count.used = count.used.saturating_add(1);
        }
        let allocated = session.allocated();
        for holder in [
            Holder::Keypair(owner.access_key.clone()),
            Holder::User(owner.user_id),
            Holder::Project(owner.project_id),
            Holder::Domain(owner.domain.clone()),
        ] {
            if let Some(quota) = quotas.amounts.get_mut(&holder) {
                quota.used.add(&allocated);
            }
        }
    }
}

fn policy_of<'a>(directory: &'a Directory, key: &AccessKey) -> Option<&'a bai_core::identity::KeypairPolicy> {
    let keypair = directory.keypairs.iter().find(|keypair| keypair.access_key == *key)?;
    directory.policies.get(&keypair.resource_policy)
}

fn main_key(directory: &Directory, user: UserId) -> Option<&AccessKey> {
    directory.users.iter().find(|known| known.id == user)?.main_access_key.as_ref()
}

fn limit_of(directory: &Directory, types: &SlotTypes, holder: &Holder) -> Limit {
    let unlimited = DefaultForUnspecified::Unlimited;
    match holder {
        Holder::Keypair(key) => keypair_limit(directory, types, Some(key)),
        // The limits of a user are those of the main keypair, over the usage of all of them.
        Holder::User(user) => keypair_limit(directory, types, main_key(directory, *user)),
        Holder::Project(id) => {
            let project = directory.projects.iter().find(|(project, _)| project.id == *id);
            project.map_or_else(Limit::none, |(project, _)| {
                limit(types, &project.total_resource_slots, unlimited)
            })
        }
        Holder::Domain(name) => {
            let domain = directory.domains.get(name);
            domain.map_or_else(Limit::none, |domain| limit(types, &domain.total_resource_slots, unlimited))
        }
    }
}

fn keypair_limit(directory: &Directory, types: &SlotTypes, key: Option<&AccessKey>) -> Limit {
    let Some(policy) = key.and_then(|key| policy_of(directory, key)) else { return Limit::none() };
    let others = policy.default_for_unspecified.parse().unwrap_or(DefaultForUnspecified::Limited);
    limit(types, &policy.total_resource_slots, others)
}

/// A stored limit; an amount that cannot be read limits to nothing, the safe side.
fn limit(types: &SlotTypes, stored: &BTreeMap<String, String>, others: DefaultForUnspecified) -> Limit {
    let given: Map<String, Value> =
        stored.iter().map(|(name, amount)| (name.clone(), amount.as_str().into())).collect();
    let slots = types.parse_policy(&given, others).unwrap_or_else(|error| {
        tracing::warn!(%error, "a resource limit cannot be read: nothing is allowed by it");
        types.filled_with(bai_core::slots::Amount::ZERO)
    });
    Limit { slots, others }
}
