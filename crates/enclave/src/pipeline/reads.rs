//! Reads that must see everything that was committed before they began (Ongaro 2014, section 6.4).
//!
//! The log is asked for one confirmation at a time; whoever comes meanwhile shares the next.

use std::sync::Arc;
use std::time::Duration;

use coco_consensus::ReadNo;
use tokio::sync::oneshot;

use super::drive::Inner;
use crate::session::within;

/// The question may be lost on its way to the primary: it is asked again after so many ticks.
const ASK_AGAIN_TICKS: u32 = 20;

/// Who waits for a confirmation.
#[derive(Default)]
pub(super) struct Reads {
    next: u64,
    /// For the next one.
    waiting: Vec<oneshot::Sender<()>>,
    asked: Option<Asked>,
}

struct Asked {
    number: ReadNo,
    waiters: Vec<oneshot::Sender<()>>,
    ticks: u32,
}

impl Reads {
    fn wait(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.push(sender);
        receiver
    }

    /// The number to ask the log with now, if somebody waits.
    fn begin(&mut self) -> Option<ReadNo> {
        if self.asked.is_some() || self.waiting.is_empty() {
            return None;
        }
        let number = ReadNo(self.next);
        self.next += 1;
        self.asked = Some(Asked { number, waiters: std::mem::take(&mut self.waiting), ticks: 0 });
        Some(number)
    }

    /// The log cannot be asked now.
    fn give_up(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.waiting.extend(asked.waiters);
        }
    }

    /// The log has confirmed; of what was given up nobody hears.
    fn confirm(&mut self, number: ReadNo) {
        if let Some(asked) = self.asked.take_if(|asked| asked.number == number) {
            for waiter in asked.waiters {
                // It may be leaving just now.
                let _ = waiter.send(());
            }
        }
    }

    fn tick(&mut self) {
        self.waiting.retain(|waiter| !waiter.is_closed());
        if let Some(asked) = &mut self.asked {
            asked.waiters.retain(|waiter| !waiter.is_closed());
            asked.ticks += 1;
            if asked.ticks >= ASK_AGAIN_TICKS || asked.waiters.is_empty() {
                self.give_up();
            }
        }
    }
}

impl Inner {
    /// Resolves when the state here holds all that was committed when the call was made, as a quorum
    /// has confirmed; false if that takes too long.
    pub async fn catch_up(self: &Arc<Self>, patience: Duration) -> bool {
        let caught_up = self.reads.lock().wait();
        self.ask_for_reads();
        within(&*self.host, patience, caught_up).await.is_some_and(|confirmed| confirmed.is_ok())
    }

    pub fn confirm_reads(self: &Arc<Self>, number: ReadNo) {
        self.reads.lock().confirm(number);
        self.ask_for_reads();
    }

    pub fn tick_reads(self: &Arc<Self>) {
        self.reads.lock().tick();
        self.ask_for_reads();
    }

    fn ask_for_reads(self: &Arc<Self>) {
        let Some(number) = self.reads.lock().begin() else { return };
        let asked = self.log.lock().consensus.read(number);
        match asked {
            Ok(()) => self.pump(),
            // The clock tries again.
            Err(_) => self.reads.lock().give_up(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test")]

    use super::*;

    #[test]
    fn who_comes_meanwhile_shares_the_next_confirmation() {
        let mut reads = Reads::default();
        assert_eq!(reads.begin(), None);
        let mut first = reads.wait();
        assert_eq!(reads.begin(), Some(ReadNo(0)));
        let (mut second, mut third) = (reads.wait(), reads.wait());
        assert_eq!(reads.begin(), None);
        reads.confirm(ReadNo(0));
        assert!(first.try_recv().is_ok() && second.try_recv().is_err());
        assert_eq!(reads.begin(), Some(ReadNo(1)));
        reads.confirm(ReadNo(0));
        assert!(
            second.try_recv().is_err(),
            "an old confirmation says nothing to whoever came later"
        );
        reads.confirm(ReadNo(1));
        assert!(second.try_recv().is_ok() && third.try_recv().is_ok());
        assert_eq!(reads.begin(), None);
    }

    #[test]
    fn a_lost_question_is_asked_again_for_those_who_still_wait() {
        let mut reads = Reads::default();
        let (mut stays, leaves) = (reads.wait(), reads.wait());
        assert_eq!(reads.begin(), Some(ReadNo(0)));
        drop(leaves);
        (0..ASK_AGAIN_TICKS).for_each(|_| reads.tick());
        assert_eq!(reads.waiting.len(), 1);
        assert_eq!(reads.begin(), Some(ReadNo(1)));
        reads.confirm(ReadNo(0));
        assert!(stays.try_recv().is_err());
        drop(stays);
        reads.tick();
        assert!(reads.asked.is_none() && reads.waiting.is_empty());
    }
}
