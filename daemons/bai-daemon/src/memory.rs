//! What the daemons allocate with.

use std::time::Duration;

/// Requests and records are many small pieces that one thread makes and another drops: with the system's allocator that takes a
/// fifth of all processor time. Huge pages are off: with them an idle daemon holds 20 MB more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As long as the allocator keeps freed pages in the hope of using them again.
const INTERVAL: Duration = Duration::from_secs(1);

/// Gives freed pages back to the system when they have not been used again for a second. By itself the allocator looks only
/// when it is called for more: what the last burst left, or the check of a password (19 MB), an idle daemon would hold for good. Runs until dropped.
pub async fn give_back_memory() {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        // SAFETY: any thread may call it at any time; it looks at free memory only.
        #[allow(unsafe_code)]
        unsafe {
            libmimalloc_sys::mi_collect(false);
        }
    }
}
