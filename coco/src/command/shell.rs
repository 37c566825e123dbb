//! `coco completions` and `coco man`.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::cli::Cli;
use crate::output::line;

/// The completion script of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "coco", &mut script);
    line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(())
}

/// A page for every command.
pub(crate) fn man(folder: &Path) -> Result<()> {
    write_pages(folder)
        .with_context(|| format!("no pages could be written to {}", folder.display()))
}

fn write_pages(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command() {
        let folder = tempfile::TempDir::new().unwrap();
        man(&folder.path().join("man1")).unwrap();
        for page in ["coco.1", "coco-dev.1", "coco-node-start.1", "coco-member-vote.1"] {
            let text = std::fs::read_to_string(folder.path().join("man1").join(page)).unwrap();
            assert!(text.contains(".TH"), "{page}");
        }
    }
}
