//! Clients: each does one thing after the other, at the node that it believes to be primary.

use coco_consensus::NodeId;
use coco_kv::Seqno;

use super::{Event, World};
use crate::history::{Call, Observed};
use crate::node::Outcome;

/// A client gives up on an answer.
const CLIENT_TIMEOUT_US: u64 = 1_500_000;
/// A read without an answer is asked for again.
const READ_AGAIN_US: u64 = 300_000;

/// A client.
#[derive(Default)]
pub(super) struct Client {
    /// Whom it believes to be primary.
    primary: Option<NodeId>,
    pub(super) doing: Option<Doing>,
}

/// What it does now.
#[derive(Clone, Copy)]
pub(super) struct Doing {
    pub(super) operation: u64,
    key: u64,
    /// What it writes; `None` for a read.
    value: Option<u64>,
    began_us: u64,
    told: Seqno,
    /// It has been handed to a node.
    sent: bool,
}

impl World {
    pub(super) fn client(&mut self, number: usize) -> Result<(), String> {
        let Some(client) = self.clients.get(number) else { return Ok(()) };
        let doing = match client.doing {
            Some(doing) => doing,
            None if self.quiet => return Ok(()),
            None => self.begin(number),
        };
        if doing.sent && doing.value.is_some() {
            return Ok(());
        }
        let running = self.running();
        let believed = self.clients.get(number).and_then(|client| client.primary);
        let Some(target) = believed
            .filter(|node| running.contains(node) && doing.value.is_some())
            .or_else(|| self.random.pick(&running))
        else {
            self.schedule(50_000, Event::Client(number));
            return Ok(());
        };
        let Doing { operation, key, value, .. } = doing;
        let sent = self.at(target, |process, service, random| match value {
            Some(value) => process.node.write(operation, (key, value), service, random),
            None => process.node.read(operation, key, service, random),
        });
        let sent = sent.unwrap_or(false);
        let hint = self.processes.get(&target).and_then(|process| process.node.primary());
        if let Some(client) = self.clients.get_mut(number) {
            client.primary = hint.filter(|hint| *hint != target || sent);
            if let Some(doing) = &mut client.doing {
                doing.sent |= sent;
            }
        }
        let again = match (sent, value) {
            (true, Some(_)) => None,
            (true, None) => Some(READ_AGAIN_US),
            (false, _) => Some(self.random.between(1_000, 40_000)),
        };
        if let Some(again) = again {
            self.schedule(again, Event::Client(number));
        }
        self.after(target)
    }

    fn begin(&mut self, number: usize) -> Doing {
        let operation = self.next_operation;
        self.next_operation += 1;
        let doing = Doing {
            operation,
            key: self.random.below(self.plan.keys),
            value: self.random.chance(600).then_some(operation),
            began_us: self.now_us,
            told: self.checker.told(),
            sent: false,
        };
        if let Some(client) = self.clients.get_mut(number) {
            client.doing = Some(doing);
        }
        self.schedule(CLIENT_TIMEOUT_US, Event::Timeout(number, operation));
        doing
    }

    fn find(&mut self, operation: u64) -> Option<(usize, Doing)> {
        let is = |client: &Client| client.doing.is_some_and(|doing| doing.operation == operation);
        let number = self.clients.iter().position(is)?;
        let doing = self.clients.get_mut(number)?.doing.take()?;
        let pause = self.random.between(1_000, self.plan.think_us);
        self.schedule(pause, Event::Client(number));
        Some((number, doing))
    }

    pub(super) fn answer(&mut self, operation: u64, outcome: Outcome) -> Result<(), String> {
        let Some((_, doing)) = self.find(operation) else { return Ok(()) };
        self.checker.answer(doing.key, doing.value.unwrap_or(0), doing.told, outcome)?;
        let call = match (outcome, doing.value) {
            (Outcome::Read(value, _), _) => Call::Read(value),
            (Outcome::Committed(_), Some(value)) => Call::Write(value),
            _ => return Ok(()),
        };
        self.answered_since_healing += u64::from(self.healed && doing.value.is_some());
        let observed = Observed { from_us: doing.began_us, to_us: self.now_us, call };
        self.history.note(doing.key, observed);
        Ok(())
    }

    /// Nobody knows what became of an operation.
    pub(super) fn lose_answer(&mut self, operation: u64) -> Result<(), String> {
        let Some((number, doing)) = self.find(operation) else { return Ok(()) };
        if let Some(client) = self.clients.get_mut(number) {
            client.primary = None;
        }
        self.report.unknown += 1;
        if let (true, Some(value)) = (doing.sent, doing.value) {
            let call = Call::Write(value);
            self.history
                .note(doing.key, Observed { from_us: doing.began_us, to_us: u64::MAX, call });
        }
        Ok(())
    }

    pub(super) fn time_out(&mut self, number: usize, operation: u64) -> Result<(), String> {
        let doing = self.clients.get(number).and_then(|client| client.doing);
        match doing {
            Some(doing) if doing.operation == operation => self.lose_answer(operation),
            _ => Ok(()),
        }
    }
}
