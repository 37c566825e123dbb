//! The memory of one engine, which can be put back to how it was.
//!
//! The engine asks for all its memory here, its own state included. After [`SharedMemory::capture`]
//! the blocks it has are the *image*: they are never given back, and [`SharedMemory::rewind`] frees
//! every other block and writes the image's old bytes over the new ones.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::mem::{MaybeUninit, size_of};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rquickjs::allocator::Allocator;

/// What precedes the bytes of a block.
#[repr(C, align(16))]
struct Header {
    /// Bytes that follow.
    len: usize,
    /// Index in [`Memory::blocks`], or [`IN_IMAGE`].
    place: usize,
}

const IN_IMAGE: usize = usize::MAX;

/// All blocks of one engine.
#[derive(Default)]
struct Memory {
    /// Blocks that are not of the image.
    blocks: Vec<NonNull<Header>>,
    image: Vec<Saved>,
}

/// A block of the image with its bytes at the capture.
struct Saved {
    block: NonNull<Header>,
    bytes: Box<[MaybeUninit<u8>]>,
}

#[expect(unsafe_code, reason = "raw blocks may move between threads")]
// SAFETY: the blocks belong to this value alone, like those of a `Vec`.
unsafe impl Send for Memory {}

/// The memory of one engine; shared by the engine and by whoever rewinds it.
#[derive(Clone, Default)]
pub(crate) struct SharedMemory(Arc<Mutex<Memory>>);

impl SharedMemory {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what is there now the image.
    pub(crate) fn capture(&self) {
        self.lock().capture();
    }

    /// Makes the memory what it was at the capture.
    ///
    /// # Safety
    ///
    /// No code of the engine runs, and nothing outside of it uses what it allocated since.
    #[expect(unsafe_code, reason = "the caller vouches for the engine")]
    pub(crate) unsafe fn rewind(&self) {
        self.lock().rewind();
    }

    /// Blocks of the image are given back again when the engine frees them.
    pub(crate) fn forget_image(&self) {
        self.lock().forget_image();
    }

    /// Bytes of the image.
    pub(crate) fn image_bytes(&self) -> usize {
        self.lock().image.iter().map(|saved| saved.bytes.len()).sum()
    }
}

#[expect(unsafe_code, reason = "memory management")]
impl Memory {
    fn layout(len: usize) -> Option<Layout> {
        let size = len.checked_add(size_of::<Header>())?;
        Layout::from_size_align(size, align_of::<Header>()).ok()
    }

    /// Starts a block of `len` bytes; null if there is no memory.
    fn adopt(&mut self, block: *mut u8, len: usize) -> *mut u8 {
        let Some(block) = NonNull::new(block.cast::<Header>()) else { return ptr::null_mut() };
        // SAFETY: the block was allocated with `layout(len)`, so the header and `len` bytes fit.
        let bytes = unsafe {
            block.write(Header { len, place: self.blocks.len() });
            block.add(1).as_ptr().cast()
        };
        self.blocks.push(block);
        bytes
    }

    fn allocate(&mut self, len: usize, zeroed: bool) -> *mut u8 {
        let Some(layout) = Self::layout(len) else { return ptr::null_mut() };
        // SAFETY: the layout holds a header, so it is not empty.
        let block = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
        self.adopt(block, len)
    }

    /// # Safety
    /// `bytes` was allocated here and not freed since.
    unsafe fn free(&mut self, bytes: *mut u8) {
        // SAFETY: the header precedes the bytes.
        let block = unsafe { Self::header(bytes) };
        // SAFETY: as above; nobody else has a reference to it.
        let place = unsafe { block.as_ref() }.place;
        if place == IN_IMAGE {
            return;
        }
        self.blocks.swap_remove(place);
        if let Some(moved) = self.blocks.get_mut(place) {
            // SAFETY: everything in `blocks` is alive.
            unsafe { moved.as_mut() }.place = place;
        }
        // SAFETY: no list has the block any more.
        unsafe { Self::release(block) };
    }

    /// # Safety
    /// As for `free`.
    unsafe fn resize(&mut self, bytes: *mut u8, len: usize) -> *mut u8 {
        // SAFETY: the header precedes the bytes.
        let header = unsafe { Self::header(bytes).as_ref() };
        let (old_len, place) = (header.len, header.place);
        if place == IN_IMAGE {
            let new = self.allocate(len, false);
            if !new.is_null() {
                // SAFETY: both blocks are alive, distinct, and at least that long.
                unsafe { ptr::copy_nonoverlapping(bytes, new, len.min(old_len)) };
            }
            return new;
        }
        let (Some(old), Some(new)) = (Self::layout(old_len), Self::layout(len)) else {
            return ptr::null_mut();
        };
        // SAFETY: the block was allocated with the layout `old`; `new` has the same alignment.
        let block = unsafe { realloc(Self::header(bytes).as_ptr().cast(), old, new.size()) };
        let Some(block) = NonNull::new(block.cast::<Header>()) else { return ptr::null_mut() };
        if let Some(slot) = self.blocks.get_mut(place) {
            *slot = block;
        }
        // SAFETY: the block has its new length; the header moved with it.
        unsafe {
            block.write(Header { len, place });
            block.add(1).as_ptr().cast()
        }
    }

