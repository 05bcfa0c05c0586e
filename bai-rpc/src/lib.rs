//! Manager and agent across processes.
//!
//! ```text
//!  manager: RemoteAgent   ── POST /rpc ──▶ serve_agent   : agent       (commands)
//!  manager: manager_router ◀── POST /rpc ── RemoteManager : agent       (reports)
//! ```
//!
//! The two ports [`AgentApi`](bai_core::port::AgentApi) and [`ManagerApi`](bai_core::port::ManagerApi) are carried as
//! MessagePack over one multiplexed HTTP/2 connection per peer, with a shared secret as bearer token and a deadline on every
//! call. Errors keep their code, message and context. Which side of a pair is local and which is remote makes no
//! difference to the caller: the same conformance suite runs on both.
//!
//! ```no_run
//! # async fn example(agent: std::sync::Arc<dyn bai_core::port::AgentApi>) -> bai_core::Result<()> {
//! use bai_core::Secret;
//! use tokio_util::sync::CancellationToken;
//!
//! let secret = Secret::new("a long random text".to_owned());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:6001").await.unwrap();
//! let shutdown = CancellationToken::new();
//! tokio::spawn(bai_rpc::serve_agent(agent, listener, secret.clone(), shutdown.clone()));
//!
//! let remote = bai_rpc::RemoteAgent::connect("127.0.0.1:6001", &secret)?;
//! # Ok(())
//! # }
//! ```

mod agent;
mod client;
mod manager;
mod server;
mod wire;

pub use agent::{RemoteAgent, agent_router, serve_agent};
pub use manager::{RemoteManager, manager_router};
pub use server::serve;
