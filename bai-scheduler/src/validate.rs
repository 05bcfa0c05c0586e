//! The checks a session passes before an agent is looked for (spec scheduler.md, section 8). All of them run and all
//! failures are told; their names and texts are what clients show.
//!
//! | name | passes when |
//! |---|---|
//! | `reserved_time` | the start time has come |
//! | `dependencies` | all sessions it depends on have succeeded |
//! | `concurrency` | the keypair may have one more session |
//! | `keypair_resource_limit`, `user_resource_limit`, `user_group_resource_limit`, `domain_resource_limit` | usage and request together are within the limit |
//! | `session_type` | the group takes sessions of this type |
//! | `architecture` | kernels that share an agent are of one architecture |
//! | `image_limits` | each kernel asks for what its image needs, and not for more than it takes |
//!
//! Private sessions are not held to limits on amounts, only to their own number. A check of one's own is a [`Validator`].

use std::fmt;

use bai_core::slots::Amount;
use bai_core::status::SessionType;
use bai_core::{SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::accounts::{Account, AccountNo, Accounts};
use crate::model::{Dependency, DependencyState, Holder};
use crate::options::Options;
use crate::queue::Extras;
use crate::request::Request;
use crate::slots::SlotTable;

/// A check of one's own. It runs in every pass for every session that passes the built-in checks, so it should be quick;
/// a session that it refuses does not hold up the others.
pub trait Validator: fmt::Debug + Send + Sync {
    /// Name, as clients show it.
    fn name(&self) -> &str;

    /// Whether the session may start now.
    ///
    /// # Errors
    /// The reason in words when it may not.
    fn check(&self, session: &Candidate<'_>) -> Result<(), String>;
}

/// A session that might start now, as a validator sees it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Identity.
    pub id: SessionId,
    /// Its priority.
    pub priority: i32,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// Now.
    pub now: Timestamp,
    pub(crate) request: &'a Request,
    pub(crate) accounts: [&'a Account; 4],
    pub(crate) table: &'a SlotTable,
}

impl Candidate<'_> {
    /// Its type.
    pub fn session_type(&self) -> SessionType {
        self.request.session_type()
    }

    /// Whether it is a helper session of the system.
    pub fn private(&self) -> bool {
        self.request.private()
    }

    /// How many kernels it has.
    pub fn kernels(&self) -> usize {
        self.request.kernels.len()
    }

    /// What all its kernels ask for of a slot.
    pub fn requested(&self, slot: &str) -> Amount {
        let slot = self.table.find(slot);
        slot.map_or(Amount::ZERO, |slot| self.table.amount(slot, self.request.total.of(slot)))
    }

    /// Its keypair, user, project and domain.
    pub fn holders(&self) -> [&Holder; 4] {
        self.accounts.map(|account| &account.holder)
    }

    /// What each of [`Candidate::holders`] uses of a slot, in all resource groups.
    pub fn used(&self, slot: &str) -> [Amount; 4] {
        let slot = self.table.find(slot);
        self.accounts
            .map(|account| slot.map_or(Amount::ZERO, |slot| self.table.amount(slot, account.used_of(slot))))
    }
}

/// A check that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the check.
    pub name: String,
    /// Why, in words.
    pub message: String,
}

/// What came of all checks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcomes {
    pub(crate) passed: Vec<String>,
    pub(crate) failed: Vec<Failure>,
}

impl Outcomes {
    fn add(&mut self, name: &str, failure: Option<String>) {
        match failure {
            Some(message) => self.failed.push(Failure { name: name.to_owned(), message }),
            None => self.passed.push(name.to_owned()),
        }
    }
}

/// What the checks look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checks<'a> {
    pub(crate) accounts: &'a Accounts,
    pub(crate) table: &'a SlotTable,
    pub(crate) options: &'a Options,
    pub(crate) now: i64,
}

impl<'a> Checks<'a> {
    /// The first limit that a request of an owner exceeds; the quick form.
    pub(crate) fn exceeded(&self, owner: u32, request: &Request) -> Option<AccountNo> {
        let accounts = self.accounts.owner(owner);
        let keypair = self.accounts.get(accounts.keypair);
        if too_many(keypair, request.private()).is_some() {
            return Some(accounts.keypair);
        }
        if request.private() {
            return None;
        }
        let exceeds = |number: &AccountNo| self.accounts.get(*number).first_excess(&request.total).is_some();
        accounts.limited().into_iter().find(exceeds)
    }

    /// Whether anything is wrong with the request itself, whoever asks and whenever.
    pub(crate) fn flawed(&self, request: &Request) -> bool {
        !request.flaws.is_empty() || self.wrong_type(request).is_some()
    }

    fn wrong_type(&self, request: &Request) -> Option<String> {
        let kind = request.session_type();
        let taken = request.private() || self.options.allowed_types.contains(&kind);
        (!taken).then(|| format!("The resource group does not take {kind} sessions"))
    }

    /// Every check, in words.
    pub(crate) fn all(
        &self,
        candidate: &Candidate<'a>,
        owner: u32,
        request: &Request,
        extras: Option<&Extras>,
    ) -> Outcomes {
        let mut outcomes = Outcomes::default();
        let early = extras.and_then(|extras| extras.starts_at).is_some_and(|start| self.now < start);
        outcomes.add("reserved_time", early.then(|| "Before start time".to_owned()));
        outcomes.add("dependencies", extras.and_then(|extras| waiting(&extras.dependencies)));
        let accounts = self.accounts.owner(owner);
        outcomes.add("concurrency", too_many(self.accounts.get(accounts.keypair), request.private()));
        for number in accounts.limited() {
            let account = self.accounts.get(number);
            let excess = if request.private() { None } else { self.excess(account, request) };
            outcomes.add(account.holder.check_name(), excess);
        }
        outcomes.add("session_type", self.wrong_type(request));
        for name in ["architecture", "image_limits"] {
            let flaws: Vec<_> = request.flaws.iter().filter(|(check, _)| *check == name).collect();
            let message = flaws.iter().map(|(_, message)| message.as_str()).collect::<Vec<_>>().join("; ");
            outcomes.add(name, (!flaws.is_empty()).then_some(message));
        }
        for validator in &self.options.validators {
            outcomes.add(validator.name(), validator.check(candidate).err());
        }
        outcomes
    }

    fn excess(&self, account: &Account, request: &Request) -> Option<String> {
        let (slot, asked) = account.first_excess(&request.total)?;
        let text = |units| self.table.text(slot, units);
        Some(format!(
            "Your {} resource quota is exceeded. ({}: {} asked, {} in use, limit {})",
            account.holder.title(),
            self.table.name(slot),
            text(asked),
            text(account.used_of(slot)),
            text(account.limit_of(slot)),
        ))
    }
}

fn too_many(keypair: &Account, private: bool) -> Option<String> {
    let most = keypair.max_sessions(private);
    let full = most > 0 && keypair.sessions(private) >= most;
    let kind = if private { "concurrent SFTP sessions" } else { "concurrent sessions" };
    full.then(|| format!("You cannot run more than {most} {kind}"))
}

fn waiting(dependencies: &[Dependency]) -> Option<String> {
    let list = |state: DependencyState| {
        let named = dependencies.iter().filter(|dependency| dependency.state == state);
        named
            .map(|dependency| format!("{} ({})", dependency.name, dependency.id))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let failed = list(DependencyState::Failed);
    if !failed.is_empty() {
        return Some(format!("Dependency sessions have failed. ({failed})"));
    }
    let waiting = list(DependencyState::Waiting);
    (!waiting.is_empty()).then(|| format!("Waiting dependency sessions to finish as success. ({waiting})"))
}
