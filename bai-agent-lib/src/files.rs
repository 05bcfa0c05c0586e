//! Files in the home directory of a kernel, from the host's side (spec session-lifecycle.md, sections 7 and 8).
//!
//! User code owns everything below the directory and may put symbolic links anywhere at any time. So no path is ever
//! resolved by name twice: the kernel resolves it once below the directory's descriptor (`openat2` with
//! `RESOLVE_BENEATH`), and everything else happens relative to what came out. All calls block.

mod archive;
mod home;
mod listing;

pub(crate) use home::Home;

/// Largest file or archive in bytes.
pub(crate) const SIZE_LIMIT: u64 = 1 << 20;
