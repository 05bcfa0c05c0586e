//! Listings that the API offers through GraphQL only.

use bai_core::{Error, Result, error::code};
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::client::{Client, Content};

/// A row of the session list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct SessionRow {
    /// Identity.
    pub id: String,
    /// Name.
    pub name: String,
    /// Canonical image name.
    pub image: Option<String>,
    /// `INTERACTIVE`, `BATCH` or `INFERENCE`.
    #[serde(rename = "type")]
    pub session_type: String,
    /// Status.
    pub status: String,
    /// Machine-readable reason of the status.
    pub status_info: Option<String>,
    /// Structured detail, as JSON text.
    pub status_data: Option<String>,
    /// Result of a batch session.
    pub result: String,
    /// Creation time, ISO 8601.
    pub created_at: String,
    /// Resources held, as JSON text.
    pub occupying_slots: Option<String>,
}

/// A row of the agent list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct AgentRow {
    /// Identity.
    pub id: String,
    /// `ALIVE`, `LOST` …
    pub status: String,
    /// Resource group.
    pub scaling_group: String,
    /// Architecture.
    pub architecture: String,
    /// Capacity, as JSON text.
    pub available_slots: String,
    /// What is held, as JSON text.
    pub occupied_slots: String,
    /// Version.
    pub version: String,
}

/// A row of the image list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct ImageRow {
    /// Name without registry and tag.
    pub name: String,
    /// Tag.
    pub tag: String,
    /// Registry; empty for local images.
    pub registry: String,
    /// Architecture.
    pub architecture: String,
    /// Short names.
    pub aliases: Vec<String>,
    /// Content digest.
    pub digest: Option<String>,
}

impl Client {
    /// Runs a GraphQL document and returns its `data`.
    ///
    /// # Errors
    /// `Invalid` ([`code::GRAPHQL`]) with the server's message when it reports errors.
    pub async fn graphql(&self, query: &str, variables: Value) -> Result<Value> {
        let body = Content::json(&json!({ "query": query, "variables": variables }));
        let mut reply: Value = self.json(Method::POST, "/admin/gql", body).await?;
        if let Some(first) = reply.pointer("/errors/0/message").and_then(Value::as_str) {
            return Err(Error::of(code::GRAPHQL, first).data(reply["errors"].clone()));
        }
        Ok(reply["data"].take())
    }

    /// The newest sessions in one of `statuses` (comma-separated names; empty for all), at most `limit`.
    ///
    /// # Errors
    /// `Invalid` for an unknown status.
    pub async fn sessions(&self, statuses: &str, limit: u32) -> Result<Vec<SessionRow>> {
        let query = "query($limit: Int!, $status: String) { compute_session_list(limit: $limit, offset: 0, status: $status) \
                     { items { id name image type status status_info status_data result created_at occupying_slots } } }";
        let status = (!statuses.is_empty()).then_some(statuses);
        let mut data = self.graphql(query, json!({ "limit": limit, "status": status })).await?;
        rows(data["compute_session_list"]["items"].take())
    }

    /// The agents; superadmins only.
    ///
    /// # Errors
    /// `Invalid` ([`code::GRAPHQL`]) without the privilege.
    pub async fn agents(&self) -> Result<Vec<AgentRow>> {
        let query = "query { agent_list(limit: 100, offset: 0) { items { id status scaling_group architecture \
                     available_slots occupied_slots version } } }";
        let mut data = self.graphql(query, json!({})).await?;
        rows(data["agent_list"]["items"].take())
    }

    /// The images that sessions can be created from.
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be reached.
    pub async fn images(&self) -> Result<Vec<ImageRow>> {
        let query = "query { images { name tag registry architecture aliases digest } }";
        let mut data = self.graphql(query, json!({})).await?;
        rows(data["images"].take())
    }
}

fn rows<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|cause| Error::of(code::BAD_REPLY, "the server's rows cannot be understood").source(cause))
}
