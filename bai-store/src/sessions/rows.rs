//! Writing the rows of sessions: themselves, their kernels, their events.

use std::collections::HashSet;

use bai_core::error::{Error, Result, code};
use bai_core::memory::store::{fields, rules};
use bai_core::port::store::{Committed, SessionChange};
use bai_core::session::{Kernel, Session};
use bai_core::{SessionId, Timestamp};

#[cfg(feature = "sqlite")]
use super::session_id;
#[cfg(feature = "postgres")]
use crate::convert::from_doc;
use crate::convert::{corrupt, micros, plain, to_doc};
use crate::db::{Arg, Column, Outcome, Tx, args};
#[cfg(feature = "sqlite")]
use crate::dialect::{
    ADD_EVENT, INSERT_SESSION, PUT_KERNEL, QUEUE_EVENTS, REPLACE_KERNEL, REPLACE_UNINDEXED,
};
use crate::dialect::{Dialect, REPLACE_SESSIONS, statements};
#[cfg(feature = "postgres")]
use crate::dialect::{INSERT_ALL, REPLACE_ALL, Sql};

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
#[derive(Debug)]
pub(super) struct SessionColumns {
    /// Whether it replaces a row from which nothing differs that an index has.
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

#[derive(Debug)]
struct KernelColumns {
    /// Whether there is a row for it.
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

#[derive(Debug)]
struct EventColumns {
    session_id: String,
    at: i64,
    doc: String,
}

/// Rows as arguments in the order of their columns: those of one row, or a list per column.
macro_rules! columns {
    ($row:ident [$count:literal]: $($column:ident),* $(,)?) => {
        impl $row {
            #[cfg(feature = "sqlite")]
            fn args(&self) -> [Arg<'_>; $count] {
                [$(Column::arg(&self.$column)),*]
            }

            #[cfg(feature = "postgres")]
            fn lists<'a>(rows: impl Iterator<Item = &'a Self> + Clone) -> [Arg<'a>; $count] {
                [$(Column::list(rows.clone().map(|row| &row.$column))),*]
            }
        }
    };
}

columns! { SessionColumns [26]:
    id, version, access_key, name, living, user_id, user_email, domain, project_id, project, resource_group,
    session_type, cluster_mode, cluster_size, status, status_info, result, startup_command, created_at, starts_at,
    terminated_at, scheduled_at, latest_at, image_list, agent_list, doc,
}
columns! { KernelColumns [8]: session_id, place, id, image, agent_id, status, holds, allocated }
columns! { EventColumns [3]: session_id, at, doc }

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
            Ok(EventColumns { session_id, at, doc: to_doc(event)? })
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
}

/// Replaces a session at the version before its own. How many rows there were, or the constraint that it broke.
pub(super) async fn replace(tx: &mut Tx, session: &SessionColumns) -> Result<Outcome> {
    match tx.dialect() {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            let sql = if session.keeps_indexes { REPLACE_UNINDEXED } else { REPLACE_SESSIONS };
            tx.try_execute(sql, &session.args()).await
        }
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            tx.try_execute(REPLACE_SESSIONS, &SessionColumns::lists(std::iter::once(session))).await
        }
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
}

pub(super) fn kernel_count(session: &Session) -> i64 {
    i64::try_from(session.kernels.len()).unwrap_or(i64::MAX)
}

/// Sessions with their kernels and events, to be written together.
#[derive(Debug, Default)]
pub(super) struct Writes {
    sessions: Vec<SessionColumns>,
    kernels: Vec<KernelColumns>,
    /// Sessions that have fewer kernels than before, with the first place that is gone.
    shrunk: Vec<(String, i64)>,
    events: Vec<EventColumns>,
}

impl Writes {
    /// Adds a session that had `before` kernels, and returns what is answered.
    pub(super) fn add(&mut self, prepared: Prepared, before: i64) -> Committed {
        let (committed, columns) = self.add_rest(prepared, before);
        self.sessions.push(columns);
        committed
    }

    /// Adds what belongs to a session whose own row is written apart.
    pub(super) fn add_rest(&mut self, prepared: Prepared, before: i64) -> (Committed, SessionColumns) {
        let Prepared { committed, columns, kernels, events, .. } = prepared;
        let count = kernel_count(&committed.session);
        if before > count {
            self.shrunk.push((columns.id.clone(), count));
        }
        self.kernels
            .extend(kernels.into_iter().map(|row| KernelColumns { is_known: row.place < before, ..row }));
        self.events.extend(events);
        (committed, columns)
    }

