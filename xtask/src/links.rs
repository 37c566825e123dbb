//! Links between the pages of the documentation, which nobody else looks at.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::root;

/// Checks that every relative link of the repository's pages leads somewhere, that those of the
/// book stay in the book, and that the book's contents name all of its pages.
pub fn check() -> Result<()> {
    let book = root().join("docs/src");
    let pages = markdown(&book)?;
    let contents = std::fs::read_to_string(book.join("SUMMARY.md"))?;
    let mut faults = Vec::new();
    for page in &pages {
        let name = page.file_name().unwrap_or_default().to_string_lossy();
        if name != "SUMMARY.md" && !contents.contains(&format!("({name})")) {
            faults.push(format!("{name} is not in SUMMARY.md"));
        }
    }
    for page in pages.into_iter().chain(markdown(&root())?) {
        let text = std::fs::read_to_string(&page)?;
        for link in links(&text) {
            if let Some(fault) = fault_of(&page, &text, link, &book) {
                faults.push(format!("{}: {link} {fault}", page.display()));
            }
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(())
}

fn markdown(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = files.flatten().map(|file| file.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect())
}

/// The targets of `[text](target)`, but for those with a scheme.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target).filter(|target| !target.contains(':'))
}

fn fault_of(page: &Path, text: &str, link: &str, book: &Path) -> Option<&'static str> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = page.parent()?.join(path);
    let other = match path {
        "" => text.to_owned(),
        _ if !target.exists() => return Some("leads nowhere"),
        _ if page.starts_with(book) && path.contains("../") => return Some("leaves the book"),
        _ => std::fs::read_to_string(target).unwrap_or_default(),
    };
    let known = anchor.is_empty() || headings(&other).any(|heading| heading == anchor);
    (!known).then_some("leads to no heading")
}

/// Headings as the book turns them into anchors.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    titles.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|&letter| letter.is_alphanumeric() || "-_".contains(letter)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_no_dead_link() {
        check().unwrap();
    }

    #[test]
    fn links_are_found_and_followed() {
        let text = "# A `B`, c\n[x](y.md#z) ![i](i.png), [w](https://a.b) [s](#a-b-c)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["y.md#z", "i.png", "#a-b-c"]);
        assert_eq!(headings(text).collect::<Vec<_>>(), ["a-b-c"]);
        let book = Path::new("/nowhere");
        let fault = |link| fault_of(&root().join("README.md"), text, link, book);
        assert_eq!(fault("#a-b-c"), None);
        assert_eq!(fault("ARCHITECTURE.md"), None);
        assert_eq!(fault("#a"), Some("leads to no heading"));
        assert_eq!(fault("absent.md"), Some("leads nowhere"));
    }
}
