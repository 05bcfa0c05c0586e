//! Manager and agent across processes.
