//! Where tests find the recorded data.
#![expect(clippy::disallowed_methods, reason = "tests may read files and the environment")]

use std::path::{Path, PathBuf};

/// The recorded files below a folder whose names end so. Without the recordings the list is empty
/// and the test is skipped aloud; in CI it fails.
pub(crate) fn vectors(folder: &str, name_ends: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = std::env::var_os("COCO_VECTORS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors")),
        PathBuf::from,
    );
    let mut found = Vec::new();
    collect(&root.join(folder), name_ends, &mut found);
    if found.is_empty() {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "no vectors {name_ends} in {}/{folder}", root.display());
        eprintln!("skipped: no vectors {name_ends} in {}/{folder}", root.display());
    }
    found
}

fn collect(folder: &Path, name_ends: &str, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, name_ends, found);
        } else if path.to_string_lossy().ends_with(name_ends) {
            let content = std::fs::read(&path).unwrap();
            found.push((path, content));
        }
    }
}
