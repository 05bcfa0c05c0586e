//! Writing the rows of a session: itself, its kernels, its events.

use bai_core::error::Result;
use bai_core::memory::store::{fields, rules};
use bai_core::port::store::{NewEvent, SessionEvent};
use bai_core::{Session, Timestamp};

use crate::convert::{corrupt, micros, plain, to_doc};
use crate::db::{Arg, Tx, args};
use crate::dialect::statements;

statements! {
    PUT_KERNEL = "INSERT INTO kernels (session_id, place, id, image, agent_id, status, holds, allocated)
                  VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                  ON CONFLICT (session_id, place) DO UPDATE SET id = excluded.id, image = excluded.image,
                  agent_id = excluded.agent_id, status = excluded.status, holds = excluded.holds,
                  allocated = excluded.allocated";
    DROP_KERNELS = "DELETE FROM kernels WHERE session_id = $1 AND place >= $2";
    ADD_EVENT = "INSERT INTO session_events (session_id, at, published, doc) VALUES ($1, $2, FALSE, $3) RETURNING seq";
}

/// The columns of a session, its document aside, in the order of the statements that insert and replace it.
pub(super) fn columns(session: &Session) -> [Arg<'_>; 25] {
    let owner = &session.owner;
    let join =
        |texts: &mut dyn Iterator<Item = &str>| plain(&texts.collect::<Vec<_>>().join("\u{1}")).into_owned();
    args![
        session.id.to_string(),
        session.version,
        plain(owner.access_key.as_str()),
        plain(&session.name),
        !session.status.is_dead(),
        owner.user_id.to_string(),
        plain(&owner.email),
        plain(&owner.domain),
        owner.project_id.to_string(),
        plain(&owner.project),
        plain(&session.resource_group),
        fields::type_name(session.session_type),
        fields::cluster_mode_name(session.cluster_mode),
        kernel_count(session),
        session.status.as_str(),
        session.status_info.as_deref().map(plain),
        session.result.as_str(),
        session.spec.startup_command.as_deref().map(plain),
        micros(session.created_at),
        session.starts_at.map(micros),
        session.terminated_at.map(micros),
        fields::scheduled_at(session).map(std::borrow::Cow::Owned),
        micros(fields::latest(session)),
        join(&mut session.kernels.iter().map(|kernel| kernel.image.as_str())),
        join(&mut fields::agents(session)),
    ]
}

pub(super) fn kernel_count(session: &Session) -> i64 {
    i64::try_from(session.kernels.len()).unwrap_or(i64::MAX)
}

/// Writes the kernels; `before` is how many rows there were.
pub(super) async fn put_kernels(tx: &mut Tx, session: &Session, before: i64) -> Result<()> {
    let id = session.id.to_string();
    for (place, kernel) in (0i64..).zip(&session.kernels) {
        let args = args![
            &id,
            place,
            kernel.id.to_string(),
            plain(&kernel.image),
            kernel.agent.as_ref().map(|agent| plain(agent.as_str())),
            kernel.status.as_str(),
            !kernel.allocated.is_zero(),
            to_doc(&kernel.allocated)?,
        ];
        tx.execute(PUT_KERNEL, &args).await?;
    }
    if before > kernel_count(session) {
        tx.execute(DROP_KERNELS, &args![&id, kernel_count(session)]).await?;
    }
    Ok(())
}

/// Appends the events and returns them with their numbers.
pub(super) async fn add_events(
    tx: &mut Tx,
    session: &Session,
    events: Vec<NewEvent>,
    now: Timestamp,
) -> Result<Vec<SessionEvent>> {
    let mut added = Vec::with_capacity(events.len());
    for event in events {
        let mut event = rules::session_event(session, event, 0, now);
        let args = args![session.id.to_string(), micros(now), to_doc(&event)?];
        let row = tx.row(ADD_EVENT, &args).await?.ok_or_else(|| corrupt("session event", "new"))?;
        event.seq = row.int(0)?;
        added.push(event);
    }
    Ok(added)
}
