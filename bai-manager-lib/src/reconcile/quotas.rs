//! Limits of the owners of sessions.

use std::collections::BTreeMap;

use bai_core::port::store::Directory;
use bai_core::slots::{Amount, DefaultForUnspecified, ResourceSlots, SlotTypes};
use bai_core::{AccessKey, UserId};
use bai_scheduler::{Holder, Limits};
use serde_json::{Map, Value};

/// The limits of a holder; none for one that is unknown.
pub(crate) fn limits_of(directory: &Directory, types: &SlotTypes, holder: &Holder) -> Limits {
    let unlimited = DefaultForUnspecified::Unlimited;
    match holder {
        Holder::Keypair(key) => keypair_limits(directory, types, Some(key)),
        // The limits of a user are those of the main keypair, over the usage of all of them.
        Holder::User(user) | Holder::Member(_, user) => {
            keypair_limits(directory, types, main_key(directory, *user))
        }
        Holder::Project(id) => {
            let project = directory.projects.iter().find(|(project, _)| project.id == *id);
            project.map_or_else(Limits::default, |(project, _)| {
                limits(types, &project.total_resource_slots, unlimited)
            })
        }
        Holder::Domain(name) => {
            let domain = directory.domains.get(name);
            domain
                .map_or_else(Limits::default, |domain| limits(types, &domain.total_resource_slots, unlimited))
        }
    }
}

/// The policy of a keypair.
pub(crate) fn policy_of<'a>(
    directory: &'a Directory,
    key: &AccessKey,
) -> Option<&'a bai_core::identity::KeypairPolicy> {
    let keypair = directory.keypairs.iter().find(|keypair| keypair.access_key == *key)?;
    directory.policies.get(&keypair.resource_policy)
}

fn main_key(directory: &Directory, user: UserId) -> Option<&AccessKey> {
    directory.users.iter().find(|known| known.id == user)?.main_access_key.as_ref()
}

fn keypair_limits(directory: &Directory, types: &SlotTypes, key: Option<&AccessKey>) -> Limits {
    let Some(policy) = key.and_then(|key| policy_of(directory, key)) else { return Limits::default() };
    let others = policy.default_for_unspecified.parse().unwrap_or(DefaultForUnspecified::Limited);
    Limits {
        max_sessions: policy.max_concurrent_sessions,
        max_kernels: policy.max_containers_per_session,
        ..limits(types, &policy.total_resource_slots, others)
    }
}

/// A stored limit; an amount that cannot be read limits to nothing, the safe side.
fn limits(types: &SlotTypes, stored: &BTreeMap<String, String>, others: DefaultForUnspecified) -> Limits {
    let given: Map<String, Value> =
        stored.iter().map(|(name, amount)| (name.clone(), amount.as_str().into())).collect();
    let slots: ResourceSlots = types.parse_policy(&given, others).unwrap_or_else(|error| {
        tracing::warn!(%error, "a resource limit cannot be read: nothing is allowed by it");
        types.filled_with(Amount::ZERO)
    });
    Limits { total: Some((slots, others)), ..Limits::default() }
}
