//! The suite of [`IdentityStore`].

use std::sync::Arc;

use bai_core::error::ErrorKind;
use bai_core::identity::{Credential, UserStatus};
use bai_core::port::IdentityStore;
use bai_core::port::store::UserKey;
use bai_core::{AccessKey, Secret};

use crate::fixture::{domain, keypair, policy, project, resource_group, user, user_id};

/// One test for each case, on what `$fresh` sets up.
#[macro_export]
macro_rules! identity_store_conformance {
    ($fresh:path) => {
        $crate::conformance_tests!(
            identity_store,
            $fresh,
            [
                an_empty_store_has_an_empty_directory,
                the_directory_has_every_row_as_it_was_put,
                a_later_row_replaces_the_earlier,
                a_projects_members_are_replaced,
                a_user_is_found_by_id_email_and_name,
                users_are_looked_up_exactly,
                an_email_or_user_name_of_another_is_refused,
                a_user_may_take_a_name_that_was_given_up,
                a_keypair_without_user_is_not_found,
                a_credential_has_keypair_owner_and_policy,
                an_inactive_keypair_is_returned,
                an_unknown_access_key_has_no_credential,
                a_rotated_secret_is_the_new_one,
            ]
        );
    };
}

async fn with_keypair(store: &dyn IdentityStore, number: u128) {
    store.put_policy(&policy("default")).await.unwrap();
    store.put_user(&user(number)).await.unwrap();
    store.put_keypair(&keypair(number)).await.unwrap();
}

pub async fn an_empty_store_has_an_empty_directory(store: Arc<dyn IdentityStore>) {
    let directory = store.directory().await.unwrap();
    assert!(directory.domains.is_empty() && directory.projects.is_empty() && directory.users.is_empty());
    assert!(
        directory.policies.is_empty()
            && directory.resource_groups.is_empty()
            && directory.keypairs.is_empty()
    );
}

pub async fn the_directory_has_every_row_as_it_was_put(store: Arc<dyn IdentityStore>) {
    store.put_domain(&domain("default")).await.unwrap();
    store.put_domain(&domain("other")).await.unwrap();
    store.put_resource_group(&resource_group("gpu")).await.unwrap();
    with_keypair(&*store, 1).await;
    with_keypair(&*store, 2).await;
    store.put_project(&project(1), &[user_id(1), user_id(2)]).await.unwrap();
    store.put_project(&project(2), &[]).await.unwrap();

    let directory = store.directory().await.unwrap();
    assert_eq!(directory.domains.into_values().collect::<Vec<_>>(), [domain("default"), domain("other")]);
    assert_eq!(directory.projects, [(project(1), vec![user_id(1), user_id(2)]), (project(2), vec![])]);
    assert_eq!(directory.policies.into_values().collect::<Vec<_>>(), [policy("default")]);
    assert_eq!(directory.resource_groups.into_values().collect::<Vec<_>>(), [resource_group("gpu")]);
    assert_eq!(directory.users, [user(1), user(2)]);
    assert_eq!(directory.keypairs, [keypair(1), keypair(2)]);
}

pub async fn a_later_row_replaces_the_earlier(store: Arc<dyn IdentityStore>) {
    store.put_domain(&domain("default")).await.unwrap();
    store.put_resource_group(&resource_group("gpu")).await.unwrap();
    with_keypair(&*store, 1).await;
    let (mut new_domain, mut new_group) = (domain("default"), resource_group("gpu"));
    let (mut new_policy, mut new_user, mut new_keypair) = (policy("default"), user(1), keypair(1));
    new_domain.is_active = false;
    new_domain.description = None;
    new_group.scheduler = "drf".to_owned();
    new_group.domains.clear();
    new_policy.max_concurrent_sessions = 1;
    new_policy.max_pending_session_count = None;
    new_policy.max_pending_session_resource_slots = None;
    new_policy.max_priority = None;
    new_user.status = UserStatus::Inactive;
    new_user.email = "renamed@example.com".to_owned();
    new_user.password_hash = None;
    new_keypair.is_active = false;
    new_keypair.rate_limit = 7;
    store.put_domain(&new_domain).await.unwrap();
    store.put_resource_group(&new_group).await.unwrap();
    store.put_policy(&new_policy).await.unwrap();
    store.put_user(&new_user).await.unwrap();
    store.put_keypair(&new_keypair).await.unwrap();

    let directory = store.directory().await.unwrap();
    assert_eq!(directory.domains["default"], new_domain);
    assert_eq!(directory.resource_groups["gpu"], new_group);
    assert_eq!(directory.policies["default"], new_policy);
    assert_eq!((directory.users, directory.keypairs), (vec![new_user], vec![new_keypair]));
}

