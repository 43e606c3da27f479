//! The allocator: lists of free blocks by powers of two. Nothing is ever joined or given back, so that
//! memory is bounded by twice the sum of each size's peak, and every call takes constant time.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;

/// The largest block, 16 MiB: Envoy's limit for all headers together is half of it.
const LARGEST: usize = 1 << 24;
const SMALLEST: usize = 16;
const PAGE: usize = 1 << 16;

struct Heap(UnsafeCell<State>);

struct State {
    free: [*mut u8; 25],
    next: usize,
    end: usize,
}

// Safety: a module has one thread.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(State { free: [null_mut(); 25], next: 0, end: 0 }));

fn block(layout: Layout) -> Option<usize> {
    if layout.size() > LARGEST || layout.align() > SMALLEST {
        return None;
    }
    Some(layout.size().max(SMALLEST).next_power_of_two())
}

impl State {
    fn take(&mut self, size: usize) -> *mut u8 {
        let Some(first) = self.free.get_mut(size.trailing_zeros() as usize) else { return null_mut() };
        if !first.is_null() {
            let got = *first;
            // Safety: a free block's first word holds the next free one.
            *first = unsafe { *(got as *mut *mut u8) };
            return got;
        }
        if self.end - self.next < size {
            let pages = size.div_ceil(PAGE);
            let at = core::arch::wasm32::memory_grow(0, pages);
            if at == usize::MAX {
                return null_mut();
            }
            if at * PAGE != self.end {
                self.next = at * PAGE;
            }
            self.end = (at + pages) * PAGE;
        }
        let got = self.next;
        self.next += size;
        got as *mut u8
    }
}

// Safety: blocks are at least as large as asked for, aligned to 16, and in one list or one owner's hands.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match block(layout) {
            // Safety: one thread, and `take` calls nothing that allocates.
            Some(size) => unsafe { (*self.0.get()).take(size) },
            None => null_mut(),
        }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let Some(size) = block(layout) else { return };
        // Safety: as above; the block is ours and nobody's, and large enough for a pointer.
        unsafe {
            if let Some(first) = (*self.0.get()).free.get_mut(size.trailing_zeros() as usize) {
                *(ptr as *mut *mut u8) = *first;
                *first = ptr;
            }
        }
    }
}
