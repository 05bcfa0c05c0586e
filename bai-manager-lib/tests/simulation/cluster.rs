//! The simulated cluster with real managers in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bai_core::identity::ResourceGroup;
use bai_core::memory::{MemoryConfig, MemoryCounter, MemoryEvents, MemoryLease, MemoryStore};
use bai_core::port::store::Agent;
use bai_core::port::{AgentApi, IdentityStore};
use bai_core::slots::ResourceSlots;
use bai_core::{AccessKey, AgentId, Clock, Result, SessionId, Timestamp};
use bai_manager_lib::agent::AgentDialer;
use bai_manager_lib::{Backends, Manager, ManagerOptions, Scope};
use bai_testkit::fixture;
use bai_testkit::simulation::{
    AgentLink, Chance, EventsLink, HostClock, LeaseLink, Ledger, Life, Managers, Network, Node, SharedStore,
    Surroundings, Trace, VirtualClock,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::sleep;

use crate::scenario::Scenario;

type Nodes = Arc<BTreeMap<AgentId, Arc<Node>>>;

/// Sessions at once of the user who is not free to have any number of them.
pub(crate) const LIMITED: u32 = 10;

/// All there is.
pub(crate) struct Cluster {
    pub(crate) scenario: Scenario,
    pub(crate) chance: Chance,
    pub(crate) trace: Trace,
    pub(crate) network: Arc<Network>,
    pub(crate) store: Arc<SharedStore>,
    pub(crate) nodes: Nodes,
    /// What each agent has.
    pub(crate) capacity: BTreeMap<AgentId, ResourceSlots>,
    /// The users: the last one has a limit.
    pub(crate) users: Vec<Scope>,
    /// Sessions whose creation was acknowledged.
    pub(crate) acknowledged: Mutex<Vec<SessionId>>,
    /// What each manager takes for the time.
    pub(crate) clocks: BTreeMap<String, HostClock>,
    clock: VirtualClock,
    managers: Arc<Managers>,
    leases: MemoryLease,
    events: MemoryEvents,
    config: Arc<MemoryConfig>,
    seats: Mutex<BTreeMap<String, Seat>>,
    /// Held by whoever starts or stops the manager of a name.
    turns: BTreeMap<String, Arc<tokio::sync::Mutex<()>>>,
    lives: Mutex<u32>,
}

/// A manager that lives.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) manager: Manager,
    pub(crate) life: Life,
}

