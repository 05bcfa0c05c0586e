//! The moves of the session state machine, as pure functions on the aggregate.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Kernel, Session, StatusHistory};
use crate::clock::Timestamp;
use crate::error::{Error, Result, code};
use crate::id::{AgentId, KernelId};
use crate::slots::ResourceSlots;
use crate::status::{KernelStatus, SessionStatus};

/// Life cycle reason of what the memory limit has ended.
const OUT_OF_MEMORY: &str = "out-of-memory";
/// Key of `status_data`: processes that the memory limit has killed.
const OOM_KILLS: &str = "oom_kills";

/// How a kernel ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelExit {
    /// Exit code of the kernel's first process, 128 + signal when it was killed; `None` when unknown.
    pub code: Option<i32>,
    /// Life cycle reason, such as `self-terminated`.
    pub reason: String,
    /// Whether it ended because its memory was used up, not merely some process of it earlier.
    pub oom: bool,
}

impl Session {
    /// Moves the session itself to `next` with reason `info`.
    ///
    /// # Errors
    /// `Conflict` ([`code::INVALID_TRANSITION`]) when `next` may not follow; nothing is changed then.
    pub fn advance(&mut self, next: SessionStatus, info: &str, now: Timestamp) -> Result<()> {
        if !self.status.can_become(next) {
            return Err(Error::of(code::INVALID_TRANSITION, "the session cannot make this transition")
                .with("session", self.id)
                .with("from", self.status)
                .with("to", next));
        }
        self.status = next;
        self.status_info = (!info.is_empty()).then(|| info.to_owned());
        enter(&mut self.status_history, next.as_str(), now);
        if next.is_dead() {
            self.terminated_at = Some(now);
        }
        Ok(())
    }

    /// Gives every kernel its agent and moves to `SCHEDULED`. `placement` has one agent per kernel, in order.
    ///
    /// # Errors
    /// `Conflict` when the session is not pending or the placement does not cover its kernels.
    pub fn place(&mut self, placement: &[AgentId], now: Timestamp) -> Result<()> {
        if placement.len() != self.kernels.len() {
            return Err(Error::of(code::INVALID_TRANSITION, "the placement does not cover the kernels")
                .with("session", self.id));
        }
        self.advance(SessionStatus::Scheduled, "scheduled", now)?;
        for (kernel, agent) in self.kernels.iter_mut().zip(placement) {
            kernel.agent = Some(agent.clone());
            kernel.generation += 1;
            kernel.allocated = kernel.requested.clone();
            kernel.enter(KernelStatus::Scheduled, "scheduled", now);
        }
        Ok(())
    }

    /// Takes the placement back and returns to the queue, as when the chosen agents failed to start it or were lost.
    ///
    /// # Errors
    /// `Conflict` when the session is on its way to its end, or never left the queue.
    pub fn requeue(&mut self, info: &str, now: Timestamp) -> Result<()> {
        self.advance(SessionStatus::Pending, info, now)?;
        for kernel in &mut self.kernels {
            kernel.agent = None;
            kernel.container_id = None;
            kernel.allocated = ResourceSlots::default();
            (kernel.started_at, kernel.terminated_at, kernel.exit_code) = (None, None, None);
            kernel.enter(KernelStatus::Pending, info, now);
        }
        Ok(())
    }

    /// Moves all living kernels, and the session, to the same stage (`PREPARING`, `RESTARTING`, `TERMINATING`).
    ///
    /// # Errors
    /// `Conflict` when the session may not enter it.
    pub fn advance_all(
        &mut self,
        next: SessionStatus,
        kernel: KernelStatus,
        info: &str,
        now: Timestamp,
    ) -> Result<()> {
        self.advance(next, info, now)?;
        for entry in self.kernels.iter_mut().filter(|entry| entry.status.can_become(kernel)) {
            entry.enter(kernel, info, now);
        }
        Ok(())
    }

    /// Cancels a session that never ran: kernels and allocations are released with it.
    ///
    /// # Errors
    /// `Conflict` when it has already run or ended.
    pub fn cancel(&mut self, reason: &str, now: Timestamp) -> Result<()> {
        self.advance(SessionStatus::Cancelled, reason, now)?;
        for kernel in self.kernels.iter_mut().filter(|kernel| !kernel.status.is_dead()) {
            kernel.release(KernelStatus::Cancelled, reason, now);
        }
        Ok(())
    }

