//! The vocabulary of bai and the ports its libraries meet through.
//!
//! * **Vocabulary**: [`id`]s, resource [`slots`], session and kernel [`status`] machines, the [`session`]
//!   aggregate, [`identity`] rows, request [`signing`], the GraphQL [`query`] mini-languages, [`units`].
//! * **[`error`]**: one opaque [`Error`], and the one table that maps it to every edge.
//! * **[`port`]s**: the traits that back ends implement, with in-memory implementations in [`memory`].
//!
//! Nothing here does I/O, reads the environment or starts a task.

pub mod clock;
pub mod error;
pub mod execution;
pub mod id;
pub mod identity;
pub mod image;
pub mod image_ref;
pub mod memory;
pub mod port;
pub mod query;
pub mod secret;
pub mod session;
pub mod signing;
pub mod slots;
pub mod status;
pub mod units;

pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use error::{Code, Error, ErrorKind, Result};
pub use id::{AccessKey, AgentId, KernelId, ProjectId, SessionId, UserId};
pub use secret::Secret;
pub use session::{Kernel, Session};
pub use slots::ResourceSlots;
pub use status::{KernelStatus, SessionStatus};
