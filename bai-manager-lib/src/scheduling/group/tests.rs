use bai_core::SessionStatus;
use bai_core::port::store::Directory;
use bai_core::session::KernelExit;
use bai_core::slots::SlotType;
use bai_scheduler::{Claim, GivenUp};
use bai_testkit::fixture::{at, cluster_session, slots};
use proptest::prelude::*;

use super::*;
use crate::scheduling::claim;
use crate::scheduling::project::outcome;

const NAME: &str = "default";

/// What may happen to one of a few sessions.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Enqueued { kernels: u32 },
    Placed { agent: usize },
    Started,
    KernelEnded { kernel: usize },
    Requeued,
    Cancelled,
    Prioritised { priority: i32 },
    Claimed { agent: usize, expires: i64 },
    GaveUp { again_at: i64 },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (1_u32..4).prop_map(|kernels| Happening::Enqueued { kernels }),
        3 => (0_usize..3).prop_map(|agent| Happening::Placed { agent }),
        2 => Just(Happening::Started),
        2 => (0_usize..3).prop_map(|kernel| Happening::KernelEnded { kernel }),
        1 => Just(Happening::Requeued),
        1 => Just(Happening::Cancelled),
        1 => (1_i32..20).prop_map(|priority| Happening::Prioritised { priority }),
        2 => (0_usize..3, 990_i64..1010).prop_map(|(agent, expires)| Happening::Claimed { agent, expires }),
        1 => (990_i64..1010).prop_map(|again_at| Happening::GaveUp { again_at }),
    ]
}

/// The records, as the registry of a manager has them: no dead ones.
#[derive(Debug, Default)]
struct Records {
    living: BTreeMap<usize, Session>,
    sessions: HashMap<SessionId, Arc<Session>>,
}

impl Records {
    /// Lets something happen to a session, if it can, and says which has changed.
    fn happen(&mut self, which: usize, happening: Happening, second: i64) -> Option<(SessionId, Session)> {
        if let Happening::Enqueued { kernels } = happening {
            if self.living.contains_key(&which) {
                return None;
            }
            let session = cluster_session(&format!("s-{which}"), kernels);
            self.living.insert(which, session);
        }
        let session = self.living.get_mut(&which)?;
        let now = at(second);
        let agents = |agent: usize| vec![AgentId::new(format!("i-{agent}")); session.kernels.len()];
        let kernel = |kernel: usize| session.kernels.get(kernel).map(|kernel| kernel.id);
        let changed = match happening {
            Happening::Enqueued { .. } => Ok(()),
            Happening::Placed { agent } => {
                let agents = agents(agent);
                claim::clear(session);
                session.place(&agents, now)
            }
            Happening::Started => {
                session.kernels[0].started_at = Some(now);
                Ok(())
            }
            Happening::KernelEnded { kernel: number } => {
                let exit = KernelExit { code: Some(0), reason: "self-terminated".into(), oom: false };
                session.kernel_ended(kernel(number)?, &exit, now).map(drop)
            }
            Happening::Requeued => session.requeue("failed-to-start", now),
            Happening::Cancelled => session.cancel("user-requested", now),
            Happening::Prioritised { priority } => {
                session.priority = priority;
                Ok(())
            }
            Happening::Claimed { .. } | Happening::GaveUp { .. }
                if session.status != SessionStatus::Pending =>
            {
                return None;
            }
            Happening::Claimed { agent, expires } => {
                let (agents, expires) = (agents(agent), at(expires));
                claim::record(session, &Claim { agents, victims: Vec::new(), since: now, expires });
                Ok(())
            }
            Happening::GaveUp { again_at } => {
                claim::give_up(session, &GivenUp { session: session.id, again_at: at(again_at) });
                Ok(())
            }
        };
        changed.ok()?;
        session.version += 1;
        let session = session.clone();
        if session.status.is_dead() {
            self.living.remove(&which);
            self.sessions.remove(&session.id);
        } else {
            self.sessions.insert(session.id, Arc::new(session.clone()));
        }
        Some((session.id, session))
    }
}

fn agents() -> AgentFacts {
    let agent = |number: usize| {
        let capacity = slots(4 + i64::try_from(number).unwrap(), 1 << 30);
        Agent::new(format!("i-{number}"), "x86_64", capacity)
    };
    let types = [("cpu", SlotType::Count), ("mem", SlotType::Bytes)].into_iter().collect();
    AgentFacts { version: 1, agents: (0..3).map(agent).collect(), types }
}

fn facts(records: &Records, notes: Notes) -> Facts<'static> {
    Facts {
        name: NAME,
        now: at(1000),
        directory: Arc::new(Directory::default()),
        settings: Arc::default(),
        turns: BTreeMap::new(),
        history: Vec::new(),
        agents: Some(agents()),
        sessions: records.sessions.clone(),
        dependencies: BTreeMap::new(),
        notes,
    }
}

/// What can be seen of a group.
fn seen(group: &mut HotGroup) -> (Vec<Unplaced>, Vec<Option<(ResourceSlots, ResourceSlots)>>) {
    let rooms = (0..3).map(|number| group.group.room_of(&AgentId::new(format!("i-{number}")))).collect();
    (group.waiting(), rooms)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// However the notes come, and however many changes one note stands for, the group is the one that is built afresh.
    #[test]
    fn a_group_that_follows_is_the_group_built_afresh(
        happenings in prop::collection::vec((0_usize..6, happening(), any::<bool>()), 1..40),
    ) {
        let mut records = Records::default();
        let mut hot = HotGroup::new(NAME, &Directory::default(), &Arc::default(), &agents().types);
        let mut notes = Notes::default();
        for (second, (which, happening, look)) in (0..).zip(happenings) {
            if let Some((id, session)) = records.happen(which, happening, second) {
                notes.sessions.insert(id);
                notes.outcomes.extend(outcome(&session).map(|outcome| (id, outcome)));
            }
            if look {
                hot.follow(&facts(&records, std::mem::take(&mut notes)), std::iter::empty).unwrap();
            }
        }
        hot.follow(&facts(&records, notes), std::iter::empty).unwrap();
        let everyone = Notes { sessions: records.sessions.keys().copied().collect(), ..Notes::default() };
        let mut fresh = HotGroup::new(NAME, &Directory::default(), &Arc::default(), &agents().types);
        fresh.follow(&facts(&records, everyone), std::iter::empty).unwrap();
        prop_assert_eq!(seen(&mut hot), seen(&mut fresh));
        let plans = (hot.group.pass(at(1000)), fresh.group.pass(at(1000)));
        prop_assert_eq!(&plans.0.placements, &plans.1.placements);
        prop_assert_eq!(&plans.0.given_up, &plans.1.given_up);
    }
}
