//! A cluster in virtual time, whose every move follows from one number, the *seed*.
//!
//! ```text
//!   managers (the real ones) ── StoreLink ──► SharedStore ──► Ledger: checks every commit
//!      │  ▲        └────────── LeaseLink, EventsLink
//!      │  │                          all of them over the Network:
//!  AgentLink│ reports                loses, delays, repeats, cuts, stalls
//!      ▼  │
//!     Nodes ──► Ledger: checks every command, and knows what really runs
//! ```
//!
//! Nothing here knows a manager: what has the ports can be simulated. The driver starts managers on the links, has sessions
//! created, breaks things, [calms](Network::calm) the network down again, and asks the [`Trace`] what has gone wrong.
//!
//! All of it belongs on one thread with tokio's clock paused: then nothing but the seed decides what happens, in which order and when.

mod chance;
mod clock;
mod ledger;
mod link;
mod managers;
mod network;
mod node;
mod store;
mod trace;

pub use chance::Chance;
pub use clock::{HostClock, VirtualClock};
pub use ledger::Ledger;
pub use link::{AgentLink, EventsLink, LeaseLink};
pub use managers::{Life, Managers};
pub use network::{Network, Weather};
pub use node::{Crash, Node, NodeOptions, Surroundings};
pub use store::{SharedStore, StoreLink};
pub use trace::Trace;
