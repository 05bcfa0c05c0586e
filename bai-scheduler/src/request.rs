//! Requests: what makes two sessions equal in the eyes of the agents. Equal requests are kept once, and once one of them
//! finds no room in a pass, none of them does.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use bai_core::image_ref::canonical_architecture;
use bai_core::slots::ResourceSlots;
use bai_core::status::{ClusterMode, SessionType};
use bai_core::{AgentId, Result};

use crate::explain::RoomReport;
use crate::fleet::Site;
use crate::group::Pools;
use crate::model::{Designation, Kernel, Session, SessionGroup};
use crate::room::NEVER;
use crate::select::Profile;
use crate::slots::{Amounts, SlotId, SlotOrder, SlotTable, Units};

/// Number of a request.
pub(crate) type RequestNo = u32;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct KernelKey {
    amounts: Amounts,
    zeros: Vec<SlotId>,
    architecture: String,
    image: String,
    minimum: Amounts,
    maximum: Vec<(SlotId, Units)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RequestKey {
    kernels: Vec<KernelKey>,
    cluster_mode: ClusterMode,
    session_type: SessionType,
    private: bool,
    max_runtime: i64,
    /// Agents it must run on.
    bound: Vec<AgentId>,
    strict_group: Option<SessionGroup>,
}

/// Something that needs room on one agent, once or several times.
#[derive(Debug, Clone)]
pub(crate) struct Need {
    pub(crate) amounts: Arc<Amounts>,
    /// Positions of the kernels.
    pub(crate) kernels: Vec<usize>,
    /// All kernels share one agent; else each has its own.
    pub(crate) together: bool,
    pub(crate) profile: u32,
    pub(crate) site: Site,
}

impl Need {
    /// How many agents have to be found.
    pub(crate) fn times(&self) -> usize {
        if self.together { 1 } else { self.kernels.len() }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    key: Arc<RequestKey>,
    users: u32,
    /// The hardest to place first.
    pub(crate) needs: Vec<Need>,
    /// Of each kernel, with itself counted.
    pub(crate) kernels: Vec<Arc<Amounts>>,
    /// What counts against limits.
    pub(crate) total: Arc<Amounts>,
    /// Checks that no passing of time can change: name and message.
    pub(crate) flaws: Vec<(&'static str, String)>,
    /// No agent has room, and none has got more since.
    pub(crate) refused: bool,
    /// The last pass in which no agent had room.
    pub(crate) refused_in: u64,
    /// It would have found room then if none had been reserved.
    pub(crate) held_back: bool,
    /// Pools of the needs, and the state of the fleet for which they hold.
    pub(crate) pools: (u64, Pools),
    /// Whether the agents could take it if they were empty; `None` when nobody has asked yet.
    pub(crate) possible: Option<bool>,
    /// Why the agents have no room, and the version of the room for which that holds.
    pub(crate) report: Option<(u64, Arc<RoomReport>)>,
}

impl Request {
    pub(crate) fn session_type(&self) -> SessionType {
        self.key.session_type
    }

    pub(crate) fn private(&self) -> bool {
        self.key.private
    }

    /// Microseconds that it runs at most; [`NEVER`] when that is not known.
    pub(crate) fn max_runtime(&self) -> i64 {
        self.key.max_runtime
    }

    pub(crate) fn strict_group(&self) -> Option<SessionGroup> {
        self.key.strict_group
    }

    pub(crate) fn gang(&self) -> bool {
        self.key.cluster_mode == ClusterMode::MultiNode && self.kernels.len() > 1
    }
}

/// All requests of a group, and the profiles of their slots.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    list: Vec<Option<Request>>,
    vacant: Vec<RequestNo>,
    by_key: HashMap<Arc<RequestKey>, RequestNo>,
    profiles: Vec<Profile>,
}

impl Requests {
    pub(crate) fn get(&self, number: RequestNo) -> Option<&Request> {
        self.list.get(number as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: RequestNo) -> Option<&mut Request> {
        self.list.get_mut(number as usize)?.as_mut()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Request> {
        self.list.iter_mut().flatten()
    }

    pub(crate) fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// The number of what a session asks for; it is kept until it is [released](Self::release) as often.
    ///
    /// # Errors
    /// `Invalid` when an amount is negative.
    pub(crate) fn intern(
        &mut self,
        session: &Session,
        table: &mut SlotTable,
        order: &SlotOrder,
    ) -> Result<RequestNo> {
        let key = request_key(session, table)?;
        if let Some(number) = self.by_key.get(&key) {
            let number = *number;
            if let Some(request) = self.get_mut(number) {
                request.users += 1;
            }
            return Ok(number);
        }
        let key = Arc::new(key);
        let request = self.build(key.clone(), table, order);
        let fresh = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        let number = self.vacant.pop().unwrap_or(fresh);
        if number == fresh {
            self.list.push(None);
        }
        self.list[number as usize] = Some(request);
        self.by_key.insert(key, number);
        Ok(number)
    }

    /// One user less.
    pub(crate) fn release(&mut self, number: RequestNo) {
        let Some(request) = self.get_mut(number) else { return };
        request.users -= 1;
        if request.users == 0 {
            let key = request.key.clone();
            self.by_key.remove(&key);
            self.list[number as usize] = None;
            self.vacant.push(number);
        }
    }

    /// Another importance of slots: what was derived from the old one is derived again.
    pub(crate) fn rebuild(&mut self, table: &SlotTable, order: &SlotOrder) {
        self.profiles.clear();
        for at in 0..self.list.len() {
            if let Some(old) = self.list[at].take() {
                let users = old.users;
                self.list[at] = Some(Request { users, ..self.build(old.key, table, order) });
            }
        }
    }

    fn build(&mut self, key: Arc<RequestKey>, table: &SlotTable, order: &SlotOrder) -> Request {
        let one_kernel = |kernel: &KernelKey| {
            let mut amounts = kernel.amounts.clone();
            amounts.add(SlotId::KERNELS, 1);
            Arc::new(amounts)
        };
        let kernels: Vec<_> = key.kernels.iter().map(one_kernel).collect();
        let mut total = Amounts::default();
        key.kernels.iter().for_each(|kernel| total.add_all(&kernel.amounts));
        let mut needs = match key.cluster_mode {
            ClusterMode::SingleNode => vec![self.sum(&key, &kernels, table, order)],
            ClusterMode::MultiNode => self.each(&key, &kernels, table, order),
        };
        // Whoever has the fewest choices chooses first.
        if needs.len() > 1 {
            needs
                .sort_by_cached_key(|need| Reverse((need.site.only.is_some(), hardness(need, table, order))));
        }
        let flaws = flaws(&key, table);
        Request {
            key,
            users: 1,
            needs,
            kernels,
            total: Arc::new(total),
            flaws,
            refused: false,
            refused_in: 0,
            held_back: false,
            pools: (0, Pools::new()),
            possible: None,
            report: None,
        }
    }

    fn sum(
        &mut self,
        key: &RequestKey,
        kernels: &[Arc<Amounts>],
        table: &SlotTable,
        order: &SlotOrder,
    ) -> Need {
        let mut amounts = Amounts::default();
        for kernel in kernels {
            amounts.add_all(kernel);
        }
        let zeros = key.kernels.iter().flat_map(|kernel| kernel.zeros.iter().copied());
        let zeros: Vec<_> = zeros.filter(|slot| amounts.of(*slot) == 0).collect();
        let mut images: Vec<_> = key.kernels.iter().map(|kernel| kernel.image.clone()).collect();
        images.sort();
        images.dedup();
        let site = Site {
            architecture: key.kernels.first().map(|kernel| kernel.architecture.clone()).unwrap_or_default(),
            images,
            only: (!key.bound.is_empty()).then(|| sorted(&key.bound)),
        };
        Need {
            profile: self.profile(&amounts, zeros, table, order),
            amounts: Arc::new(amounts),
            kernels: (0..kernels.len()).collect(),
            together: true,
            site,
        }
    }

    fn each(
        &mut self,
        key: &RequestKey,
        kernels: &[Arc<Amounts>],
        table: &SlotTable,
        order: &SlotOrder,
    ) -> Vec<Need> {
        let one_by_one = key.bound.len() == kernels.len();
        let mut needs: Vec<Need> = Vec::new();
        for (at, (kernel, amounts)) in key.kernels.iter().zip(kernels).enumerate() {
            let only = match key.bound.as_slice() {
                [] => None,
                bound if one_by_one => Some(vec![bound[at].clone()]),
                bound => Some(sorted(bound)),
            };
            let site =
                Site { architecture: kernel.architecture.clone(), images: vec![kernel.image.clone()], only };
            let profile = self.profile(amounts, kernel.zeros.clone(), table, order);
            let same =
                |need: &&mut Need| need.amounts == *amounts && need.site == site && need.profile == profile;
            match needs.iter_mut().find(same) {
                Some(need) => need.kernels.push(at),
                None => needs.push(Need {
                    amounts: amounts.clone(),
                    kernels: vec![at],
                    together: false,
                    profile,
                    site,
                }),
            }
        }
        needs
    }

    fn profile(
        &mut self,
        amounts: &Amounts,
        mut spared: Vec<SlotId>,
        table: &SlotTable,
        order: &SlotOrder,
    ) -> u32 {
        let mut asked: Vec<_> =
            amounts.iter().map(|(slot, _)| slot).filter(|slot| *slot != SlotId::KERNELS).collect();
        order.sort(&mut asked, table);
        spared.sort_unstable();
        spared.dedup();
        let profile = Profile { asked, spared };
        let known = self.profiles.iter().position(|known| *known == profile).unwrap_or_else(|| {
            self.profiles.push(profile);
            self.profiles.len() - 1
        });
        u32::try_from(known).unwrap_or(u32::MAX)
    }
}

/// The larger, the harder to place: slots in their importance, and how much of each.
fn hardness(need: &Need, table: &SlotTable, order: &SlotOrder) -> Vec<(usize, String, Units)> {
    let mut slots: Vec<_> = need.amounts.iter().map(|(slot, _)| slot).collect();
    order.sort(&mut slots, table);
    let amounts = slots.into_iter().map(|slot| (order.rank(table.name(slot)), slot));
    // The most important slots have the smallest ranks, and are the hardest.
    amounts
        .map(|(rank, slot)| (usize::MAX - rank, table.name(slot).to_owned(), need.amounts.of(slot)))
        .collect()
}

fn sorted(ids: &[AgentId]) -> Vec<AgentId> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids.dedup();
    ids
}

fn request_key(session: &Session, table: &mut SlotTable) -> Result<RequestKey> {
    let strict = session.designation == Designation::Strict;
    let kernels =
        session.kernels.iter().map(|kernel| kernel_key(kernel, table)).collect::<Result<Vec<_>>>()?;
    Ok(RequestKey {
        kernels,
        cluster_mode: session.cluster_mode,
        session_type: session.session_type,
        private: session.private,
        max_runtime: session.max_runtime.and_then(|limit| limit.num_microseconds()).unwrap_or(NEVER),
        bound: if strict { session.designated.clone() } else { Vec::new() },
        strict_group: session.group.filter(|group| group.strict),
    })
}

fn kernel_key(kernel: &Kernel, table: &mut SlotTable) -> Result<KernelKey> {
    Ok(KernelKey {
        amounts: table.demand(&kernel.slots)?,
        zeros: table.zeros(&kernel.slots)?,
        architecture: canonical_architecture(&kernel.architecture).to_owned(),
        image: kernel.image.clone(),
        minimum: table.demand(&kernel.minimum)?,
        maximum: named(&kernel.maximum, table)?,
    })
}

/// The named amounts, those of zero included.
fn named(slots: &ResourceSlots, table: &mut SlotTable) -> Result<Vec<(SlotId, Units)>> {
    let amounts = table.supply(slots)?;
    slots.iter().map(|(name, _)| table.intern(name).map(|slot| (slot, amounts.of(slot)))).collect()
}

/// What is wrong with a request in itself.
fn flaws(key: &RequestKey, table: &SlotTable) -> Vec<(&'static str, String)> {
    let mut flaws = Vec::new();
    if key.cluster_mode == ClusterMode::SingleNode {
        let mut architectures: Vec<_> = key.kernels.iter().map(|kernel| &*kernel.architecture).collect();
        architectures.sort_unstable();
        architectures.dedup();
        if architectures.len() > 1 {
            let message = format!("One agent cannot run kernels for {}", architectures.join(" and "));
            flaws.push(("architecture", message));
        }
    }
    for kernel in &key.kernels {
        for (slot, least) in kernel.minimum.iter().filter(|(slot, least)| kernel.amounts.of(*slot) < *least) {
            let (asked, least) = (table.text(slot, kernel.amounts.of(slot)), table.text(slot, least));
            let name = table.name(slot);
            flaws.push(("image_limits", format!("{}: {name} {asked} asked, at least {least}", kernel.image)));
        }
        for (slot, most) in kernel.maximum.iter().filter(|(slot, most)| kernel.amounts.of(*slot) > *most) {
            let (asked, most) = (table.text(*slot, kernel.amounts.of(*slot)), table.text(*slot, *most));
            let name = table.name(*slot);
            flaws.push(("image_limits", format!("{}: {name} {asked} asked, at most {most}", kernel.image)));
        }
    }
    flaws
}
