//! Work that takes long, done where it holds up no session and no batch.

use std::io;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does the work on a thread for such work; where there is but one thread, at once. Must be called
/// on the runtime.
pub(crate) async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
