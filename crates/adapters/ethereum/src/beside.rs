//! Two things done at once.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Does `work` on another thread while this one does `here`, if that is wanted and a thread has time
/// for it; otherwise afterwards. Who waits for it never waits for a thread to become free.
pub(crate) fn beside<A: Send + 'static, B>(
    is_wanted: bool,
    work: impl FnOnce() -> A + Send + 'static,
    here: impl FnOnce() -> B,
) -> (A, B) {
    let runtime = Handle::try_current().ok().filter(|_| is_wanted);
    let Some(runtime) = runtime else {
        let done = here();
        return (work(), done);
    };
    let work = Arc::new(Mutex::new(Some(work)));
    let (result, there) = mpsc::sync_channel(1);
    let offered = Arc::clone(&work);
    runtime.spawn_blocking(move || {
        let taken = offered.lock().take();
        if let Some(work) = taken {
            let _ = result.send(catch_unwind(AssertUnwindSafe(work)));
        }
    });
    let done = here();
    let left = work.lock().take();
    match left {
        Some(work) => (work(), done),
        // Taken: it is being done. Whoever took it always sends.
        None => match there.recv() {
            Ok(Ok(result)) => (result, done),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(lost) => resume_unwind(Box::new(lost)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_runtime_one_follows_the_other() {
        assert_eq!(beside(true, || 1, || 2), (1, 2));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn another_thread_does_the_work() {
        let (begin, begun) = mpsc::sync_channel(1);
        let work = move || begin.send(()).map(|()| std::thread::current().id());
        let (there, here) = beside(true, work, || begun.recv());
        assert_eq!(here, Ok(()));
        assert_ne!(there, Ok(std::thread::current().id()));
    }

    #[test]
    fn this_thread_does_the_work_if_no_other_is_free() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).max_blocking_threads(1).build().unwrap();
        let _entered = runtime.enter();
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let taken = runtime.spawn_blocking(move || {
            begin.send(()).unwrap();
            released.recv().is_err()
        });
        begun.recv().unwrap();
        let (there, ()) = beside(true, || std::thread::current().id(), || ());
        assert_eq!(there, std::thread::current().id());
        drop(release);
        assert!(runtime.block_on(taken).unwrap());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_panic_there_is_a_panic_here() {
        let (started, begun) = mpsc::sync_channel::<()>(1);
        let work = move || {
            drop(started);
            std::panic::panic_any(7);
        };
        let both = || beside(true, work, || begun.recv().is_err());
        assert!(catch_unwind(AssertUnwindSafe(both)).is_err());
    }
}
