//! Threads that survive their own panics (K-12).

use std::{
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Pause before a thread that panicked is started again, so that a lasting fault costs no processor time.
const PAUSE: Duration = Duration::from_millis(50);

/// Locks a mutex whose data is still good after a panic: every critical section here leaves it whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread that runs `body` until it returns; a panic is logged and `body` is run again.
pub(super) fn supervised(name: &str, mut body: impl FnMut() + Send + 'static) -> io::Result<()> {
    let thread_name = name.to_owned();
    thread::Builder::new().name(name.to_owned()).stack_size(512 << 10).spawn(move || {
        while catch_unwind(AssertUnwindSafe(&mut body)).is_err() {
            note(&format!("thread {thread_name} panicked and is restarted"));
            thread::sleep(PAUSE);
        }
    })?;
    Ok(())
}

/// Writes a line to the console of the kernel. Failures are nobody's concern.
pub(super) fn note(text: &str) {
    let line = format!("bai-krunner: {text}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_goes_on_after_a_panic() {
        let (sender, receiver) = mpsc::channel();
        let mut left = 2;
        supervised("test", move || {
            if left > 0 {
                left -= 1;
                panic!("injected");
            }
            sender.send("alive").unwrap();
        })
        .unwrap();
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)).unwrap(), "alive");
    }
}
