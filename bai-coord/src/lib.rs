//! Coordination between the processes of a cluster.
//!
//! | port | one process | several |
//! |---|---|---|
//! | [`Events`](bai_core::port::Events) | [`MemoryEvents`](bai_core::memory::MemoryEvents) | [`Redis`], streams |
//! | [`Counter`](bai_core::port::Counter) | [`MemoryCounter`](bai_core::memory::MemoryCounter) | [`Redis`], hashes |
//! | [`ConfigStore`](bai_core::port::ConfigStore) | [`MemoryConfig`](bai_core::memory::MemoryConfig) | [`Etcd`], keys |
//! | [`Lease`](bai_core::port::Lease) | [`MemoryLease`](bai_core::memory::MemoryLease) | [`Etcd`], leases |
//!
//! What is lost with a connection is told as `Unavailable`; the next call, or the next item of a stream, connects again.

#![cfg_attr(not(all(feature = "redis", feature = "etcd")), allow(rustdoc::broken_intra_doc_links))]

#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "redis")]
mod redis;

#[cfg(feature = "etcd")]
pub use etcd::{Etcd, EtcdOptions};
#[cfg(feature = "redis")]
pub use redis::{Redis, RedisOptions};
