//! What managers ask of the agent.

use std::sync::Arc;
use std::time::Duration;

use bai_core::error::code;
use bai_core::execution::{ExecuteReply, ExecuteRequest, RunStatus};
use bai_core::port::agent::{BatchOutcome, KernelRef, KernelSpec, KernelStage};
use bai_core::{Error, Result};
use parking_lot::MutexGuard;
use tokio::time::sleep;

use super::super::ledger::describe;
use super::{Node, Occupant, State};

impl Node {
    /// The state of an agent that is up.
    fn up(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.up { Ok(state) } else { Err(Error::of(code::AGENT_UNREACHABLE, "the agent is down")) }
    }

    /// Accepts kernels.
    pub(in super::super) fn create(self: &Arc<Self>, manager: &str, specs: Vec<KernelSpec>) -> Result<()> {
        let mut state = self.up()?;
        for spec in &specs {
            let known = state.kernels.get(&spec.kernel.id).map_or(0, |known| known.spec.kernel.generation);
            if known > spec.kernel.generation {
                return Err(stale(spec.kernel));
            }
        }
        for spec in specs {
            let (id, kernel) = (spec.kernel.id, spec.kernel);
            if state.kernels.get(&id).is_some_and(|known| known.spec.kernel == kernel) {
                continue;
            }
            self.around.trace.say(format_args!("{} {} accepted from {manager}", self.id, describe(kernel)));
            self.around.ledger.accepted(kernel, &self.id);
            state.births += 1;
            let birth = state.births;
            // An earlier start has to end first.
            let earlier = state.kernels.get(&id).is_some_and(|earlier| !earlier.is_over());
            if let Some(earlier) = state.kernels.get(&id) {
                self.around.ledger.runs(earlier.spec.kernel, false);
            }
            let after = if earlier { self.chance.millis(20, 2_000) } else { Duration::ZERO };
            let occupant = Occupant {
                birth,
                spec,
                stage: KernelStage::Preparing,
                recorded: false,
                stuck: false,
                batch_begun: false,
                batch: None,
            };
            state.kernels.insert(id, occupant);
            tokio::spawn(self.clone().live(id, birth, after));
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Ends a kernel; its end comes later.
    pub(in super::super) fn destroy(self: &Arc<Self>, kernel: KernelRef, reason: &str) -> Result<()> {
        let mut state = self.up()?;
        let known = find(&mut state, kernel)?;
        if !known.is_over() {
            let (birth, stuck) = (known.birth, known.stuck);
            self.end_later(known, birth, stuck, reason);
        }
        Ok(())
    }

    fn end_later(self: &Arc<Self>, known: &mut Occupant, birth: u64, stuck: bool, reason: &str) {
        if known.stage == KernelStage::Terminating {
            return;
        }
        let (kernel, session) = (known.spec.kernel, known.spec.session);
        self.around.trace.say(format_args!("{} {} to be ended: {reason}", self.id, describe(kernel)));
        self.around.ledger.ends(kernel, session, &self.id, reason);
        self.around.ledger.runs(kernel, false);
        known.stage = KernelStage::Terminating;
        let (node, id, reason) = (self.clone(), known.spec.kernel.id, reason.to_owned());
        let time = if stuck { self.chance.millis(1_000, 150_000) } else { self.chance.millis(5, 6_000) };
        tokio::spawn(async move {
            sleep(time).await;
            while !node.is_up() {
                sleep(Duration::from_secs(1)).await;
            }
            _ = node.change(id, birth, |kernel| kernel.ends(Some(137), &reason));
        });
        self.changed.notify_one();
    }

    /// Removes the traces of an ended kernel.
    pub(in super::super) fn forget(&self, kernel: KernelRef) -> Result<()> {
        let mut state = self.up()?;
        match find(&mut state, kernel) {
            Ok(known) if known.is_over() => {}
            Ok(_) => return Err(Error::of(code::CONFLICT, "the kernel has not ended")),
            Err(error) if error.code() == code::KERNEL_NOT_FOUND => return Ok(()),
            Err(error) => return Err(error),
        }
        self.around.trace.say(format_args!("{} {} forgotten", self.id, describe(kernel)));
        state.kernels.remove(&kernel.id);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Starts the command of a batch kernel, once.
    pub(in super::super) fn start_batch(self: &Arc<Self>, kernel: KernelRef) -> Result<()> {
        let mut state = self.up()?;
        let known = find(&mut state, kernel)?;
        if !matches!(known.stage, KernelStage::Running(_)) {
            return Err(Error::of(code::CONFLICT, "the kernel does not run"));
        }
        if std::mem::replace(&mut known.batch_begun, true) {
            return Ok(());
        }
        self.around.trace.say(format_args!("{} {} begins its command", self.id, describe(kernel)));
        let birth = known.birth;
        let ok = known.spec.startup_command.as_deref() == Some("true");
        let (exit_code, reason) = if ok { (0, "task-finished") } else { (3, "task-failed") };
        let (node, time) = (self.clone(), self.chance.millis(50, 60_000));
        tokio::spawn(async move {
            sleep(time).await;
            let outcome = BatchOutcome { exit_code, reason: reason.to_owned() };
            _ = node.change(kernel.id, birth, |occupant| {
                if matches!(occupant.stage, KernelStage::Running(_)) {
                    node.around.trace.say(format_args!("{} {} {reason}", node.id, describe(kernel)));
                    occupant.batch = Some(outcome);
                }
            });
        });
        Ok(())
    }

    /// The log of a kernel.
    pub(in super::super) fn logs(&self, kernel: KernelRef) -> Result<Vec<u8>> {
        self.known(kernel).map(|()| describe(kernel).into_bytes())
    }

    /// Runs nothing, and says that it has.
    pub(in super::super) fn execute(
        &self,
        kernel: KernelRef,
        asked: &ExecuteRequest,
    ) -> Result<ExecuteReply> {
        self.known(kernel)?;
        Ok(ExecuteReply {
            run_id: asked.run_id.clone().unwrap_or_else(|| "r1".into()),
            status: RunStatus::Finished,
            exit_code: Some(0),
            options: None,
            console: Vec::new(),
        })
    }

    /// Whether the agent has the kernel.
    pub(in super::super) fn known(&self, kernel: KernelRef) -> Result<()> {
        find(&mut *self.up()?, kernel).map(|_| ())
    }

    /// What a manager did not know about for long enough is ended and forgotten.
    pub(super) fn put_away(self: &Arc<Self>, kernel: KernelRef) {
        let over = {
            let Ok(mut state) = self.up() else { return };
            let Ok(known) = find(&mut state, kernel) else { return };
            if !known.is_over() {
                let (birth, stuck) = (known.birth, known.stuck);
                self.end_later(known, birth, stuck, "not-found-in-manager");
            }
            known.is_over()
        };
        if over {
            _ = self.forget(kernel);
        }
    }
}

fn find(state: &mut State, kernel: KernelRef) -> Result<&mut Occupant> {
    let unknown = || Error::of(code::KERNEL_NOT_FOUND, "no such kernel on this agent");
    let known = state.kernels.get_mut(&kernel.id).ok_or_else(unknown)?;
    match known.spec.kernel.generation.cmp(&kernel.generation) {
        std::cmp::Ordering::Equal => Ok(known),
        std::cmp::Ordering::Less => Err(unknown()),
        std::cmp::Ordering::Greater => Err(stale(kernel)),
    }
}

fn stale(kernel: KernelRef) -> Error {
    Error::of(code::STALE_GENERATION, "a newer start is known").with("kernel", kernel.id)
}
