//! A directory in memory that holds file operations to their word.

use std::collections::BTreeMap;

use crate::chunk::{ChunkName, FileOperation};

#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub files: BTreeMap<ChunkName, Vec<u8>>,
}

impl Disk {
    pub fn apply(&mut self, operations: Vec<FileOperation>) {
        operations.into_iter().for_each(|operation| self.apply_one(operation));
    }

    pub fn apply_one(&mut self, operation: FileOperation) {
        match operation {
            FileOperation::Create { name } => {
                assert!(self.files.insert(name, Vec::new()).is_none(), "{name} is there");
            }
            FileOperation::WriteZeros { name, from, to } => {
                let file = self.file(name);
                assert_eq!(file.len() as u64, from, "zeros follow the end of {name}");
                assert!(to > from);
                file.resize(to as usize, 0);
            }
            FileOperation::Write { name, offset, bytes } => {
                let (file, start) = (self.file(name), offset as usize);
                assert!(start <= file.len(), "no hole in {name}");
                let end = start + bytes.len();
                file.resize(file.len().max(end), 0);
                file[start..end].copy_from_slice(&bytes);
            }
            FileOperation::Truncate { name, bytes } => {
                let file = self.file(name);
                assert!(bytes <= file.len() as u64, "{name} is not made longer");
                file.truncate(bytes as usize);
            }
            FileOperation::Rename { from, to } => {
                let file = self.files.remove(&from).unwrap();
                assert!(self.files.insert(to, file).is_none(), "{to} is there");
            }
            FileOperation::Remove { name } => {
                self.files.remove(&name).unwrap();
            }
        }
    }

    /// The files as an audit takes them.
    pub fn chunks(&self) -> Vec<(String, Vec<u8>)> {
        self.files.iter().map(|(name, file)| (name.to_string(), file.clone())).collect()
    }

    fn file(&mut self, name: ChunkName) -> &mut Vec<u8> {
        self.files.get_mut(&name).unwrap_or_else(|| panic!("{name} is not there"))
    }
}
