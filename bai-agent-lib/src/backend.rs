//! Back ends: what runs a kernel on this host. The port is [`bai_core::port::KernelBackend`].

pub mod process;
