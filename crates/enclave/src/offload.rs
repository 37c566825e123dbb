//! Work that takes long, done where it holds up no session and no batch.

use std::io;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use crate::host::Host;

/// Does the work on a thread for such work; where there is but one thread, at once. Must be called
/// on the runtime.
pub(crate) async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if is_only_thread() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Does long work that may come after everything else there is to do. Must be called on the runtime.
pub(crate) async fn offload_to_background<T: Send + 'static>(
    host: &dyn Host,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if is_only_thread() {
        return Ok(work());
    }
    let (done, result) = oneshot::channel();
    host.run_in_background(Box::new(move || {
        // Nobody may wait any more.
        let _ = done.send(work());
    }))?;
    result.await.map_err(io::Error::other)
}

/// Whether the runtime has no other: simulated time must not go on beside work.
fn is_only_thread() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}