    /// Sets one kernel's status and lets the session's follow. Returns whether the session's status changed.
    ///
    /// # Errors
    /// `NotFound` for a foreign kernel, `Conflict` when the kernel may not enter `next`.
    pub fn advance_kernel(
        &mut self,
        id: KernelId,
        next: KernelStatus,
        info: &str,
        now: Timestamp,
    ) -> Result<bool> {
        let kernel = self.kernel_mut(id)?;
        if !kernel.status.can_become(next) {
            return Err(Error::of(code::INVALID_TRANSITION, "the kernel cannot make this transition")
                .with("kernel", id)
                .with("from", kernel.status)
                .with("to", next));
        }
        kernel.enter(next, info, now);
        if next == KernelStatus::Running && kernel.started_at.is_none() {
            kernel.started_at = Some(now);
        }
        Ok(self.follow_kernels(info, now))
    }

    /// Records that a kernel ended: releases its allocation, keeps exit code and OOM flag, and lets the session's
    /// status follow. Ending a dead kernel again changes nothing and returns `false`.
    ///
    /// # Errors
    /// `NotFound` for a foreign kernel.
    pub fn kernel_ended(&mut self, id: KernelId, exit: &KernelExit, now: Timestamp) -> Result<bool> {
        let kernel = self.kernel_mut(id)?;
        if kernel.status.is_dead() {
            return Ok(false);
        }
        let reason = if exit.oom { OUT_OF_MEMORY } else { &exit.reason };
        kernel.exit_code = exit.code;
        kernel.status_data.insert("kernel".into(), exit_data(exit));
        kernel.release(KernelStatus::Terminated, reason, now);
        if id == self.main().id || exit.oom {
            self.status_data.insert("kernel".into(), exit_data(exit));
        }
        self.follow_kernels(reason, now);
        Ok(true)
    }

    /// Whether [`Session::note_oom`] would change anything.
    pub fn is_oom_news(&self, id: KernelId, kills: u64) -> bool {
        kills > 0
            && self.status.is_running()
            && self.kernel(id).is_some_and(|kernel| kernel.status_data.get(OOM_KILLS) != Some(&json!(kills)))
    }

    /// Records that processes of a running kernel, `kills` in all, were killed because its memory was used up. The kernel
    /// goes on; its session says why something in it has died.
    ///
    /// # Errors
    /// `NotFound` for a foreign kernel.
    pub fn note_oom(&mut self, id: KernelId, kills: u64) -> Result<()> {
        self.kernel_mut(id)?.status_data.insert(OOM_KILLS.into(), json!(kills));
        self.status_data.insert(OOM_KILLS.into(), json!(kills));
        self.status_info = Some(OUT_OF_MEMORY.to_owned());
        Ok(())
    }

    /// The kernel with `id`, for changes.
    ///
    /// # Errors
    /// `NotFound` for a foreign kernel.
    pub fn kernel_mut(&mut self, id: KernelId) -> Result<&mut Kernel> {
        self.kernels.iter_mut().find(|kernel| kernel.id == id).ok_or_else(|| {
            Error::of(code::KERNEL_NOT_FOUND, "no such kernel in the session").with("kernel", id)
        })
    }

    /// Derives the session's status from its kernels. A session that is terminating stays so until all its kernels
    /// are dead.
    fn follow_kernels(&mut self, info: &str, now: Timestamp) -> bool {
        let all_dead = self.kernels.iter().all(|kernel| kernel.status.is_dead());
        let siblings = self.kernels[1..].iter().map(|kernel| kernel.status);
        let derived = match SessionStatus::of_kernels(self.main().status, siblings) {
            _ if all_dead => SessionStatus::Terminated,
            _ if self.status == SessionStatus::Terminating => SessionStatus::Terminating,
            SessionStatus::Terminated => SessionStatus::Terminating,
            other => other,
        };
        let keep = self.status_info.clone();
        let ending = self.status == SessionStatus::Terminating;
        let changed = derived != self.status && self.advance(derived, info, now).is_ok();
        if changed && ending {
            self.status_info = keep; // the reason why it was ended, not how the last kernel went
        }
        changed
    }
}

impl Kernel {
    /// Enters a status without asking the state machine; callers have.
    pub(super) fn enter(&mut self, next: KernelStatus, info: &str, now: Timestamp) {
        self.status = next;
        self.status_info = (!info.is_empty()).then(|| info.to_owned());
        enter(&mut self.status_history, next.as_str(), now);
    }

    fn release(&mut self, next: KernelStatus, info: &str, now: Timestamp) {
        self.enter(next, info, now);
        self.allocated = ResourceSlots::default();
        self.terminated_at = Some(now);
    }
}

fn enter(history: &mut StatusHistory, status: &str, now: Timestamp) {
    history.shift_remove(status); // keeps the order of last entry
    history.insert(status.to_owned(), now);
}

fn exit_data(exit: &KernelExit) -> Value {
    let mut data = json!({ "exit_code": exit.code });
    if exit.oom {
        data["oom"] = Value::Bool(true);
    }
    data
}