pub async fn a_projects_members_are_replaced(store: Arc<dyn IdentityStore>) {
    store.put_project(&project(1), &[user_id(1), user_id(2)]).await.unwrap();
    store.put_project(&project(1), &[user_id(3), user_id(2), user_id(3)]).await.unwrap();
    let directory = store.directory().await.unwrap();
    assert_eq!(directory.projects, [(project(1), vec![user_id(2), user_id(3)])]);
}

pub async fn a_user_is_found_by_id_email_and_name(store: Arc<dyn IdentityStore>) {
    store.put_user(&user(1)).await.unwrap();
    store.put_user(&user(2)).await.unwrap();
    for key in [
        UserKey::Id(user_id(2)),
        UserKey::Email("user2@example.com".to_owned()),
        UserKey::Username("user2".to_owned()),
    ] {
        assert_eq!(store.user(&key).await.unwrap(), Some(user(2)), "{key:?}");
    }
}

pub async fn users_are_looked_up_exactly(store: Arc<dyn IdentityStore>) {
    store.put_user(&user(1)).await.unwrap();
    for key in [
        UserKey::Id(user_id(2)),
        UserKey::Email("USER1@example.com".to_owned()),
        UserKey::Email("user1".to_owned()),
        UserKey::Username("User1".to_owned()),
        UserKey::Username("user1@example.com".to_owned()),
        UserKey::Username("user_".to_owned()),
    ] {
        assert_eq!(store.user(&key).await.unwrap(), None, "{key:?}");
    }
}

pub async fn an_email_or_user_name_of_another_is_refused(store: Arc<dyn IdentityStore>) {
    store.put_user(&user(1)).await.unwrap();
    store.put_user(&user(2)).await.unwrap();
    let (mut same_email, mut same_name) = (user(3), user(2));
    same_email.email = user(1).email;
    same_name.username = user(1).username;
    for taken in [same_email, same_name] {
        assert_eq!(store.put_user(&taken).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
    assert_eq!(store.directory().await.unwrap().users, [user(1), user(2)], "a refusal changes nothing");
}

pub async fn a_user_may_take_a_name_that_was_given_up(store: Arc<dyn IdentityStore>) {
    store.put_user(&user(1)).await.unwrap();
    let mut renamed = user(1);
    renamed.email = "elsewhere@example.com".to_owned();
    renamed.username = "elsewhere".to_owned();
    store.put_user(&renamed).await.unwrap();
    let mut successor = user(2);
    successor.email = user(1).email;
    successor.username = user(1).username;
    store.put_user(&successor).await.unwrap();
    assert_eq!(store.user(&UserKey::Username("user1".to_owned())).await.unwrap(), Some(successor));
}

pub async fn a_keypair_without_user_is_not_found(store: Arc<dyn IdentityStore>) {
    store.put_policy(&policy("default")).await.unwrap();
    assert_eq!(store.put_keypair(&keypair(1)).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.directory().await.unwrap().keypairs, []);
}

pub async fn a_credential_has_keypair_owner_and_policy(store: Arc<dyn IdentityStore>) {
    with_keypair(&*store, 1).await;
    with_keypair(&*store, 2).await;
    store.put_policy(&policy("other")).await.unwrap();
    let found = store.credential(&keypair(2).access_key).await.unwrap();
    assert_eq!(found, Some(Credential { keypair: keypair(2), user: user(2), policy: policy("default") }));
}

pub async fn an_inactive_keypair_is_returned(store: Arc<dyn IdentityStore>) {
    with_keypair(&*store, 1).await;
    let mut inactive = keypair(1);
    inactive.is_active = false;
    store.put_keypair(&inactive).await.unwrap();
    assert_eq!(store.credential(&inactive.access_key).await.unwrap().unwrap().keypair, inactive);
}

pub async fn an_unknown_access_key_has_no_credential(store: Arc<dyn IdentityStore>) {
    with_keypair(&*store, 1).await;
    for unknown in ["AKIA2", "akia1", ""] {
        assert_eq!(store.credential(&AccessKey::new(unknown)).await.unwrap(), None);
    }
}

pub async fn a_rotated_secret_is_the_new_one(store: Arc<dyn IdentityStore>) {
    with_keypair(&*store, 1).await;
    let mut rotated = keypair(1);
    rotated.secret_key = Secret::new("another secret, longer than the first, with ünïcode".to_owned());
    store.put_keypair(&rotated).await.unwrap();
    let found = store.credential(&rotated.access_key).await.unwrap().unwrap();
    assert_eq!(found.keypair.secret_key.reveal(), rotated.secret_key.reveal());
}