    /// Inserts all sessions whose ids and names are free. Their ids, and the numbers of their events in the order they were added.
    pub(super) async fn insert(self, tx: &mut Tx) -> Result<(HashSet<SessionId>, Vec<i64>)> {
        match tx.dialect() {
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                let Self { sessions, mut kernels, mut events, .. } = self;
                let mut inserted = HashSet::new();
                for session in &sessions {
                    if tx.row(INSERT_SESSION, &session.args()).await?.is_some() {
                        inserted.insert(session.id.as_str());
                    }
                }
                kernels.retain(|kernel| inserted.contains(kernel.session_id.as_str()));
                events.retain(|event| inserted.contains(event.session_id.as_str()));
                let ids = inserted.into_iter().map(session_id).collect::<Result<_>>()?;
                Ok((ids, write_rest(tx, &kernels, &events).await?))
            }
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                let (ids, seqs) = write_all(tx, INSERT_ALL, &self.lists()).await?;
                Ok((ids.into_iter().collect(), seqs))
            }
        }
    }

    /// Replaces all sessions, each at the version before its own. The numbers of the events in the order they were added.
    ///
    /// # Errors
    /// `Unavailable` when a session is not there at that version.
    pub(super) async fn replace(self, tx: &mut Tx) -> Result<Vec<i64>> {
        for (session, gone_from) in &self.shrunk {
            tx.execute(DROP_KERNELS, &args![session, *gone_from]).await?;
        }
        let wanted = self.sessions.len();
        let (replaced, seqs) = match tx.dialect() {
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                let mut replaced = 0;
                for session in &self.sessions {
                    replaced += usize::from(replace(tx, session).await? == Outcome::Done(1));
                }
                (replaced, write_rest(tx, &self.kernels, &self.events).await?)
            }
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                let (ids, seqs) = write_all(tx, REPLACE_ALL, &self.lists()).await?;
                (ids.len(), seqs)
            }
        };
        if replaced == wanted {
            return Ok(seqs);
        }
        // They are locked: this takes someone who writes past us. Nothing is committed.
        Err(Error::of(code::STORE_FAILED, "sessions changed while they were locked"))
    }

    #[cfg(feature = "postgres")]
    fn lists(&self) -> Vec<Arg<'_>> {
        lists(self.sessions.iter(), self.kernels.iter(), self.events.iter())
    }
}

/// Changes as lists of the columns of their sessions, kernels and events.
#[cfg(feature = "postgres")]
pub(super) fn lists_of<'a>(changes: impl Iterator<Item = &'a Prepared> + Clone) -> Vec<Arg<'a>> {
    lists(
        changes.clone().map(|change| &change.columns),
        changes.clone().flat_map(|change| &change.kernels),
        changes.flat_map(|change| &change.events),
    )
}

#[cfg(feature = "postgres")]
fn lists<'a>(
    sessions: impl Iterator<Item = &'a SessionColumns> + Clone,
    kernels: impl Iterator<Item = &'a KernelColumns> + Clone,
    events: impl Iterator<Item = &'a EventColumns> + Clone,
) -> Vec<Arg<'a>> {
    let kernels = KernelColumns::lists(kernels).into_iter();
    SessionColumns::lists(sessions).into_iter().chain(kernels).chain(EventColumns::lists(events)).collect()
}

/// Writes everything with one statement: the ids of the sessions that it has written, and the numbers of the events.
#[cfg(feature = "postgres")]
pub(super) async fn write_all(tx: &mut Tx, sql: Sql, args: &[Arg<'_>]) -> Result<(Vec<SessionId>, Vec<i64>)> {
    let row = tx.row(sql, args).await?.ok_or_else(|| corrupt("session", "new"))?;
    Ok((from_doc(&row.text(0)?, "session", "new")?, from_doc(&row.text(1)?, "session event", "new")?))
}

/// Writes kernels and events.
#[cfg(feature = "sqlite")]
async fn write_rest(tx: &mut Tx, kernels: &[KernelColumns], events: &[EventColumns]) -> Result<Vec<i64>> {
    for kernel in kernels {
        let args = kernel.args();
        if !kernel.is_known || tx.execute(REPLACE_KERNEL, &args).await? == 0 {
            tx.execute(PUT_KERNEL, &args).await?;
        }
    }
    let mut seqs = Vec::with_capacity(events.len());
    for event in events {
        let row = tx.row(ADD_EVENT, &event.args()).await?;
        seqs.push(row.ok_or_else(|| corrupt("session event", "new"))?.int(0)?);
    }
    if let Some(first) = seqs.first() {
        tx.execute(QUEUE_EVENTS, &args![*first]).await?;
    }
    Ok(seqs)
}