    fn capture(&mut self) {
        for mut block in self.blocks.drain(..) {
            // SAFETY: everything in `blocks` is alive and has `len` bytes after its header, which
            // are copied whether they were ever written or not.
            let bytes = unsafe {
                block.as_mut().place = IN_IMAGE;
                let bytes = block.add(1).cast::<MaybeUninit<u8>>();
                NonNull::slice_from_raw_parts(bytes, block.as_ref().len).as_ref().into()
            };
            self.image.push(Saved { block, bytes });
        }
    }

    fn rewind(&mut self) {
        if self.image.is_empty() {
            return; // Nothing was captured: the blocks are all there is.
        }
        self.free_blocks();
        for saved in &self.image {
            // SAFETY: blocks of the image are alive and as long as at the capture.
            unsafe {
                let bytes = saved.block.add(1).as_ptr().cast();
                ptr::copy_nonoverlapping(saved.bytes.as_ptr(), bytes, saved.bytes.len());
            }
        }
    }

    fn forget_image(&mut self) {
        for mut saved in self.image.drain(..) {
            // SAFETY: blocks of the image are alive.
            unsafe { saved.block.as_mut() }.place = self.blocks.len();
            self.blocks.push(saved.block);
        }
    }

    fn free_blocks(&mut self) {
        for block in self.blocks.drain(..) {
            // SAFETY: everything in `blocks` is alive, and in no other list.
            unsafe { Self::release(block) };
        }
    }

    /// # Safety
    /// `bytes` was allocated here and not freed since.
    unsafe fn header(bytes: *mut u8) -> NonNull<Header> {
        // SAFETY: `adopt` and `resize` hand out what follows a header.
        unsafe { NonNull::new_unchecked(bytes.cast::<Header>().sub(1)) }
    }

    /// # Safety
    /// The block is alive and nobody uses it any more.
    unsafe fn release(block: NonNull<Header>) {
        // SAFETY: blocks are allocated with the layout for their length, so it exists.
        unsafe {
            if let Some(layout) = Self::layout(block.as_ref().len) {
                dealloc(block.as_ptr().cast(), layout);
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.forget_image();
        self.free_blocks();
    }
}

#[expect(unsafe_code, reason = "the engine's allocator")]
// SAFETY: blocks are aligned to 16, as long as asked for, and null when there is no memory.
unsafe impl Allocator for SharedMemory {
    fn alloc(&mut self, size: usize) -> *mut u8 {
        self.lock().allocate(size, false)
    }

    fn calloc(&mut self, count: usize, size: usize) -> *mut u8 {
        match count.checked_mul(size) {
            Some(len) => self.lock().allocate(len, true),
            None => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&mut self, ptr: *mut u8) {
        // SAFETY: as the trait asks of the caller.
        unsafe { self.lock().free(ptr) };
    }

    unsafe fn realloc(&mut self, ptr: *mut u8, new_size: usize) -> *mut u8 {
        if ptr.is_null() {
            return self.alloc(new_size);
        }
        // SAFETY: as the trait asks of the caller.
        unsafe { self.lock().resize(ptr, new_size) }
    }

    unsafe fn usable_size(ptr: *mut u8) -> usize {
        // SAFETY: as the trait asks of the caller.
        unsafe { Memory::header(ptr).as_ref() }.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(unsafe_code, reason = "raw memory")]
    fn fill(bytes: *mut u8, len: usize, with: u8) {
        // SAFETY: tests fill what they allocated.
        unsafe { ptr::write_bytes(bytes, with, len) };
    }

    #[expect(unsafe_code, reason = "raw memory")]
    fn read(bytes: *mut u8, len: usize) -> Vec<u8> {
        // SAFETY: tests read what they allocated and filled.
        unsafe { std::slice::from_raw_parts(bytes, len) }.to_vec()
    }

    #[test]
    #[expect(unsafe_code, reason = "raw memory")]
    fn rewinding_restores_every_block_of_the_image() {
        let mut memory = SharedMemory::default();
        let (kept, freed, grown) = (memory.alloc(5000), memory.alloc(40), memory.calloc(4, 25));
        fill(kept, 5000, 1);
        fill(freed, 40, 2);
        memory.capture();
        assert_eq!(memory.image_bytes(), 5140);
        for round in 3..6 {
            fill(kept, 5000, round);
            fill(freed, 40, round);
            let (extra, more) = (memory.alloc(100), memory.alloc(0));
            // SAFETY: all four blocks are alive, and none made since the capture is used afterwards.
            unsafe {
                memory.dealloc(freed);
                let moved = memory.realloc(grown, 200);
                assert_ne!(moved, grown);
                assert_eq!(read(moved, 100), [0; 100]);
                let longer = memory.realloc(extra, 9000);
                assert_eq!(SharedMemory::usable_size(longer), 9000);
                fill(longer, 9000, round);
                memory.dealloc(more);
                memory.rewind();
            }
            assert_eq!(read(kept, 5000), [1; 5000]);
            assert_eq!(read(freed, 40), [2; 40]);
            assert_eq!(read(grown, 100), [0; 100]);
        }
        memory.forget_image();
        // SAFETY: the rewind brought it back.
        unsafe { memory.dealloc(freed) };
        assert_eq!(memory.lock().blocks.len(), 2);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let mut memory = SharedMemory::default();
        assert!(memory.alloc(usize::MAX).is_null());
        assert!(memory.alloc(usize::MAX - 16).is_null());
        assert!(memory.calloc(usize::MAX, 2).is_null());
    }
}
