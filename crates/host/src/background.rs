//! Threads that let all others go first where cores are short.

use rustix::process::setpriority_process;

/// As a nice value: such a thread gets a tenth of what one of the usual priority gets.
const PRIORITY: i32 = 10;

/// Makes the calling thread one of them, for good. On Linux a priority is a thread's own
/// (setpriority(2)).
pub(crate) fn become_background() {
    if let Err(error) = setpriority_process(None, PRIORITY) {
        tracing::debug!(%error, "the priority of a thread stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn only_the_thread_that_asks_goes_last() {
        let before = getpriority_process(None).unwrap();
        let background = std::thread::spawn(|| {
            become_background();
            getpriority_process(None).unwrap()
        });
        assert_eq!(background.join().unwrap(), before.max(PRIORITY));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
