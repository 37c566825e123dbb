//! What a development service leaves in its folder. That is removed before the next one begins; a
//! folder that holds anything else is not touched.

use std::ffi::OsString;
use std::fs::{self, FileType};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::configuration::ADDRESSES;
use super::folder::{DevFolder, MAX_NODES, config_file};
use crate::advice::{Advise, advised};
use crate::identity::encryption_key_files;
use crate::service::identity_files;

/// Files of a service, and of each node.
const FILES: [&str; 8] = [
    "genesis.json",
    "node.json",
    "node.log",
    "node.pid",
    "node_cert.pem",
    "service.json",
    "service_cert.pem",
    ADDRESSES,
];
/// Folders of each node, all of which is its own.
const FOLDERS: [&str; 3] = ["ledger", "sealed", "snapshots"];
/// What a file is called until it is complete.
const DRAFT: &str = ".new";
/// Things that are named when a folder is refused.
const MOST_NAMED: usize = 3;

/// What lies in a folder, all of it left by a development service.
#[derive(Default)]
pub(super) struct Leftovers {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Leftovers {
    /// Looks without a change. An error names what no development service has made.
    pub(super) fn of(folder: &DevFolder) -> Result<Self> {
        let path = folder.path();
        let (mut found, mut others) = (Self::default(), Vec::new());
        found.sort_in(path, Place::Service(folder), &mut others)?;
        let mark = config_file(path);
        if !mark.is_file() {
            // Names alone do not tell whose they are.
            others.extend(found.files.iter().chain(&found.folders).cloned());
        }
        if others.is_empty() {
            // The mark goes last: what is left of a removal that was cut short is still known.
            found.files.sort_by_key(|file| *file == mark);
            return Ok(found);
        }
        Err(advised(
            anyhow!("{} holds other things{}", path.display(), named(&others)),
            "move them elsewhere, or name another folder with --dir",
        ))
    }

    /// Removes them; the folder itself stays.
    pub(super) fn remove(self) -> Result<()> {
        let folders = self.folders.iter().map(|path| (path, fs::remove_dir_all(path)));
        let files = self.files.iter().map(|path| (path, fs::remove_file(path)));
        for (path, removed) in folders.chain(files) {
            removed
                .with_context(|| format!("{} cannot be removed", path.display()))
                .advise(|| "remove it by hand, or take another folder with --dir".to_owned())?;
        }
        Ok(())
    }

    fn sort_in(&mut self, path: &Path, place: Place<'_>, others: &mut Vec<PathBuf>) -> Result<()> {
        let unreadable = || format!("{} cannot be read", path.display());
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.with_context(unreadable)?,
        };
        for entry in entries {
            let entry = entry.with_context(unreadable)?;
            let kind = entry.file_type().with_context(unreadable)?;
            let (path, name) = (entry.path(), entry.file_name());
            match place.kind_of(&name, kind) {
                Some(Kind::File) => self.files.push(path),
                Some(Kind::Folder) => self.folders.push(path),
                Some(Kind::Home) => {
                    // It goes as a whole, if nothing else is in it.
                    Self::default().sort_in(&path, Place::Home, others)?;
                    self.folders.push(path);
                }
                None => others.push(path),
            }
        }
        Ok(())
    }
}

enum Kind {
    File,
    Folder,
    /// The folder of one of several nodes.
    Home,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    /// A service's folder, with the participants' keys and the nodes' homes.
    Service(&'a DevFolder),
    Home,
}

impl Place<'_> {
    /// What a development service has under this name, if it has it.
    fn kind_of(self, name: &OsString, kind: FileType) -> Option<Kind> {
        let text = name.to_str()?;
        // Also a link in its place, to a disk with more room: that is removed, not what it leads to.
        if FOLDERS.contains(&text) && (kind.is_dir() || kind.is_symlink()) {
            return Some(if kind.is_dir() { Kind::Folder } else { Kind::File });
        }
        if kind.is_dir() {
            return self.has_home(text).then_some(Kind::Home);
        }
        let file = text.strip_suffix(DRAFT).unwrap_or(text);
        (FILES.contains(&file) || self.has_key(text)).then_some(Kind::File)
    }

    fn has_home(self, name: &str) -> bool {
        let Self::Service(folder) = self else { return false };
        (0..MAX_NODES).any(|number| folder.home(number).ends_with(name))
    }

    fn has_key(self, name: &str) -> bool {
        let Self::Service(folder) = self else { return false };
        let path = folder.path();
        let is_of = |owner: String| {
            let (cert, key) = identity_files(path, &owner);
            let (public, private) = encryption_key_files(path, &owner);
            [cert, key, public, private].iter().any(|file| file.ends_with(name))
        };
        folder.member_names().into_iter().chain(folder.user_names()).any(is_of)
    }
}

/// Some of them, after a colon.
fn named(others: &[PathBuf]) -> String {
    let names = others.iter().take(MOST_NAMED).map(|path| path.display().to_string());
    let names: Vec<String> = names.collect();
    match others.len() {
        0 => String::new(),
        count if count > MOST_NAMED => format!(": {}, ...", names.join(", ")),
        _ => format!(": {}", names.join(", ")),
    }
}
