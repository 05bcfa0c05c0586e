//! The order of service as a tree of heaps: one heap per owner and level, with lanes as leaves.
//!
//! Taking the first lane goes down the tree; giving it back goes up the same path with the shares as they are now. Only the
//! owners on that path have changed meanwhile, so everybody else stays where they are.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use bai_core::SessionId;

/// Most levels on which owners are compared.
pub(crate) const LEVELS: usize = 4;

/// What sessions are compared by: the shares of their owners from the top, their position, their id.
pub(crate) type Rank = ([u64; LEVELS], i64, SessionId);

#[derive(Debug, Default)]
struct Branch {
    parent: u32,
    account: u32,
    level: usize,
    heap: BinaryHeap<Reverse<(Rank, u32)>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tree {
    branches: Vec<Branch>,
    /// From parent and account to branch: for look-ups only.
    index: HashMap<(u32, u32), u32>,
    depth: usize,
}

/// The branch to which a lane belongs, to give it back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path(u32);

impl Tree {
    pub(crate) fn new(depth: usize) -> Self {
        Self { branches: vec![Branch::default()], index: HashMap::new(), depth: depth.min(LEVELS) }
    }

    /// Adds a lane below the owners of `path`, from the top. [`Tree::link`] makes it visible.
    pub(crate) fn add(&mut self, path: &[u32], lane: u32, first: (i64, SessionId)) {
        let mut at = 0;
        for (level, account) in path.iter().enumerate().take(self.depth) {
            let fresh = u32::try_from(self.branches.len()).unwrap_or(u32::MAX);
            let next = *self.index.entry((at, *account)).or_insert(fresh);
            if next == fresh {
                let branch = Branch { parent: at, account: *account, level, heap: BinaryHeap::new() };
                self.branches.push(branch);
            }
            at = next;
        }
        self.branches[at as usize].heap.push(Reverse((([0; LEVELS], first.0, first.1), lane)));
    }

    /// Links all branches to their parents, deepest first. `share` tells the share of an account on a level.
    pub(crate) fn link(&mut self, share: &mut impl FnMut(usize, u32) -> u64) {
        for at in (1..self.branches.len()).rev() {
            self.push_up(at, share);
        }
    }

    /// Links all branches anew, after owners have got something for lanes that are not in the tree.
    pub(crate) fn relink(&mut self, share: &mut impl FnMut(usize, u32) -> u64) {
        let depth = self.depth;
        let inner = |at: usize, level: usize| if at == 0 { depth > 0 } else { level + 1 < depth };
        for (at, branch) in self.branches.iter_mut().enumerate() {
            if inner(at, branch.level) {
                branch.heap.clear();
            }
        }
        self.link(share);
    }

    fn push_up(&mut self, at: usize, share: &mut impl FnMut(usize, u32) -> u64) {
        let branch = &self.branches[at];
        let (parent, level, account) = (branch.parent as usize, branch.level, branch.account);
        if let Some(Reverse((mut rank, _))) = branch.heap.peek().copied() {
            rank.0[level] = share(level, account);
            let number = u32::try_from(at).unwrap_or(u32::MAX);
            self.branches[parent].heap.push(Reverse((rank, number)));
        }
    }

    /// The rank of the first lane.
    pub(crate) fn first(&self) -> Option<Rank> {
        self.branches[0].heap.peek().map(|Reverse((rank, _))| *rank)
    }

    /// The first lane, which is taken out together with the path to it.
    pub(crate) fn take(&mut self) -> Option<(u32, Path)> {
        let mut at = 0;
        for _ in 0..self.depth {
            let Reverse((_, next)) = self.branches[at as usize].heap.pop()?;
            at = next;
        }
        let Reverse((_, lane)) = self.branches[at as usize].heap.pop()?;
        Some((lane, Path(at)))
    }

    /// Puts the path back, and the lane too when it still has a session to serve.
    pub(crate) fn put_back(
        &mut self,
        path: Path,
        lane: Option<(u32, (i64, SessionId))>,
        share: &mut impl FnMut(usize, u32) -> u64,
    ) {
        let mut at = path.0 as usize;
        if let Some((lane, (position, id))) = lane {
            self.branches[at].heap.push(Reverse((([0; LEVELS], position, id), lane)));
        }
        while at != 0 {
            self.push_up(at, share);
            at = self.branches[at].parent as usize;
        }
    }
}
