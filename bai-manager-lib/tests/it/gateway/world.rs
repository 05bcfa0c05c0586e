//! A cluster in memory with one scripted agent and a few users.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bai_core::identity::{Credential, Keypair, KeypairPolicy, Project, User, UserRole, UserStatus};
use bai_core::memory::{MemoryConfig, MemoryCounter, MemoryEvents, MemoryLease, MemoryStore};
use bai_core::{AccessKey, Secret, SystemClock, UserId};
use bai_manager_lib::gateway::{self, GatewayOptions};
use bai_manager_lib::identity::Bootstrap;
use bai_manager_lib::{Backends, Manager, ManagerOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::call::{Answer, Call};
use super::scripted_agent::{Dialer, ScriptedAgent};

pub(crate) const PASSWORD: &str = "correct horse";

/// Everything a test needs.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) manager: Manager,
    pub(crate) agent: Arc<ScriptedAgent>,
    pub(crate) router: Router,
    pub(crate) shutdown: CancellationToken,
    /// The superadmin.
    pub(crate) admin: Credential,
    /// An ordinary user.
    pub(crate) user: Credential,
}

impl World {
    pub(crate) async fn start() -> Self {
        let store = Arc::new(MemoryStore::new());
        let backends = Backends {
            sessions: store.clone(),
            identities: store.clone(),
            agents: store.clone(),
            images: store.clone(),
            logs: store,
            events: Arc::new(MemoryEvents::new()),
            config: Arc::new(MemoryConfig::new()),
            lease: Arc::new(MemoryLease::new()),
            counter: Arc::new(MemoryCounter::new()),
            clock: Arc::new(SystemClock),
            secret: [7; 32].into(),
        };
        let agent = ScriptedAgent::new();
        let dialer = Arc::new(Dialer(agent.clone()));
        let manager = Manager::start(backends, dialer, ManagerOptions::default()).await.unwrap();
        let bootstrap = Bootstrap {
            email: "admin@example.com".into(),
            password: Secret::new(PASSWORD.into()),
            access_key: Some(AccessKey::from("AKIAIOSFODNN7EXAMPLE")),
            secret_key: Some(Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into())),
        };
        let admin = manager.identities().bootstrap(bootstrap).await.unwrap();
        let user = add_user(&manager, "user", UserRole::User, "AKIANORMALUSER000001").await;
        agent.join(&manager).await;
        let shutdown = CancellationToken::new();
        let router = gateway::router(manager.clone(), options(&shutdown));
        Self { manager, agent, router, shutdown, admin, user }
    }

    pub(crate) fn options(&self) -> GatewayOptions {
        options(&self.shutdown)
    }

    pub(crate) async fn send(&self, call: &Call) -> Answer {
        call.send(&self.router).await
    }

    /// Sends the request signed by the superadmin.
    pub(crate) async fn admin(&self, call: Call) -> Answer {
        call.by(&self.admin).send(&self.router).await
    }

    /// Starts a session of the superadmin and returns its id.
    pub(crate) async fn session(&self, name: &str) -> String {
        self.session_of(&self.admin, name).await
    }

    pub(crate) async fn session_of(&self, owner: &Credential, name: &str) -> String {
        let body =
            json!({ "name": name, "image": "python", "tag": "t", "config": { "environ": { "FOO": "bar" } } });
        let answer = Call::post("/session").json(&body).by(owner).send(&self.router).await;
        let created = answer.ok(201);
        assert_eq!(created["status"], "RUNNING", "{created}");
        created["sessionId"].as_str().unwrap().to_owned()
    }

    /// Runs a GraphQL query of the caller.
    pub(crate) async fn query(&self, caller: &Credential, query: &str, variables: Value) -> Value {
        let call = Call::post("/admin/gql").json(&json!({ "query": query, "variables": variables }));
        call.by(caller).send(&self.router).await.ok(200)
    }
}

fn options(shutdown: &CancellationToken) -> GatewayOptions {
    let mut options = GatewayOptions::default();
    options.execute_flush = Duration::from_millis(50);
    options.stream_flush = Duration::from_millis(20);
    options.event_keep_alive = Duration::from_millis(100);
    options.shutdown = shutdown.clone();
    options
}

/// Adds a user with one keypair to the default project.
pub(crate) async fn add_user(manager: &Manager, name: &str, role: UserRole, access_key: &str) -> Credential {
    let identities = &manager.backends().identities;
    let directory = identities.directory().await.unwrap();
    let created_at = directory.users[0].created_at;
    let user = User {
        id: UserId::random(),
        email: format!("{name}@example.com"),
        username: name.into(),
        full_name: name.to_uppercase(),
        domain: "default".into(),
        role,
        status: UserStatus::Active,
        password_hash: None,
        allowed_client_ip: Vec::new(),
        sudo_session_enabled: false,
        created_at,
        main_access_key: Some(access_key.into()),
    };
    let keypair = Keypair {
        access_key: access_key.into(),
        secret_key: Secret::new(format!("secret-of-{name}")),
        user_id: user.id,
        is_active: true,
        is_admin: false,
        resource_policy: "default".into(),
        rate_limit: 10_000,
        created_at,
    };
    let (project, mut members): (Project, Vec<UserId>) =
        directory.projects.iter().find(|(project, _)| project.name == "default").cloned().unwrap();
    members.push(user.id);
    identities.put_user(&user).await.unwrap();
    identities.put_keypair(&keypair).await.unwrap();
    identities.put_project(&project, &members).await.unwrap();
    manager.identities().invalidate();
    let policy: KeypairPolicy = directory.policies["default"].clone();
    Credential { keypair, user, policy }
}
