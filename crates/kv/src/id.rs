//! The names of positions on the ledger.

use std::fmt;
use std::str::FromStr;

/// A leadership period. CCF starts at 2; 0 means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View(pub u64);

/// A position in the one total order of transactions, counted from 1; 0 means "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seqno(pub u64);

impl Seqno {
    /// The position that follows this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The identity of a transaction: the view it was executed in and its position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId {
    /// The leadership period.
    pub view: View,
    /// The position.
    pub seqno: Seqno,
}

impl TxId {
    /// A transaction id from its two numbers.
    pub fn new(view: u64, seqno: u64) -> Self {
        Self { view: View(view), seqno: Seqno(seqno) }
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.view, self.seqno)
    }
}

/// The text was not `view.seqno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a transaction id is written view.seqno, two decimal numbers")]
pub struct TxIdSyntax;

impl FromStr for TxId {
    type Err = TxIdSyntax;

    fn from_str(text: &str) -> Result<Self, TxIdSyntax> {
        let (view, seqno) = text.split_once('.').ok_or(TxIdSyntax)?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten().ok_or(TxIdSyntax)
        };
        Ok(Self::new(number(view)?, number(seqno)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_id_reads_back() {
        assert_eq!("2.17".parse(), Ok(TxId::new(2, 17)));
        assert_eq!(TxId::new(2, 17).to_string(), "2.17");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", ".", "2", "2.", ".3", "2.3.4", "+2.3", "2. 3", "99999999999999999999.1"] {
            assert_eq!(text.parse::<TxId>(), Err(TxIdSyntax), "{text}");
        }
    }
}
