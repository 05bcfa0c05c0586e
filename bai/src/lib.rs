//! A whole compute cluster in a Rust program, and the parts to compose one from.
//!
//! ```no_run
//! # async fn demo() -> bai::Result<()> {
//! use bai::{Cluster, NewSession};
//!
//! let cluster = Cluster::embedded().build().await?;
//! let session = cluster.client().create(NewSession::new("python")).await?;
//! println!("{}", session.run("print('hello world')").await?.stdout());
//! session.destroy().await?;
//! cluster.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! The same code works against a server: replace the first line by `Client::connect(endpoint, credentials)`.

mod cluster;
pub mod role;
mod runtime;
mod secrets;

pub use bai_client::{
    Client, Created, Credentials, EventStream, NewSession, RunOutput, ServerEvent, Session, Upload,
};
pub use bai_core::execution::{BatchOptions, ConsoleItem};
pub use bai_core::status::ClusterMode;
pub use bai_core::{Error, ErrorKind, Result};
pub use cluster::{Builder, Cluster, Server};
pub use runtime::{Facility, Runtime, doctor};
