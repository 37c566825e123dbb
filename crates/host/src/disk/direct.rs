//! Writes past the page cache that are durable when they return.
//!
//! A small append and its sync cost less in one step: nothing is looked up, dirtied or waited for in
//! the page cache. Whole blocks are written, so the bytes around the append are written again, as
//! the page cache would.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::extent::Extent;

/// What devices and file systems align to at most.
const BLOCK_BYTES: u64 = 4096;
const BLOCK: usize = BLOCK_BYTES as usize;

/// A file opened to be written in durable blocks.
pub(crate) struct DirectFile {
    file: File,
    /// The last block written, by its offset.
    last: Option<(u64, Box<[u8; BLOCK]>)>,
    room: Vec<u8>,
}

impl DirectFile {
    /// Opens a file that exists; not every file system can.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = (OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        Ok(Self { file, last: None, room: Vec::new() })
    }

    /// Somebody else has written to the file.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// Writes bytes at an offset. False: they do not lie within whole blocks of the file, which is
    /// read through `cached`.
    pub(crate) fn write(
        &mut self,
        cached: &File,
        extent: Extent,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<bool> {
        let first = offset - offset % BLOCK_BYTES;
        let end = offset.saturating_add(bytes.len() as u64).next_multiple_of(BLOCK_BYTES);
        let span = usize::try_from(end - first).map_err(io::Error::other)?;
        if bytes.is_empty() || extent.len_bytes < end {
            return Ok(false);
        }
        self.room.resize(span + BLOCK, 0);
        let aligned = self.room.as_ptr().align_offset(BLOCK);
        let Some(blocks) = self.room.get_mut(aligned..).and_then(|room| room.get_mut(..span))
        else {
            return Ok(false);
        };
        if let Some(block) = blocks.first_chunk_mut::<BLOCK>() {
            match &self.last {
                Some((at, last)) if *at == first => *block = **last,
                _ => cached.read_exact_at(block, first)?,
            }
        }
        let last = end - BLOCK_BYTES;
        if last > first
            && let Some(block) = blocks.last_chunk_mut::<BLOCK>()
        {
            if last >= extent.zeros_from {
                block.fill(0);
            } else {
                cached.read_exact_at(block, last)?;
            }
        }
        let within = usize::try_from(offset - first).map_err(io::Error::other)?;
        if let Some(room) = blocks.get_mut(within..).and_then(|room| room.get_mut(..bytes.len())) {
            room.copy_from_slice(bytes);
        }
        self.last = None;
        self.file.write_all_at(blocks, first)?;
        self.last = blocks.last_chunk().map(|block| (last, Box::new(*block)));
        Ok(true)
    }
}
