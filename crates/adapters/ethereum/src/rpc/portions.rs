//! What a WebSocket is told of blocks and transactions, in portions of bounded size: the next one is
//! made when the client has taken the one before.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use alloy_primitives::{B256, U64};
use coco_kv::Tx;
use serde_json::json;

use super::logs::{LogFilter, Place};
use super::{Params, Rpc, RpcError};

pub(super) type Subscriptions = BTreeMap<U64, Subscription>;

#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub kind: Kind,
    /// What was before it is no news.
    pub after_block: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    NewHeads,
    Logs(Arc<LogFilter>),
    NewPendingTransactions { full: bool },
    Syncing,
}

impl Kind {
    pub fn is_of_blocks(&self) -> bool {
        matches!(self, Self::NewHeads | Self::Logs(_))
    }

    pub fn is_of_transactions(&self) -> bool {
        matches!(self, Self::NewPendingTransactions { .. })
    }

    /// Whether its news may take long to make.
    pub fn is_long(&self) -> bool {
        matches!(self, Self::Logs(_) | Self::NewPendingTransactions { full: true })
    }

    /// What its filter takes of the memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Logs(filter) => filter.bytes(),
            Self::NewHeads | Self::NewPendingTransactions { .. } | Self::Syncing => 0,
        }
    }
}

/// How far a session has been told: what comes next, and the last subscription that was told this
/// already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next<At> {
    pub at: At,
    pub told: Option<U64>,
}

impl<At> Next<At> {
    pub fn new(at: At) -> Self {
        Self { at, told: None }
    }
}

/// Messages for a client.
#[derive(Debug, Default)]
pub(super) struct Portion {
    pub messages: Vec<Vec<u8>>,
    bytes: usize,
    effort: usize,
}

impl Portion {
    /// Beyond it a portion is full.
    const MAX_BYTES: usize = 1024 * 1024;
    /// Logs and blocks that are looked at for one portion.
    const MAX_EFFORT: usize = 100_000;
    /// What it is to read a block or a transaction, when it is one to compare a log with a filter.
    const READING: usize = 100;

    fn push(&mut self, id: U64, result: &str) {
        let message = format!(
            r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{{"result":{result},"subscription":"{id:#x}"}}}}"#
        );
        self.bytes += message.len();
        self.messages.push(message.into_bytes());
    }

    pub fn is_full(&self) -> bool {
        self.bytes >= Self::MAX_BYTES || self.effort >= Self::MAX_EFFORT
    }
}

impl Rpc {
    /// What comes next of the blocks up to `head`: of one block, or nothing.
    pub(super) fn portion_of_blocks(
        &self,
        subscriptions: &Subscriptions,
        mut next: Next<Place>,
        head: u64,
    ) -> Result<(Portion, Next<Place>), RpcError> {
        let tx = &mut self.node.begin();
        let mut portion = Portion::default();
        while next.at.block <= head && portion.messages.is_empty() && !portion.is_full() {
            portion.effort += Portion::READING;
            next = self.tell_block(tx, subscriptions, next, &mut portion)?;
        }
        Ok((portion, next))
    }

    fn tell_block(
        &self,
        tx: &mut Tx,
        subscriptions: &Subscriptions,
        next: Next<Place>,
        portion: &mut Portion,
    ) -> Result<Next<Place>, RpcError> {
        let number = next.at.block;
        let listening = || subscriptions.iter().filter(|(_, it)| it.after_block < number);
        if next == Next::new(Place::before(number)) {
            let heads = listening().filter(|(_, it)| matches!(it.kind, Kind::NewHeads));
            let heads: Vec<_> = heads.map(|(id, _)| *id).collect();
            if !heads.is_empty() {
                let params = Params::new(Some(json!([format!("{number:#x}")])))?;
                let header = self.header_by_number(&params)?.to_string();
                heads.into_iter().for_each(|id| portion.push(id, &header));
            }
        }
        let filters: Vec<_> = listening()
            .filter_map(|(id, it)| match &it.kind {
                Kind::Logs(filter) => Some((*id, &**filter)),
                Kind::NewHeads | Kind::NewPendingTransactions { .. } | Kind::Syncing => None,
            })
            .collect();
        let stopped = match filters.is_empty() {
            true => None,
            false => self.tell_logs(tx, &filters, next, portion)?,
        };
        Ok(stopped.unwrap_or(Next::new(Place::before(number.saturating_add(1)))))
    }

    /// Where it stopped, if the block has more.
    fn tell_logs(
        &self,
        tx: &mut Tx,
        filters: &[(U64, &LogFilter)],
        next: Next<Place>,
        portion: &mut Portion,
    ) -> Result<Option<Next<Place>>, RpcError> {
        let mut told = next.told;
        let may_match = |bloom| filters.iter().any(|(_, filter)| filter.may_match(bloom));
        let walked = self.walk_logs(tx, next.at, may_match, |met| {
            let told = told.take();
            let mut shown = None;
            for (id, filter) in filters.iter().filter(|(id, _)| told.is_none_or(|told| *id > told))
            {
                portion.effort += 1;
                if filter.matches(met.log) {
                    portion.push(*id, shown.get_or_insert_with(|| text_of(&met.show())));
                }
                if portion.is_full() {
                    return ControlFlow::Break(Next { at: met.place, told: Some(*id) });
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(walked.break_value())
    }

    /// What comes next of executed transactions; `next` counts them, and these are those after it.
    pub(super) fn portion_of_transactions(
        &self,
        subscriptions: &Subscriptions,
        mut next: Next<u64>,
        hashes: &[B256],
    ) -> (Portion, Next<u64>) {
        let mut portion = Portion::default();
        for hash in hashes {
            portion.effort += Portion::READING;
            let told = next.told.take();
            let short = text_of(hash);
            // Of one that was rolled back since there is nothing to show.
            let mut full = None;
            let listening =
                subscriptions.iter().filter(|(id, _)| told.is_none_or(|told| **id > told));
            for (id, subscription) in listening {
                match subscription.kind {
                    Kind::NewPendingTransactions { full: false } => portion.push(*id, &short),
                    Kind::NewPendingTransactions { full: true } => {
                        let shown = full.get_or_insert_with(|| {
                            self.shown_pending(*hash).map(|shown| shown.to_string())
                        });
                        shown.iter().for_each(|shown| portion.push(*id, shown));
                    }
                    Kind::NewHeads | Kind::Logs(_) | Kind::Syncing => {}
                }
                if portion.is_full() {
                    return (portion, Next { told: Some(*id), ..next });
                }
            }
            next.at = next.at.saturating_add(1);
        }
        (portion, next)
    }
}

fn text_of(value: &impl serde::Serialize) -> String {
    // A value of JSON always has a text.
    serde_json::to_string(value).unwrap_or_default()
}
