//! Back ends: what runs a kernel on this host. The port is [`bai_core::port::KernelBackend`].

#[cfg(feature = "docker")]
pub mod docker;
pub mod process;
pub mod simulated;
