//! The default constitution: our own text with the actions and arguments of CCF's.

/// One file per concern, in the order in which they make up the constitution.
pub const FILES: [(&str, &str); 15] = [
    ("actions.js", include_str!("actions.js")),
    ("tables.js", include_str!("tables.js")),
    ("arguments.js", include_str!("arguments.js")),
    ("members.js", include_str!("members.js")),
    ("users.js", include_str!("users.js")),
    ("apps.js", include_str!("apps.js")),
    ("ca_bundles.js", include_str!("ca_bundles.js")),
    ("jwt.js", include_str!("jwt.js")),
    ("service.js", include_str!("service.js")),
    ("nodes.js", include_str!("nodes.js")),
    ("seats.js", include_str!("seats.js")),
    ("code.js", include_str!("code.js")),
    ("validate.js", include_str!("validate.js")),
    ("resolve.js", include_str!("resolve.js")),
    ("apply.js", include_str!("apply.js")),
];

/// The constitution as a service stores it: all files, one after the other.
pub fn default_constitution() -> String {
    FILES.map(|(_, text)| text).join("\n")
}
