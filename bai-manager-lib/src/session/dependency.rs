//! What sessions wait for.

use std::collections::HashMap;
use std::sync::Arc;

use bai_core::{Result, Session, SessionId};

use super::{DependencyNode, SessionService};
use crate::identity::Scope;

/// Nodes of a graph: a session reached on several ways counts each time.
const MAX_NODES: usize = 1000;

impl SessionService {
    /// The session with what it depends on, transitively.
    ///
    /// # Errors
    /// `NotFound` only.
    pub async fn dependency_graph(&self, scope: &Scope, reference: &str) -> Result<DependencyNode> {
        let root = self.resolve(scope, reference, true).await?;
        let known = self.load_dependencies(root.clone()).await?;
        let mut budget = MAX_NODES;
        Ok(node(&root, &known, &mut Vec::new(), &mut budget))
    }

    /// Everything reachable, each once.
    async fn load_dependencies(&self, root: Arc<Session>) -> Result<HashMap<SessionId, Arc<Session>>> {
        let mut known = HashMap::new();
        let mut open = vec![root];
        while let Some(session) = open.pop() {
            for id in &session.spec.dependencies {
                if known.len() < MAX_NODES && !known.contains_key(id) {
                    open.extend(self.core.load(*id).await?);
                }
            }
            known.insert(session.id, session);
        }
        Ok(known)
    }
}

fn node(
    session: &Session,
    known: &HashMap<SessionId, Arc<Session>>,
    path: &mut Vec<SessionId>,
    budget: &mut usize,
) -> DependencyNode {
    *budget = budget.saturating_sub(1);
    path.push(session.id);
    let mut depends_on = Vec::new();
    for dependency in session.spec.dependencies.iter().filter_map(|id| known.get(id)) {
        if *budget > 0 && !path.contains(&dependency.id) {
            depends_on.push(node(dependency, known, path, budget));
        }
    }
    path.pop();
    DependencyNode {
        id: session.id,
        name: session.name.clone(),
        status: session.status,
        status_changed: session.status_changed(),
        depends_on,
    }
}
