//! Writing the rows of sessions: themselves, their kernels, their events.

#[cfg(feature = "postgres")]
use std::collections::HashSet;

use bai_core::Timestamp;
use bai_core::error::Result;
use bai_core::memory::store::{fields, rules};
use bai_core::port::store::{Committed, SessionChange};
use bai_core::session::{Kernel, Session};
use serde::Serialize;

use crate::convert::{corrupt, micros, plain, to_doc};
#[cfg(feature = "sqlite")]
use crate::db::Arg;
use crate::db::{Outcome, Tx, args};
use crate::dialect::{ADD_EVENTS, Dialect, INSERT_SESSIONS, PUT_KERNELS, REPLACE_SESSIONS, statements};
#[cfg(feature = "sqlite")]
use crate::dialect::{QUEUE_EVENTS, REPLACE_KERNEL, REPLACE_UNINDEXED};

statements! {
    DROP_KERNELS = "DELETE FROM kernels WHERE session_id = $1 AND place >= $2";
}

/// A change as rows. Put together before the transaction begins: others would wait meanwhile.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What is answered: the session at its new version, and events whose numbers are not known yet.
    pub(super) committed: Committed,
    pub(super) guard_capacity: bool,
    pub(super) columns: SessionColumns,
    kernels: Vec<KernelColumns>,
    events: Vec<EventColumns>,
}

/// The columns of a session.
#[derive(Debug, Serialize)]
pub(super) struct SessionColumns {
    /// Whether it replaces a row from which nothing differs that an index has.
    #[serde(skip)]
    pub(super) keeps_indexes: bool,
    pub(super) id: String,
    pub(super) version: i64,
    pub(super) access_key: String,
    pub(super) name: String,
    pub(super) living: bool,
    pub(super) user_id: String,
    pub(super) user_email: String,
    pub(super) domain: String,
    pub(super) project_id: String,
    pub(super) project: String,
    pub(super) resource_group: String,
    pub(super) session_type: &'static str,
    pub(super) cluster_mode: &'static str,
    pub(super) cluster_size: i64,
    pub(super) status: &'static str,
    pub(super) status_info: Option<String>,
    pub(super) result: &'static str,
    pub(super) startup_command: Option<String>,
    pub(super) created_at: i64,
    pub(super) starts_at: Option<i64>,
    pub(super) terminated_at: Option<i64>,
    pub(super) scheduled_at: Option<String>,
    pub(super) latest_at: i64,
    pub(super) image_list: String,
    pub(super) agent_list: String,
    pub(super) doc: String,
}

/// The columns of a session that indexes go by.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) access_key: String,
    pub(super) name: String,
    pub(super) living: bool,
    pub(super) latest_at: i64,
    pub(super) terminated_at: Option<i64>,
}

#[derive(Debug, Serialize)]
struct KernelColumns {
    /// Whether there is a row for it.
    #[serde(skip)]
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
    is_known: bool,
    session_id: String,
    place: i64,
    id: String,
    image: String,
    agent_id: Option<String>,
    status: &'static str,
    holds: bool,
    allocated: String,
}

#[derive(Debug, Serialize)]
struct EventColumns {
    /// Among those that are written together.
    place: usize,
    session_id: String,
    at: i64,
    doc: String,
}

impl Prepared {
    /// # Errors
    /// `Invalid` when the session has no kernel.
    pub(super) fn of(change: SessionChange, now: Timestamp) -> Result<Self> {
        let SessionChange { mut session, events, guard_capacity } = change;
        rules::require_kernels(&session)?;
        session.version += 1;
        let columns = SessionColumns::of(&session)?;
        let kernels =
            (0..).zip(&session.kernels).map(|(place, kernel)| KernelColumns::of(&columns.id, place, kernel));
        let kernels = kernels.collect::<Result<_>>()?;
        let events: Vec<_> =
            events.into_iter().map(|event| rules::session_event(&session, event, 0, now)).collect();
        let event_columns = events.iter().map(|event| {
            let (session_id, at) = (columns.id.clone(), micros(event.at));
            Ok(EventColumns { place: 0, session_id, at, doc: to_doc(event)? })
        });
        let event_columns = event_columns.collect::<Result<_>>()?;
        let committed = Committed { session, events };
        Ok(Self { committed, guard_capacity, columns, kernels, events: event_columns })
    }

