//! Turns: what wakes a session while it runs makes it run again, without the executor.
//!
//! Hyper wakes its own task when it passes a body on. To the executor that is a task that yields,
//! and it wakes another thread to share the work: dearer than the request itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// After so many turns the other sessions of the thread come first.
const MAX_TURNS: usize = 16;

const RESTING: u8 = 0;
const RUNNING: u8 = 1;
const WOKEN: u8 = 2;

/// Calls `turn` until it is done; while it is pending, it is called again whenever it was woken.
pub(super) async fn in_turns<T>(mut turn: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let turns = Arc::new(Turns::default());
    let waker = Waker::from(turns.clone());
    std::future::poll_fn(|cx| {
        turns.task.register(cx.waker());
        for _ in 0..MAX_TURNS {
            turns.state.store(RUNNING, Ordering::SeqCst);
            if let Poll::Ready(done) = turn(&mut Context::from_waker(&waker)) {
                return Poll::Ready(done);
            }
            if turns.rest() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[derive(Default)]
struct Turns {
    task: AtomicWaker,
    state: AtomicU8,
}

impl Turns {
    /// Ends a turn, unless there was a wake in it.
    fn rest(&self) -> bool {
        let order = Ordering::SeqCst;
        self.state.compare_exchange(RUNNING, RESTING, order, order).is_ok()
    }
}

impl Wake for Turns {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == RESTING {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_within_a_turn_is_another_turn() {
        let (woken, turns) = (Arc::new(Woken::default()), std::cell::Cell::new(0));
        let waker = Waker::from(woken.clone());
        let mut session = std::pin::pin!(in_turns(|cx| {
            turns.set(turns.get() + 1);
            if turns.get() < 3 {
                cx.waker().wake_by_ref();
            }
            if turns.get() == 4 { Poll::Ready(()) } else { Poll::Pending }
        }));
        let cx = &mut Context::from_waker(&waker);
        assert!(session.as_mut().poll(cx).is_pending());
        assert_eq!(turns.get(), 3);
        assert!(session.as_mut().poll(cx).is_ready());
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_wake_between_turns_wakes_the_task() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let kept = std::cell::RefCell::new(None);
        let mut session = std::pin::pin!(in_turns(|cx| {
            *kept.borrow_mut() = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        assert!(session.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        for expected in [1, 1] {
            kept.borrow().as_ref().unwrap().wake_by_ref();
            assert_eq!(woken.0.load(Ordering::SeqCst), expected);
        }
        assert!(session.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        kept.borrow().as_ref().unwrap().wake_by_ref();
        assert_eq!(woken.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_session_that_never_rests_lets_others_run() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut session = std::pin::pin!(in_turns(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert!(session.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    }
}
