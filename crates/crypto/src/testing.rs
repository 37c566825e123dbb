//! Where tests find the recorded data.

use std::path::PathBuf;

/// A folder of recorded vectors. Without them a test is skipped aloud, and fails in CI.
#[expect(clippy::disallowed_methods, reason = "tests may read the environment")]
pub(crate) fn vectors(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("COCO_VECTORS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors")),
        PathBuf::from,
    );
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "no test vectors in {}", path.display());
    eprintln!("skipped: no test vectors in {}", path.display());
    None
}
