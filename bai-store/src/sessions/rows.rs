//! Writing the rows of sessions: themselves, their kernels, their events.

#[cfg(feature = "postgres")]
use std::collections::HashSet;

use bai_core::error::Result;
use bai_core::memory::store::fields;
use bai_core::port::store::SessionEvent;
use bai_core::session::{Kernel, Session};
use serde::Serialize;

use crate::convert::{corrupt, micros, plain, to_doc};
#[cfg(feature = "sqlite")]
use crate::db::Arg;
use crate::db::{Outcome, Tx, args};
use crate::dialect::{ADD_EVENTS, Dialect, INSERT_SESSIONS, PUT_KERNELS, REPLACE_SESSIONS, statements};

statements! {
    DROP_KERNELS = "DELETE FROM kernels WHERE session_id = $1 AND place >= $2";
}

/// The columns of a session.
#[derive(Debug, Serialize)]
pub(super) struct SessionColumns {
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

#[derive(Debug, Serialize)]
struct KernelColumns {
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
    place: usize,
    session_id: String,
    at: i64,
    doc: String,
}

impl SessionColumns {
    pub(super) fn of(session: &Session) -> Result<Self> {
        let owner = &session.owner;
        let images: Vec<_> = session.kernels.iter().map(|kernel| kernel.image.as_str()).collect();
        let agents: Vec<_> = fields::agents(session).collect();
        Ok(Self {
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

    /// As arguments of one statement, in the order of the columns.
    #[cfg(feature = "sqlite")]
    pub(super) fn args(&self) -> [Arg<'_>; 26] {
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

/// Inserts sessions. The place of the first that is refused, because its id or the name of a living session is taken.
pub(super) async fn insert_sessions(tx: &mut Tx, sessions: &[SessionColumns]) -> Result<Option<usize>> {
    match tx.dialect() {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            for (place, session) in sessions.iter().enumerate() {
                if tx.row(INSERT_SESSIONS, &session.args()).await?.is_none() {
                    return Ok(Some(place));
                }
            }
            Ok(None)
        }
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            let rows = tx.rows(INSERT_SESSIONS, &args![to_doc(&sessions)?]).await?;
            let mut inserted = rows.iter().map(|row| row.text(0)).collect::<Result<HashSet<_>>>()?;
            Ok(sessions.iter().position(|session| !inserted.remove(&session.id)))
        }
    }
}

/// Replaces sessions, each at the version it was read at. How many rows there were, or the constraint that one broke.
pub(super) async fn replace(tx: &mut Tx, sessions: &[SessionColumns]) -> Result<Outcome> {
    match tx.dialect() {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            let mut replaced = 0;
            for session in sessions {
                match tx.try_execute(REPLACE_SESSIONS, &session.args()).await? {
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
    fn of(session: &Session, place: i64, kernel: &Kernel) -> Result<Self> {
        Ok(Self {
            session_id: session.id.to_string(),
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

/// Kernels and events of different sessions, to be written together.
#[derive(Debug, Default)]
pub(super) struct Writes {
    kernels: Vec<KernelColumns>,
    /// Sessions that have fewer kernels than before, with the first place that is gone.
    shrunk: Vec<(String, i64)>,
    events: Vec<EventColumns>,
}

impl Writes {
    /// Adds what belongs to a session; `before` is how many kernels it had.
    pub(super) fn add(&mut self, session: &Session, before: i64, events: &[SessionEvent]) -> Result<()> {
        for (place, kernel) in (0..).zip(&session.kernels) {
            self.kernels.push(KernelColumns::of(session, place, kernel)?);
        }
        if before > kernel_count(session) {
            self.shrunk.push((session.id.to_string(), kernel_count(session)));
        }
        for event in events {
            let place = self.events.len();
            let (session_id, at) = (session.id.to_string(), micros(event.at));
            self.events.push(EventColumns { place, session_id, at, doc: to_doc(event)? });
        }
        Ok(())
    }

    /// Writes everything, and returns the numbers of the events in the order they were added.
    pub(super) async fn flush(&mut self, tx: &mut Tx) -> Result<Vec<i64>> {
        let Self { kernels, shrunk, events } = std::mem::take(self);
        if !kernels.is_empty() {
            tx.execute(PUT_KERNELS, &args![to_doc(&kernels)?]).await?;
        }
        for (session, gone_from) in shrunk {
            tx.execute(DROP_KERNELS, &args![session, gone_from]).await?;
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let rows = tx.rows(ADD_EVENTS, &args![to_doc(&events)?]).await?;
        let mut seqs: Vec<_> = rows.iter().map(|row| row.int(0)).collect::<Result<_>>()?;
        if seqs.len() != events.len() {
            return Err(corrupt("session event", "new"));
        }
        seqs.sort_unstable(); // rows are returned in any order, but numbered in ours
        Ok(seqs)
    }
}
