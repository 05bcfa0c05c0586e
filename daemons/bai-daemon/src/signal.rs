//! Signals as a cancellation.

use bai_core::{Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled on the first SIGTERM or SIGINT. A second one ends the process at once, as is the default.
///
/// # Errors
/// `Internal` when the signals cannot be watched.
pub fn shutdown_on_signal() -> Result<CancellationToken> {
    let watch = |kind| {
        signal(kind).map_err(|cause| Error::new(ErrorKind::Internal, "cannot watch signals").source(cause))
    };
    let (mut term, mut int) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        cancelled.cancel();
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        std::process::exit(1);
    });
    Ok(token)
}
