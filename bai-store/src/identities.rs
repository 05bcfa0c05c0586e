//! Domains, projects, users, keypairs, policies and resource groups.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bai_core::error::{Error, ErrorKind, Result, code};
use bai_core::identity::{Credential, Domain, Keypair, KeypairPolicy, Project, ResourceGroup, User};
use bai_core::port::IdentityStore;
use bai_core::port::store::{Directory, UserKey};
use bai_core::{AccessKey, ProjectId, Secret, UserId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::convert::{corrupt, from_doc, to_doc};
use crate::db::{Outcome, Row, args};
use crate::dialect::{Sql, statements};
use crate::store::Store;

statements! {
    PUT_DOMAIN = "INSERT INTO domains (name, doc) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET doc = excluded.doc";
    PUT_POLICY = "INSERT INTO policies (name, doc) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET doc = excluded.doc";
    PUT_GROUP = "INSERT INTO resource_groups (name, doc) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET doc = excluded.doc";
    PUT_PROJECT = "INSERT INTO projects (id, doc) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc";
    CLEAR_MEMBERS = "DELETE FROM memberships WHERE project_id = $1";
    ADD_MEMBER = "INSERT INTO memberships (project_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    PUT_USER = "INSERT INTO users (id, email, username, full_name, doc) VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (id) DO UPDATE SET email = excluded.email, username = excluded.username,
                full_name = excluded.full_name, doc = excluded.doc";
    PUT_KEYPAIR = "INSERT INTO keypairs (access_key, user_id, policy, sealed_secret, doc) VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT (access_key) DO UPDATE SET user_id = excluded.user_id, policy = excluded.policy,
                   sealed_secret = excluded.sealed_secret, doc = excluded.doc";
    CREDENTIAL = "SELECT k.access_key, k.sealed_secret, k.doc, u.doc, p.doc FROM keypairs k
                  LEFT JOIN users u ON u.id = k.user_id LEFT JOIN policies p ON p.name = k.policy
                  WHERE k.access_key = $1";
    USER_BY_ID = "SELECT id, doc FROM users WHERE id = $1";
    USER_BY_EMAIL = "SELECT id, doc FROM users WHERE email = $1";
    USER_BY_NAME = "SELECT id, doc FROM users WHERE username = $1";
    DOMAINS = "SELECT name, doc FROM domains";
    POLICIES = "SELECT name, doc FROM policies";
    GROUPS = "SELECT name, doc FROM resource_groups";
    PROJECTS = "SELECT id, doc FROM projects ORDER BY id";
    MEMBERS = "SELECT project_id, user_id FROM memberships ORDER BY project_id, user_id";
    USERS = "SELECT id, doc FROM users ORDER BY id";
    KEYPAIRS = "SELECT access_key, sealed_secret, doc FROM keypairs ORDER BY access_key";
}

#[async_trait]
impl IdentityStore for Store {
    async fn put_domain(&self, row: &Domain) -> Result<()> {
        self.put_named(PUT_DOMAIN, &row.name, row).await
    }

    async fn put_project(&self, row: &Project, members: &[UserId]) -> Result<()> {
        let id = row.id.to_string();
        let mut tx = self.db().begin().await?;
        tx.execute(PUT_PROJECT, &args![&id, to_doc(row)?]).await?;
        tx.execute(CLEAR_MEMBERS, &args![&id]).await?;
        for member in members {
            tx.execute(ADD_MEMBER, &args![&id, member.to_string()]).await?;
        }
        tx.commit().await
    }

    async fn put_user(&self, row: &User) -> Result<()> {
        let args = args![row.id.to_string(), &row.email, &row.username, &row.full_name, to_doc(row)?];
        match self.db().try_execute(PUT_USER, &args).await? {
            Outcome::Done(_) => Ok(()),
            Outcome::Duplicate => {
                Err(Error::new(ErrorKind::AlreadyExists, "email or user name belong to another user")
                    .with("email", &row.email)
                    .with("username", &row.username))
            }
            Outcome::Dangling => Err(corrupt("user", &row.email)),
        }
    }

    async fn put_keypair(&self, row: &Keypair) -> Result<()> {
        let access_key = row.access_key.as_str();
        let sealed = self.0.cipher.seal(access_key, row.secret_key.reveal())?;
        let doc = to_doc(&Keypair { secret_key: Secret::new(String::new()), ..row.clone() })?;
        let args = args![access_key, row.user_id.to_string(), &row.resource_policy, &sealed, doc];
        match self.db().try_execute(PUT_KEYPAIR, &args).await? {
            Outcome::Done(_) => Ok(()),
            Outcome::Dangling => {
                Err(Error::new(ErrorKind::NotFound, "no such user").with("user", row.user_id))
            }
            Outcome::Duplicate => Err(corrupt("keypair", access_key)),
        }
    }

    async fn put_policy(&self, row: &KeypairPolicy) -> Result<()> {
        self.put_named(PUT_POLICY, &row.name, row).await
    }

    async fn put_resource_group(&self, row: &ResourceGroup) -> Result<()> {
        self.put_named(PUT_GROUP, &row.name, row).await
    }

    async fn credential(&self, access_key: &AccessKey) -> Result<Option<Credential>> {
        let row = self.db().row(CREDENTIAL, &args![access_key.as_str()]).await?;
        row.map(|row| self.read_credential(&row)).transpose()
    }

    async fn user(&self, key: &UserKey) -> Result<Option<User>> {
        let row = match key {
            UserKey::Id(id) => self.db().row(USER_BY_ID, &args![id.to_string()]).await?,
            UserKey::Email(email) => self.db().row(USER_BY_EMAIL, &args![email]).await?,
            UserKey::Username(name) => self.db().row(USER_BY_NAME, &args![name]).await?,
        };
        row.map(|row| from_doc(&row.text(1)?, "user", &row.text(0)?)).transpose()
    }

    async fn directory(&self) -> Result<Directory> {
        let keypairs = self.db().rows(KEYPAIRS, &[]).await?;
        Ok(Directory {
            domains: self.named(DOMAINS, "domain").await?.into_iter().collect(),
            projects: self.projects().await?,
            policies: self.named(POLICIES, "policy").await?.into_iter().collect(),
            resource_groups: self.named(GROUPS, "resource group").await?.into_iter().collect(),
            users: self.named(USERS, "user").await?.into_iter().map(|(_, user)| user).collect(),
            keypairs: keypairs.iter().map(|row| self.read_keypair(row)).collect::<Result<_>>()?,
        })
    }
}

impl Store {
    async fn put_named(&self, sql: Sql, name: &str, row: &impl Serialize) -> Result<()> {
        let doc = to_doc(row)?;
        self.db().execute(sql, &args![name, doc]).await?;
        Ok(())
    }

    /// Rows with the key they are stored under.
    async fn named<T: DeserializeOwned>(&self, sql: Sql, what: &'static str) -> Result<Vec<(String, T)>> {
        let rows = self.db().rows(sql, &[]).await?;
        rows.iter()
            .map(|row| {
                let key = row.text(0)?;
                let value = from_doc(&row.text(1)?, what, &key)?;
                Ok((key, value))
            })
            .collect()
    }

    async fn projects(&self) -> Result<Vec<(Project, Vec<UserId>)>> {
        let mut members = BTreeMap::<ProjectId, Vec<UserId>>::new();
        for row in self.db().rows(MEMBERS, &[]).await? {
            let (project, user) = (row.text(0)?, row.text(1)?);
            let ids = project.parse().and_then(|project| Ok((project, user.parse()?)));
            let (project, user) = ids.map_err(|error| corrupt("membership", &project).source(error))?;
            members.entry(project).or_default().push(user);
        }
        let projects = self.named::<Project>(PROJECTS, "project").await?;
        Ok((projects.into_iter())
            .map(|(_, project)| {
                let members = members.remove(&project.id).unwrap_or_default();
                (project, members)
            })
            .collect())
    }

    /// From the columns access key, sealed secret and document.
    fn read_keypair(&self, row: &Row) -> Result<Keypair> {
        let access_key = row.text(0)?;
        let mut keypair: Keypair = from_doc(&row.text(2)?, "keypair", &access_key)?;
        keypair.secret_key = Secret::new(self.0.cipher.open(&access_key, &row.bytes(1)?)?);
        Ok(keypair)
    }

    fn read_credential(&self, row: &Row) -> Result<Credential> {
        let keypair = self.read_keypair(row)?;
        let missing = |what: &'static str| {
            Error::of(code::STORE_CORRUPT, "the keypair refers to a missing row")
                .with("access_key", &keypair.access_key)
                .with("missing", what)
        };
        let user = row.opt_text(3)?.ok_or_else(|| missing("user"))?;
        let policy = row.opt_text(4)?.ok_or_else(|| missing("policy"))?;
        let user = from_doc(&user, "user", keypair.access_key.as_str())?;
        let policy = from_doc(&policy, "policy", &keypair.resource_policy)?;
        Ok(Credential { keypair, user, policy })
    }
}
