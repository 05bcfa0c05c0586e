//! The rows of bai on SQL: sessions, identities, agents, images, logs and embedded configuration, in an SQLite file or in
//! PostgreSQL, from one SQL text.
//!
//! * Every row is a JSON document, with a column beside it for whatever is searched, ordered or guarded by.
//! * Every change of a session is one guarded update that appends its events in the same transaction.
//! * The few statements that differ between the databases are side by side in `dialect.rs`.
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # async fn example(directory: &std::path::Path) -> bai_core::Result<()> {
//! use bai_core::port::SessionStore;
//! use bai_core::port::store::SessionQuery;
//! use bai_store::{Options, Store};
//!
//! let store = Store::open_sqlite(directory.join("bai.db"), Options::new([7; 32])).await?;
//! assert_eq!(store.find(&SessionQuery::default()).await?.total, 0);
//! # Ok(())
//! # }
//! # #[cfg(feature = "sqlite")] {
//! # let directory = tempfile::tempdir().unwrap();
//! # tokio::runtime::Runtime::new().unwrap().block_on(example(directory.path())).unwrap();
//! # }
//! ```

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!("bai-store needs a database: enable the feature `sqlite` or `postgres`");

mod agents;
mod cipher;
mod config;
mod convert;
mod db;
mod dialect;
mod identities;
mod images;
#[cfg(feature = "sqlite")]
mod lock;
mod logs;
mod migrate;
mod sessions;
mod store;

pub use store::{Options, Store};
