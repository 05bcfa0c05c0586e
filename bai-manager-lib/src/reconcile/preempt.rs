//! Room that others make for a session: recorded before anybody is ended for it, so that whoever plans next goes on with it.

use std::sync::Arc;

use bai_core::{ErrorKind, Result, SessionId, SessionStatus};
use bai_scheduler::{Claim, GivenUp, Preempted};
use futures_util::future::join_all;

use super::schedule::waits_again;
use crate::manager::core::Core;
use crate::scheduling::claim;
use crate::session::failure::terminate;

/// Ends the sessions that give way to another one, once its claim is recorded. Whether there is nothing left to do.
pub(super) async fn preempt(core: &Arc<Core>, group: &str, preempted: &Preempted) -> bool {
    let id = preempted.beneficiary;
    match stake(core, id, &preempted.claim()).await {
        Ok(true) => {}
        Ok(false) => {
            waits_again(core, group, id);
            core.groups.mark(group);
            return true;
        }
        Err(error) => {
            tracing::warn!(session = %id, %error, "a claim is not recorded: nobody gives way");
            waits_again(core, group, id);
            return false;
        }
    }
    let ends = preempted.victims.iter().map(|victim| end(core, *victim, id));
    let gone = join_all(ends).await.into_iter().all(|gone| gone);
    if !gone {
        // Told of the claim again, the group names them once more.
        waits_again(core, group, id);
    }
    gone
}

/// Records a claim, unless the session has moved on or another manager has recorded one that holds. Whether it is recorded.
async fn stake(core: &Arc<Core>, beneficiary: SessionId, claim: &Claim) -> Result<bool> {
    let is_it = |recorded: &Claim| (recorded.since, &recorded.agents) == (claim.since, &claim.agents);
    let session = core
        .update(beneficiary, |session, now| {
            let holds = |recorded: &Claim| is_it(recorded) || now < recorded.expires;
            if session.status == SessionStatus::Pending
                && !claim::recorded(session).is_some_and(|old| holds(&old))
            {
                claim::record(session, claim);
            }
            Ok(())
        })
        .await?;
    let recorded = claim::recorded(&session).filter(|_| session.status == SessionStatus::Pending);
    Ok(recorded.is_some_and(|recorded| is_it(&recorded)))
}

/// Ends a session that gives way; whether it goes. One that is about to start goes when it has.
async fn end(core: &Arc<Core>, victim: SessionId, beneficiary: SessionId) -> bool {
    let result = core
        .update(victim, |session, now| match session.status {
            SessionStatus::Running | SessionStatus::RunningDegraded => terminate(session, "preempted", now),
            _ => Ok(()),
        })
        .await;
    match result {
        Ok(session) if session.status == SessionStatus::Terminating => {
            tracing::info!(session = %victim, %beneficiary, "a session gives way to another one");
            true
        }
        Ok(session) => session.status.is_dead() || session.status == SessionStatus::Pending,
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!(session = %victim, %error, "a session does not give way yet");
            false
        }
    }
}

/// Records that a claim has come to nothing. Whether there is nothing left to do.
pub(super) async fn give_up(core: &Arc<Core>, group: &str, given_up: &GivenUp) -> bool {
    let id = given_up.session;
    let result = core
        .update(id, |session, _| {
            if session.status == SessionStatus::Pending {
                claim::give_up(session, given_up);
            }
            Ok(())
        })
        .await;
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(session = %id, %error, "it is not recorded that a claim is given up");
            waits_again(core, group, id);
            false
        }
        _ => true,
    }
}