    pub(super) fn session(&self) -> &Session {
        &self.committed.session
    }

    /// The version that it changes.
    pub(super) fn read_at(&self) -> i64 {
        self.columns.version - 1
    }
}

impl Keys {
    /// What no other living session may have.
    pub(super) fn claim(&self) -> Option<(&str, &str)> {
        self.living.then_some((&self.access_key, &self.name))
    }
}

impl SessionColumns {
    fn of(session: &Session) -> Result<Self> {
        let owner = &session.owner;
        let images: Vec<_> = session.kernels.iter().map(|kernel| kernel.image.as_str()).collect();
        let agents: Vec<_> = fields::agents(session).collect();
        Ok(Self {
            keeps_indexes: false,
            id: session.id.to_string(),
            version: session.version,
            access_key: text(owner.access_key.as_str()),
            name: text(&session.name),
            living: !session.status.is_dead(),
            user_id: owner.user_id.to_string(),
            user_email: text(&owner.email),
            domain: text(&owner.domain),
            project_id: owner.project_id.to_string(),
            project: text(&owner.project),
            resource_group: text(&session.resource_group),
            session_type: fields::type_name(session.session_type),
            cluster_mode: fields::cluster_mode_name(session.cluster_mode),
            cluster_size: kernel_count(session),
            status: session.status.as_str(),
            status_info: session.status_info.as_deref().map(text),
            result: session.result.as_str(),
            startup_command: session.spec.startup_command.as_deref().map(text),
            created_at: micros(session.created_at),
            starts_at: session.starts_at.map(micros),
            terminated_at: session.terminated_at.map(micros),
            scheduled_at: fields::scheduled_at(session),
            latest_at: micros(fields::latest(session)),
            image_list: joined(&images),
            agent_list: joined(&agents),
            doc: to_doc(session)?,
        })
    }

    /// What indexes go by.
    pub(super) fn keys(&self) -> Keys {
        Keys {
            access_key: self.access_key.clone(),
            name: self.name.clone(),
            living: self.living,
            latest_at: self.latest_at,
            terminated_at: self.terminated_at,
        }
    }

    /// As arguments of one statement, in the order of the columns.
    #[cfg(feature = "sqlite")]
    fn args(&self) -> [Arg<'_>; 26] {
        args![
            &self.id,
            self.version,
            &self.access_key,
            &self.name,
            self.living,
            &self.user_id,
            &self.user_email,
            &self.domain,
            &self.project_id,
            &self.project,
            &self.resource_group,
            self.session_type,
            self.cluster_mode,
            self.cluster_size,
            self.status,
            self.status_info.as_deref(),
            self.result,
            self.startup_command.as_deref(),
            self.created_at,
            self.starts_at,
            self.terminated_at,
            self.scheduled_at.as_deref(),
            self.latest_at,
            &self.image_list,
            &self.agent_list,
            &self.doc,
        ]
    }
}

/// Inserts sessions. Which of them are in: the others are refused, because an id or the name of a living session is taken.
pub(super) async fn insert_sessions(tx: &mut Tx, sessions: &[&SessionColumns]) -> Result<Vec<bool>> {
    match tx.dialect() {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            let mut inserted = Vec::with_capacity(sessions.len());
            for session in sessions {
                inserted.push(tx.row(INSERT_SESSIONS, &session.args()).await?.is_some());
            }
            Ok(inserted)
        }
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            let rows = tx.rows(INSERT_SESSIONS, &args![to_doc(&sessions)?]).await?;
            let mut inserted = rows.iter().map(|row| row.text(0)).collect::<Result<HashSet<_>>>()?;
            Ok(sessions.iter().map(|session| inserted.remove(&session.id)).collect())
        }
    }
}

/// Replaces sessions, each at the version before its own. How many rows there were, or the constraint that one broke.
pub(super) async fn replace(tx: &mut Tx, sessions: &[SessionColumns]) -> Result<Outcome> {
    match tx.dialect() {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            let mut replaced = 0;
            for session in sessions {
                let sql = if session.keeps_indexes { REPLACE_UNINDEXED } else { REPLACE_SESSIONS };
                match tx.try_execute(sql, &session.args()).await? {
                    Outcome::Done(rows) => replaced += rows,
                    broken => return Ok(broken),
                }
            }
            Ok(Outcome::Done(replaced))
        }
        #[cfg(feature = "postgres")]
        Dialect::Postgres => tx.try_execute(REPLACE_SESSIONS, &args![to_doc(&sessions)?]).await,
    }
}

