//! Requests for new sessions.

use std::collections::BTreeMap;
use std::time::Duration;

use bai_core::status::ClusterMode;
use bai_core::{Error, Result, error::code};
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Session;
use crate::client::{Client, Content};

/// A request for a session. Everything but the image has a default.
#[derive(Debug, Clone)]
pub struct NewSession {
    image: String,
    name: Option<String>,
    batch_command: Option<String>,
    resources: Map<String, Value>,
    resource_opts: Map<String, Value>,
    environ: BTreeMap<String, String>,
    tag: Option<String>,
    bootstrap_script: Option<String>,
    dependencies: Vec<String>,
    resource_group: Option<String>,
    cluster_size: u32,
    cluster_mode: ClusterMode,
    priority: Option<u8>,
    starts_at: Option<String>,
    batch_timeout: Option<Duration>,
    enqueue_only: bool,
    reuse: bool,
    max_wait: Duration,
}

/// A session as the create request left it.
#[derive(Debug, Clone)]
pub struct Created {
    /// Handle.
    pub session: Session,
    /// Identity.
    pub id: String,
    /// Name.
    pub name: String,
    /// `RUNNING`, `PENDING`, `TIMEOUT`, `ERROR` …
    pub status: String,
    /// Whether it is new rather than reused.
    pub is_new: bool,
}

impl Created {
    /// Itself, unless the session was not started.
    ///
    /// # Errors
    /// `Timeout` when the session still waits after [`NewSession::max_wait`], and `Unavailable` ([`code::SESSION_FAILED`]) when it
    /// could not be started.
    pub fn check(self) -> Result<Self> {
        let error = match self.status.as_str() {
            "TIMEOUT" => Error::of(code::TIMEOUT, "the session still waits in the queue"),
            "ERROR" | "CANCELLED" => Error::of(code::SESSION_FAILED, "the session could not be started")
                .with("status", self.status),
            _ => return Ok(self),
        };
        Err(error.with("name", self.name).with("id", self.id))
    }
}

