//! Reconcilers: each compares what should be with what is, and acts. All are idempotent and may run at any time.
