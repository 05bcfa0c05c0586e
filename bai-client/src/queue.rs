//! The queue, and why a session waits; of a bai server only.

use bai_core::Result;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::{Client, Content};
use crate::session::{Session, encode};

/// A session that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueuedSession {
    /// Id.
    pub session_id: String,
    /// Name.
    pub session_name: String,
    /// Keypair that owns it.
    pub access_key: String,
    /// Resource group in whose queue it is.
    pub resource_group: String,
    /// Higher ones are served first.
    pub priority: i32,
    /// When it was enqueued.
    pub created_at: String,
    /// How many sessions are before it; `None` for one that is not in line yet, because it waits for a time or for other
    /// sessions.
    pub position: Option<u32>,
    /// What kind of obstacle there is, such as `no-room`.
    pub verdict: String,
    /// The obstacle in words.
    pub message: String,
    /// When it starts at the latest, if that is known.
    pub estimate: Option<String>,
}

/// Why a session waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// Id.
    pub session_id: String,
    /// Name.
    pub session_name: String,
    /// Resource group.
    pub resource_group: String,
    /// Status.
    pub status: String,
    /// What is in its way, or that it does not wait, in words.
    pub message: String,
    /// Details; `None` for a session that does not wait.
    pub waiting: Option<WaitDetail>,
}

/// Details of a wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitDetail {
    /// How many sessions are before it; `None` for one that is not in line yet.
    pub position: Option<u32>,
    /// The explanation of the scheduler, as `docs/scheduling.md` describes it.
    pub explanation: Value,
}

impl Client {
    /// The sessions that wait, of one resource group or of all: in each group those in line first, in their order.
    ///
    /// # Errors
    /// `NotFound` when the server has no such list: it is not bai.
    pub async fn queue(&self, group: Option<&str>) -> Result<Vec<QueuedSession>> {
        #[derive(Deserialize)]
        struct Reply {
            items: Vec<QueuedSession>,
        }
        let query = group.map(|group| format!("?group={}", encode(group))).unwrap_or_default();
        let reply: Reply =
            self.json(Method::GET, &format!("/session/_/queue{query}"), Content::empty()).await?;
        Ok(reply.items)
    }
}

impl Session {
    /// Why the session waits, if it does.
    ///
    /// # Errors
    /// `NotFound` for an unknown session.
    pub async fn explain(&self) -> Result<Explained> {
        self.client.json(Method::GET, &self.path("/explain"), Content::empty()).await
    }
}