impl NewSession {
    /// An interactive session of one kernel from `image` (a name or an alias).
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            name: None,
            batch_command: None,
            resources: Map::new(),
            resource_opts: Map::new(),
            environ: BTreeMap::new(),
            tag: None,
            bootstrap_script: None,
            dependencies: Vec::new(),
            resource_group: None,
            cluster_size: 1,
            cluster_mode: ClusterMode::SingleNode,
            priority: None,
            starts_at: None,
            batch_timeout: None,
            enqueue_only: false,
            reuse: true,
            max_wait: Duration::ZERO,
        }
    }

    /// The name; a random one otherwise. A living session of the same name and image is reused.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes it a batch session that runs `command` and ends.
    #[must_use]
    pub fn batch(mut self, command: impl Into<String>) -> Self {
        self.batch_command = Some(command.into());
        self
    }

    /// Asks for an amount of a resource slot, such as `("cpu", "2")` or `("mem", "512m")`.
    #[must_use]
    pub fn resource(mut self, slot: impl Into<String>, amount: impl Into<String>) -> Self {
        self.resources.insert(slot.into(), Value::String(amount.into()));
        self
    }

    /// Asks for `cores` cores.
    #[must_use]
    pub fn cpu(self, cores: u32) -> Self {
        self.resource("cpu", cores.to_string())
    }

    /// Asks for memory, such as `512m`.
    #[must_use]
    pub fn mem(self, size: impl Into<String>) -> Self {
        self.resource("mem", size)
    }

    /// Sets a resource option such as `("shmem", "64m")`.
    #[must_use]
    pub fn resource_opt(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.resource_opts.insert(key.into(), Value::String(value.into()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.environ.insert(key.into(), value.into());
        self
    }

    /// Attaches free text.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// A shell script to run in the main kernel before anything else.
    #[must_use]
    pub fn bootstrap_script(mut self, script: impl Into<String>) -> Self {
        self.bootstrap_script = Some(script.into());
        self
    }

    /// Waits in the queue until the session of this name or id has succeeded.
    #[must_use]
    pub fn after(mut self, session: impl Into<String>) -> Self {
        self.dependencies.push(session.into());
        self
    }

    /// Number of kernels.
    #[must_use]
    pub fn cluster_size(mut self, size: u32) -> Self {
        self.cluster_size = size;
        self
    }

    /// Whether the kernels share one agent, as they do by default, or get one each.
    #[must_use]
    pub fn cluster_mode(mut self, mode: ClusterMode) -> Self {
        self.cluster_mode = mode;
        self
    }

    /// Priority in the queue, from 0 to 100 for the most urgent; the server's own otherwise.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Earliest start: a time in ISO 8601, or a span from now such as `5m` or `2h`.
    #[must_use]
    pub fn starts_at(mut self, time: impl Into<String>) -> Self {
        self.starts_at = Some(time.into());
        self
    }

    /// Longest run of a batch session, in whole seconds; then it ends as a failure.
    #[must_use]
    pub fn batch_timeout(mut self, limit: Duration) -> Self {
        self.batch_timeout = Some(limit);
        self
    }

    /// Resource group to be scheduled in.
    #[must_use]
    pub fn resource_group(mut self, name: impl Into<String>) -> Self {
        self.resource_group = Some(name.into());
        self
    }

    /// Returns as soon as the session is in the queue.
    #[must_use]
    pub fn enqueue_only(mut self) -> Self {
        self.enqueue_only = true;
        self
    }

    /// Fails when a living session has the same name.
    #[must_use]
    pub fn no_reuse(mut self) -> Self {
        self.reuse = false;
        self
    }

    /// Longest time to wait for the start, in whole seconds; no limit by default.
    #[must_use]
    pub fn max_wait(mut self, limit: Duration) -> Self {
        self.max_wait = limit;
        self
    }

    fn body(&self, name: &str) -> Value {
        use base64::Engine;
        let script =
            self.bootstrap_script.as_ref().map(|text| base64::engine::general_purpose::STANDARD.encode(text));
        let resources = (!self.resources.is_empty()).then_some(&self.resources);
        let mut body = json!({
            "name": name,
            "image": self.image,
            "type": if self.batch_command.is_some() { "batch" } else { "interactive" },
            "clusterSize": self.cluster_size,
            "clusterMode": self.cluster_mode,
            "priority": self.priority,
            "starts_at": self.starts_at,
            "batch_timeout": self.batch_timeout.map(|limit| limit.as_secs()),
            "config": {
                "environ": self.environ,
                "resources": resources,
                "resourceOpts": self.resource_opts,
                "scalingGroup": self.resource_group,
            },
            "tag": self.tag,
            "enqueueOnly": self.enqueue_only,
            "maxWaitSeconds": self.max_wait.as_secs(),
            "reuseIfExists": self.reuse,
            "startupCommand": self.batch_command,
            "bootstrap_script": script,
        });
        if !self.dependencies.is_empty() {
            body["dependencies"] = json!(self.dependencies);
        }
        body
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateReply {
    session_id: String,
    session_name: String,
    status: String,
    created: bool,
}

impl Client {
    /// A handle to the session of this name or id. Nothing is sent.
    pub fn session(&self, reference: impl Into<String>) -> Session {
        Session { client: self.clone(), reference: reference.into() }
    }

    /// Creates a session, waits until it runs, and returns its handle.
    ///
    /// # Errors
    /// As [`Client::request`] and [`Created::check`], and `Unavailable` ([`code::SESSION_FAILED`]) in another status than `RUNNING`.
    pub async fn create(&self, new: NewSession) -> Result<Session> {
        let created = self.request(new).await?.check()?;
        if created.status == "RUNNING" {
            return Ok(created.session);
        }
        Err(Error::of(code::SESSION_FAILED, "the session could not be started")
            .with("name", created.name)
            .with("status", created.status))
    }

    /// Creates a session and reports what became of it, whatever that is.
    ///
    /// # Errors
    /// `Invalid` for wrong parameters, `NotFound` for an unknown image or group, `AlreadyExists` when the name is taken and
    /// reuse is off.
    pub async fn request(&self, new: NewSession) -> Result<Created> {
        let name = new.name.clone().unwrap_or_else(random_name);
        let reply: CreateReply = self.json(Method::POST, "/session", Content::json(&new.body(&name))).await?;
        Ok(Created {
            session: self.session(reply.session_id.clone()),
            id: reply.session_id,
            name: reply.session_name,
            status: reply.status,
            is_new: reply.created,
        })
    }
}

fn random_name() -> String {
    let id = bai_core::SessionId::random().0.simple().to_string();
    format!("bai-{}", &id[..10])
}
