//! Randomness that follows from a seed.
//!
//! Hash maps of the standard library, ids and tokio's choices begin with what the system calls random. On a thread with a seed that is
//! a sequence of numbers which the seed determines; on any other it is what the system gives.

use std::cell::Cell;
use std::ffi::{c_uint, c_void};

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What this thread takes for random follows from `seed` from now on. Comes before anything that draws.
pub(crate) fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// Takes the place of the function of this name in the C library, which is where the standard library and the crates `rand` and
/// `uuid` get their first random bytes from.
// SAFETY: the name is taken on purpose, and the signature is that of the function it stands for.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    let Some(mut state) = STATE.get() else {
        // SAFETY: the arguments are the caller's, who means them for this call.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(got).unwrap_or(-1);
    };
    if length > 0 {
        // SAFETY: the caller gives a buffer of this length; that of an empty one may be anything.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        for chunk in bytes.chunks_mut(8) {
            let word = next(&mut state).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        STATE.set(Some(state));
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