fn text(text: &str) -> String {
    plain(text).into_owned()
}

/// In the order that lists have: by the first, then the second, …
fn joined(texts: &[&str]) -> String {
    text(&texts.join("\u{1}"))
}

impl KernelColumns {
    fn of(session_id: &str, place: i64, kernel: &Kernel) -> Result<Self> {
        Ok(Self {
            is_known: false,
            session_id: session_id.to_owned(),
            place,
            id: kernel.id.to_string(),
            image: text(&kernel.image),
            agent_id: kernel.agent.as_ref().map(|agent| text(agent.as_str())),
            status: kernel.status.as_str(),
            holds: !kernel.allocated.is_zero(),
            allocated: to_doc(&kernel.allocated)?,
        })
    }

    #[cfg(feature = "sqlite")]
    fn args(&self) -> [Arg<'_>; 8] {
        args![
            &self.session_id,
            self.place,
            &self.id,
            &self.image,
            self.agent_id.as_deref(),
            self.status,
            self.holds,
            &self.allocated,
        ]
    }
}

pub(super) fn kernel_count(session: &Session) -> i64 {
    i64::try_from(session.kernels.len()).unwrap_or(i64::MAX)
}

/// Kernels and events of different sessions, to be written together.
#[derive(Debug, Default)]
pub(super) struct Writes {
    kernels: Vec<KernelColumns>,
    /// Sessions that have fewer kernels than before, with the first place that is gone.
    shrunk: Vec<(String, i64)>,
    events: Vec<EventColumns>,
}

impl Writes {
    /// Adds what belongs to a session, and returns what is answered and its own row; `before` is how many kernels it had.
    pub(super) fn add(&mut self, prepared: Prepared, before: i64) -> (Committed, SessionColumns) {
        let Prepared { committed, columns, kernels, events, .. } = prepared;
        let count = kernel_count(&committed.session);
        if before > count {
            self.shrunk.push((committed.session.id.to_string(), count));
        }
        self.kernels
            .extend(kernels.into_iter().map(|row| KernelColumns { is_known: row.place < before, ..row }));
        for event in events {
            self.events.push(EventColumns { place: self.events.len(), ..event });
        }
        (committed, columns)
    }

    /// Writes everything, and returns the numbers of the events in the order they were added.
    pub(super) async fn flush(&mut self, tx: &mut Tx) -> Result<Vec<i64>> {
        let Self { kernels, shrunk, events } = std::mem::take(self);
        if !kernels.is_empty() {
            put_kernels(tx, &kernels).await?;
        }
        for (session, gone_from) in shrunk {
            tx.execute(DROP_KERNELS, &args![session, gone_from]).await?;
        }
        if events.is_empty() { Ok(Vec::new()) } else { add_events(tx, &events).await }
    }
}

async fn put_kernels(tx: &mut Tx, kernels: &[KernelColumns]) -> Result<()> {
    match tx.dialect() {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            for kernel in kernels {
                let args = kernel.args();
                if !kernel.is_known || tx.execute(REPLACE_KERNEL, &args).await? == 0 {
                    tx.execute(PUT_KERNELS, &args).await?;
                }
            }
        }
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            tx.execute(PUT_KERNELS, &args![to_doc(&kernels)?]).await?;
        }
    }
    Ok(())
}

async fn add_events(tx: &mut Tx, events: &[EventColumns]) -> Result<Vec<i64>> {
    let rows = match tx.dialect() {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            let mut rows = Vec::with_capacity(events.len());
            for event in events {
                rows.extend(tx.row(ADD_EVENTS, &args![&event.session_id, event.at, &event.doc]).await?);
            }
            if let Some(first) = rows.first() {
                tx.execute(QUEUE_EVENTS, &args![first.int(0)?]).await?;
            }
            rows
        }
        #[cfg(feature = "postgres")]
        Dialect::Postgres => tx.rows(ADD_EVENTS, &args![to_doc(&events)?]).await?,
    };
    let mut seqs: Vec<_> = rows.iter().map(|row| row.int(0)).collect::<Result<_>>()?;
    if seqs.len() != events.len() {
        return Err(corrupt("session event", "new"));
    }
    seqs.sort_unstable(); // rows are returned in any order, but numbered in ours
    Ok(seqs)
}
