//! Which maps a script may read and write.

use coco_kv::MapName;

/// Why a script runs: this decides what it may touch and which natives it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// An application endpoint that may write.
    AppReadWrite,
    /// An application endpoint that only reads, historical ones included.
    AppReadOnly,
    /// `validate`, `resolve` and ballots.
    GovernanceReadOnly,
    /// `apply`.
    GovernanceReadWrite,
}

/// What a script may do with one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    None,
    Read,
    Write,
    ReadWrite,
}

/// An operation on a map, of one of two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
}

impl Access {
    pub(crate) fn allows(self, operation: Operation) -> bool {
        match operation {
            Operation::Read => matches!(self, Self::Read | Self::ReadWrite),
            Operation::Write => matches!(self, Self::Write | Self::ReadWrite),
        }
    }
}

impl Context {
    /// CCF's access rules.
    pub(crate) fn access(self, map: &MapName) -> Access {
        let name = map.as_str();
        if name.starts_with("public:ccf.internal.") {
            return Access::Read;
        }
        if name.starts_with("public:ccf.gov.") {
            let may_write = self == Self::GovernanceReadWrite;
            return if may_write { Access::ReadWrite } else { Access::Read };
        }
        if name.starts_with("ccf.gov.") || name.starts_with("ccf.internal.") {
            return Access::None;
        }
        match self {
            Self::AppReadWrite => Access::ReadWrite,
            Self::AppReadOnly => Access::Read,
            Self::GovernanceReadOnly => Access::None,
            Self::GovernanceReadWrite if map.is_public() => Access::Write,
            Self::GovernanceReadWrite => Access::None,
        }
    }

    /// The message of the `TypeError` for a forbidden operation.
    pub(crate) fn refusal(self, method: &str, map: &MapName) -> String {
        let may = match self.access(map) {
            Access::None => "not accessible",
            Access::Read => "read-only",
            Access::Write => "write-only",
            Access::ReadWrite => "readable and writable",
        };
        format!(
            "Cannot call {method} on table named {map}: it is {may} in {self}. \
             See https://microsoft.github.io/CCF/main/audit/read_write_restrictions.html",
        )
    }

    /// Whether the script belongs to an application.
    pub(crate) fn is_app(self) -> bool {
        matches!(self, Self::AppReadWrite | Self::AppReadOnly)
    }
}

impl std::fmt::Display for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AppReadWrite => "a read-write application endpoint",
            Self::AppReadOnly => "a read-only application endpoint",
            Self::GovernanceReadOnly => "a read-only governance function",
            Self::GovernanceReadWrite => "the constitution's apply function",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_ccfs() {
        use Access::{None, Read, ReadWrite, Write};
        let contexts = [
            Context::AppReadWrite,
            Context::AppReadOnly,
            Context::GovernanceReadOnly,
            Context::GovernanceReadWrite,
        ];
        for (map, expected) in [
            ("records", [ReadWrite, Read, None, None]),
            ("public:records", [ReadWrite, Read, None, Write]),
            ("public:ccf.gov.users.certs", [Read, Read, Read, ReadWrite]),
            ("public:ccf.internal.tree", [Read, Read, Read, Read]),
            ("ccf.internal.secrets", [None, None, None, None]),
            ("public:ccf.governance", [ReadWrite, Read, None, Write]),
        ] {
            let map_name = MapName::new(map);
            assert_eq!(contexts.map(|context| context.access(&map_name)), expected, "{map}");
        }
    }
}