impl Cluster {
    /// Agents and users; no manager yet.
    pub(crate) async fn new(scenario: Scenario) -> Arc<Self> {
        let clock = VirtualClock::start();
        let trace = Trace::start(clock);
        let chance = Chance::new(scenario.seed);
        let network = Network::new(chance.fork(), trace.clone());
        let managers = Arc::<Managers>::default();
        trace.say(format_args!("{scenario:?}"));
        let capacity = capacity(&scenario, &chance);
        let ledger = Ledger::new(trace.clone(), capacity.clone());
        let around = Surroundings {
            trace: trace.clone(),
            network: network.clone(),
            managers: managers.clone(),
            ledger: ledger.clone(),
        };
        let nodes = nodes(&scenario, &chance, &capacity, &around);
        let rows = MemoryStore::with_clock(Arc::new(clock));
        let users = users(&rows, &scenario).await;
        let store = SharedStore::new(rows, ledger, network.clone(), scenario.exclusive);
        for node in nodes.values() {
            tokio::spawn(node.clone().run());
        }
        Arc::new(Self {
            chance,
            network,
            store,
            nodes,
            capacity,
            users,
            managers,
            clocks: names(&scenario).into_iter().map(|name| (name, HostClock::new(clock))).collect(),
            turns: names(&scenario).into_iter().map(|name| (name, Arc::default())).collect(),
            clock,
            trace,
            acknowledged: Mutex::default(),
            leases: MemoryLease::with_clock(Arc::new(clock)),
            events: MemoryEvents::with_capacity(scenario.events_kept),
            scenario,
            config: Arc::new(MemoryConfig::new()),
            seats: Mutex::default(),
            lives: Mutex::default(),
        })
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The names that managers have.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.scenario)
    }

    /// The managers that live, by name.
    pub(crate) fn seats(&self) -> BTreeMap<String, Seat> {
        self.seats.lock().clone()
    }

    /// Each agent of a resource group with the slots that `slots` has for it.
    pub(crate) fn of_group(
        &self,
        group: &str,
        slots: &BTreeMap<AgentId, ResourceSlots>,
    ) -> BTreeMap<AgentId, ResourceSlots> {
        let members = self.nodes.iter().filter(|(_, node)| node.group() == group);
        members.filter_map(|(id, _)| Some((id.clone(), slots.get(id)?.clone()))).collect()
    }

    /// Any manager that lives.
    pub(crate) fn any(&self) -> Option<Seat> {
        let seats: Vec<_> = self.seats.lock().values().cloned().collect();
        self.chance.pick(&seats).cloned()
    }

    /// Starts a manager under this name, unless one lives, and tries until that works.
    pub(crate) async fn start(&self, name: &str) {
        let _turn = self.turns[name].lock().await;
        let life = Life::default();
        while !self.seats.lock().contains_key(name) {
            let number = {
                let mut lives = self.lives.lock();
                *lives += 1;
                *lives
            };
            let options = self.options(format!("{name}.{number}"));
            let dialer = Arc::new(Dialer {
                nodes: self.nodes.clone(),
                network: self.network.clone(),
                manager: name.to_owned(),
            });
            match Manager::start(self.backends(name), dialer, options).await {
                Ok(manager) => {
                    self.trace.say(format_args!("{name}.{number} starts"));
                    self.managers.seat(name, Arc::new(manager.clone()), life.clone());
                    self.seats.lock().insert(name.to_owned(), Seat { manager, life });
                    return;
                }
                Err(error) => {
                    self.trace.say(format_args!("{name} does not start: {error}"));
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// The manager of this name dies without a word.
    pub(crate) fn kill(&self, name: &str) {
        let Some(Seat { manager, life }) = self.seats.lock().remove(name) else { return };
        self.trace.say(format_args!("{} is killed", manager.options().id));
        self.managers.unseat(name);
        life.end();
    }

    /// The manager of this name ends in good order, whether or not somebody waits for it.
    pub(crate) async fn stop(self: &Arc<Self>, name: &str) {
        let turn = self.turns[name].clone().lock_owned().await;
        let Some(Seat { manager, life }) = self.seats.lock().remove(name) else { return };
        self.trace.say(format_args!("{} stops", manager.options().id));
        let (cluster, name) = (self.clone(), name.to_owned());
        let end = tokio::spawn(async move {
            manager.shutdown().await;
            cluster.managers.unseat(&name);
            life.end();
            drop(turn);
        });
        end.await.unwrap();
    }

    fn options(&self, id: String) -> ManagerOptions {
        let mut options = ManagerOptions::default();
        options.id = id;
        options.pulling_timeout = Duration::from_mins(3);
        options.agent_lost_after = options.agent_lost_after.max(self.scenario.kernels.heartbeat * 4);
        options
    }

    fn backends(&self, name: &str) -> Backends {
        let link = Arc::new(self.store.link(name));
        Backends {
            sessions: link.clone(),
            identities: Arc::new(self.store.rows().clone()),
            agents: link.clone(),
            images: link.clone(),
            logs: link,
            events: Arc::new(EventsLink::new(self.events.clone(), self.network.clone(), name)),
            config: self.config.clone(),
            lease: Arc::new(LeaseLink::new(self.leases.clone(), self.network.clone(), name)),
            counter: Arc::new(MemoryCounter::new()),
            clock: Arc::new(self.clocks[name].clone()),
            secret: [7; 32].into(),
        }
    }
}

fn names(scenario: &Scenario) -> Vec<String> {
    (1..=scenario.managers).map(|number| format!("m{number}")).collect()
}

fn capacity(scenario: &Scenario, chance: &Chance) -> BTreeMap<AgentId, ResourceSlots> {
    let agent = |number| {
        let cores = 4_u64 << chance.below(3);
        let slots = [("cpu", cores), ("mem", cores << 32)].into_iter().collect();
        (AgentId::new(format!("i-{number:04}")), slots)
    };
    (0..scenario.agents).map(agent).collect()
}

fn nodes(
    scenario: &Scenario,
    chance: &Chance,
    capacity: &BTreeMap<AgentId, ResourceSlots>,
    around: &Surroundings,
) -> Nodes {
    let node = |((id, slots), group): ((&AgentId, &ResourceSlots), &&str)| {
        let node =
            Node::new(id.clone(), group, slots.clone(), scenario.kernels, chance.fork(), around.clone());
        (id.clone(), node)
    };
    Arc::new(capacity.iter().zip(scenario.groups.iter().cycle()).map(node).collect())
}

fn resource_group(scenario: &Scenario, name: &str) -> ResourceGroup {
    let mut group = fixture::resource_group(name);
    scenario.scheduler.clone_into(&mut group.scheduler);
    let options = json!({
        "config": { "backfill": scenario.backfill },
        "preemption": { "enabled": scenario.preemption, "victim_scope": "resource-group" },
    });
    group.scheduler_opts.extend(options.as_object().cloned().unwrap_or_default());
    group
}

/// Two users who may do what they like, and one who may not have many sessions at once.
async fn users(rows: &MemoryStore, scenario: &Scenario) -> Vec<Scope> {
    let mut domain = fixture::domain("default");
    domain.total_resource_slots.clear();
    domain.allowed_docker_registries.clear();
    rows.put_domain(&domain).await.unwrap();
    for name in scenario.groups {
        rows.put_resource_group(&resource_group(scenario, name)).await.unwrap();
    }
    let mut project = fixture::project(1);
    project.total_resource_slots.clear();
    rows.put_project(&project, &[1, 2, 3].map(fixture::user_id)).await.unwrap();
    for (name, sessions) in [("free", 0), ("limited", LIMITED)] {
        let mut policy = fixture::policy(name);
        policy.total_resource_slots.clear();
        policy.max_concurrent_sessions = sessions;
        policy.max_pending_session_count = None;
        policy.max_pending_session_resource_slots = None;
        policy.idle_timeout = 0;
        rows.put_policy(&policy).await.unwrap();
    }
    let mut scopes = Vec::new();
    for (number, policy) in [(1, "free"), (2, "free"), (3, "limited")] {
        rows.put_user(&fixture::user(number)).await.unwrap();
        let mut keypair = fixture::keypair(number);
        policy.clone_into(&mut keypair.resource_policy);
        rows.put_keypair(&keypair).await.unwrap();
        let key = AccessKey::new(format!("AKIA{number}"));
        scopes.push(Scope::own(Arc::new(rows.credential(&key).await.unwrap().unwrap())));
    }
    scopes
}

#[derive(Debug)]
struct Dialer {
    nodes: Nodes,
    network: Arc<Network>,
    manager: String,
}

#[async_trait]
impl AgentDialer for Dialer {
    async fn dial(&self, agent: &Agent) -> Result<Arc<dyn AgentApi>> {
        Ok(Arc::new(AgentLink::to(&self.nodes, &agent.id, &self.network, &self.manager)?))
    }
}
