//! Rows of domains, projects, users, keypairs, policies and resource groups.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result, code};
use crate::id::{AccessKey, ProjectId, UserId};
use crate::identity::{Credential, Domain, Keypair, KeypairPolicy, Project, ResourceGroup, User};
use crate::port::store::{Directory, UserKey};

#[derive(Debug, Default)]
pub(super) struct Identities {
    domains: BTreeMap<String, Domain>,
    projects: BTreeMap<ProjectId, (Project, Vec<UserId>)>,
    users: BTreeMap<UserId, User>,
    keypairs: BTreeMap<AccessKey, Keypair>,
    policies: BTreeMap<String, KeypairPolicy>,
    resource_groups: BTreeMap<String, ResourceGroup>,
}

impl Identities {
    pub(super) fn put_domain(&mut self, row: &Domain) {
        self.domains.insert(row.name.clone(), row.clone());
    }

    pub(super) fn put_project(&mut self, row: &Project, members: &[UserId]) {
        let mut members = members.to_vec();
        members.sort_unstable();
        members.dedup();
        self.projects.insert(row.id, (row.clone(), members));
    }

    pub(super) fn put_user(&mut self, row: &User) -> Result<()> {
        let mut others = self.users.values().filter(|user| user.id != row.id);
        if let Some(other) = others.find(|user| user.email == row.email || user.username == row.username) {
            return Err(Error::new(ErrorKind::AlreadyExists, "email or user name belong to another user")
                .with("email", &row.email)
                .with("username", &row.username)
                .with("user", other.id));
        }
        self.users.insert(row.id, row.clone());
        Ok(())
    }

    pub(super) fn put_keypair(&mut self, row: &Keypair) -> Result<()> {
        if !self.users.contains_key(&row.user_id) {
            return Err(Error::new(ErrorKind::NotFound, "no such user").with("user", row.user_id));
        }
        self.keypairs.insert(row.access_key.clone(), row.clone());
        Ok(())
    }

    pub(super) fn put_policy(&mut self, row: &KeypairPolicy) {
        self.policies.insert(row.name.clone(), row.clone());
    }

    pub(super) fn put_resource_group(&mut self, row: &ResourceGroup) {
        self.resource_groups.insert(row.name.clone(), row.clone());
    }

    pub(super) fn credential(&self, access_key: &AccessKey) -> Result<Option<Credential>> {
        let Some(keypair) = self.keypairs.get(access_key) else { return Ok(None) };
        let missing = |what: &'static str| {
            Error::of(code::STORE_CORRUPT, "the keypair refers to a missing row")
                .with("access_key", access_key)
                .with("missing", what)
        };
        let user = self.users.get(&keypair.user_id).ok_or_else(|| missing("user"))?;
        let policy = self.policies.get(&keypair.resource_policy).ok_or_else(|| missing("policy"))?;
        Ok(Some(Credential { keypair: keypair.clone(), user: user.clone(), policy: policy.clone() }))
    }

    pub(super) fn user(&self, key: &UserKey) -> Option<&User> {
        match key {
            UserKey::Id(id) => self.users.get(id),
            UserKey::Email(email) => self.users.values().find(|user| user.email == *email),
            UserKey::Username(name) => self.users.values().find(|user| user.username == *name),
        }
    }

    pub(super) fn full_name(&self, id: UserId) -> Option<&str> {
        self.users.get(&id).map(|user| user.full_name.as_str())
    }

    pub(super) fn directory(&self) -> Directory {
        Directory {
            domains: self.domains.clone(),
            projects: self.projects.values().cloned().collect(),
            policies: self.policies.clone(),
            resource_groups: self.resource_groups.clone(),
            users: self.users.values().cloned().collect(),
            keypairs: self.keypairs.values().cloned().collect(),
        }
    }
}
