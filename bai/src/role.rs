//! The roles of a cluster of several processes, for the daemons: what each is configured with, and how it is composed.

#[cfg(feature = "cluster")]
mod agent;
#[cfg(feature = "cluster")]
mod manager;
#[cfg(feature = "cluster")]
mod resource;

#[cfg(feature = "cluster")]
pub use agent::{AgentConfig, AgentRole};
#[cfg(feature = "cluster")]
pub use manager::{ManagerConfig, ManagerRole};
#[cfg(feature = "cluster")]
pub use resource::ResourceConfig;

/// Binds a listener.
#[cfg(feature = "cluster")]
async fn bind(address: std::net::SocketAddr) -> bai_core::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address).await.map_err(|cause| {
        bai_core::Error::of(bai_core::error::code::CONFIG_INVALID, "cannot listen")
            .with("address", address)
            .with("reason", &cause)
            .source(cause)
    })
}

/// The address a listener got.
#[cfg(feature = "cluster")]
fn address(listener: &tokio::net::TcpListener) -> bai_core::Result<std::net::SocketAddr> {
    listener.local_addr().map_err(|cause| {
        bai_core::Error::of(bai_core::error::code::UNAVAILABLE, "the listener has no address").source(cause)
    })
}
