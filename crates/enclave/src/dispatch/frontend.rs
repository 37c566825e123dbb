//! Which of CCF's three frontends a path belongs to.

/// A group of endpoints that opens as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frontend {
    /// `/node`: the node itself.
    Node,
    /// `/gov`: governance.
    Governance,
    /// Everything else, with or without `/app`.
    App,
}

impl Frontend {
    /// The frontend of a path, and the rest of the path as the frontend knows it.
    pub(super) fn of(path: &str) -> (Self, &str) {
        for frontend in [Self::Node, Self::Governance, Self::App] {
            if let Some(local) = path.strip_prefix(frontend.prefix())
                && (local.is_empty() || local.starts_with('/'))
            {
                return (frontend, local);
            }
        }
        (Self::App, path)
    }

    /// Where the frontend's paths start.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Node => "/node",
            Self::Governance => "/gov",
            Self::App => "/app",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_component_decides() {
        for (path, expected) in [
            ("/node/state", (Frontend::Node, "/state")),
            ("/gov/service/info", (Frontend::Governance, "/service/info")),
            ("/app/log", (Frontend::App, "/log")),
            ("/log", (Frontend::App, "/log")),
            ("/nodes/x", (Frontend::App, "/nodes/x")),
            ("/governance", (Frontend::App, "/governance")),
            ("/node", (Frontend::Node, "")),
            ("/app/node/state", (Frontend::App, "/node/state")),
            ("*", (Frontend::App, "*")),
            ("", (Frontend::App, "")),
        ] {
            assert_eq!(Frontend::of(path), expected, "{path}");
        }
    }
}
