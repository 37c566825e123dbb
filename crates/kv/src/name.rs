//! The names of maps.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The name of a map: cheap to clone, ordered bytewise.
///
/// A name that starts with `public:` says that the map is plaintext on the ledger; all others are
/// encrypted there.
#[derive(Clone)]
pub struct MapName(Arc<str>);

impl MapName {
    /// A name from its text.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the map is plaintext on the ledger.
    pub fn is_public(&self) -> bool {
        self.0.starts_with("public:")
    }
}

impl From<&str> for MapName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for MapName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl PartialEq for MapName {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for MapName {}

impl PartialOrd for MapName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MapName {
    fn cmp(&self, other: &Self) -> Ordering {
        // Most comparisons that succeed are of one name with itself.
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl Hash for MapName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_decides_what_is_public() {
        assert!(MapName::new("public:ccf.gov.users.certs").is_public());
        assert!(!MapName::new("records").is_public());
        assert!(!MapName::new("Public:records").is_public());
    }

    #[test]
    fn names_are_ordered_bytewise() {
        let mut names = ["b", "a", "B", "public:", "é"].map(MapName::new);
        names.sort();
        assert_eq!(names.map(|name| name.as_str().to_owned()), ["B", "a", "b", "public:", "é"]);
    }
}
