//! Typed async SDK of bai.
//!
//! A [`Client`] speaks the Backend.AI REST API, signed, through a [`Transport`]: [`Http`] to a server, [`InProcess`] to a
//! manager in the same program. The calls are the same.
//!
//! ```no_run
//! # async fn demo() -> bai_core::Result<()> {
//! use bai_client::{Client, Credentials, NewSession};
//!
//! let client = Client::connect("http://127.0.0.1:8081", Credentials::new("AKIA…", "secret"))?;
//! let session = client.create(NewSession::new("python")).await?;
//! let output = session.run("print(1 + 1)").await?;
//! assert_eq!(output.stdout(), "2\n");
//! session.destroy().await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod events;
mod graphql;
mod queue;
mod reply;
mod run;
mod session;
mod transport;

pub use bai_core::status::ClusterMode;
pub use client::{Client, Credentials};
pub use events::{EventStream, ServerEvent};
pub use graphql::{AgentRow, ImageRow, SessionRow};
pub use queue::{Explained, QueuedSession, WaitDetail};
pub use reply::ServerInfo;
pub use run::{RunOutput, RunStep};
pub use session::{Created, NewSession, Session, Upload};
pub use transport::{Body, Http, InProcess, Transport};
