//! What is known of each request or connection that is open.

use alloc::vec::Vec;
use core::mem::take;

use crate::{Full, push};

#[derive(Clone, Copy, Default)]
struct Slot<T> {
    /// The context; 0, which no stream has: free.
    id: u32,
    value: T,
}

/// Values by the context of a request or connection: an open table that is at most half full. Contexts are numbered
/// one after the other, so that the lowest bits of their numbers spread them well.
#[derive(Default)]
pub struct Streams<T> {
    slots: Vec<Slot<T>>,
    len: usize,
}

impl<T: Copy + Default> Streams<T> {
    /// None.
    pub const fn new() -> Self {
        Streams { slots: Vec::new(), len: 0 }
    }

    fn home(&self, id: u32) -> usize {
        // The length is a power of two, or 0.
        id as usize & self.slots.len().wrapping_sub(1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & self.slots.len().wrapping_sub(1)
    }

    /// The place of a stream, or the free one where it would be.
    fn place(&self, id: u32) -> Option<usize> {
        let mut at = self.home(id);
        loop {
            match self.slots.get(at)?.id {
                0 => return Some(at),
                other if other == id => return Some(at),
                _ => at = self.after(at),
            }
        }
    }

    /// A stream begins. Where memory is refused nothing is known of it.
    pub fn begin(&mut self, id: u32, value: T) -> Result<(), Full> {
        if id == 0 {
            return Ok(());
        }
        if self.slots.len() < (self.len + 1) * 2 {
            self.grow()?;
        }
        if let Some(slot) = self.place(id).and_then(|at| self.slots.get_mut(at)) {
            self.len += (slot.id == 0) as usize;
            *slot = Slot { id, value };
        }
        Ok(())
    }

    fn grow(&mut self) -> Result<(), Full> {
        let size = (self.slots.len() * 2).max(16);
        let mut slots = Vec::new();
        slots.try_reserve_exact(size).map_err(|_| Full)?;
        for _ in 0..size {
            push(&mut slots, Slot::default())?;
        }
        for slot in core::mem::replace(&mut self.slots, slots) {
            if slot.id != 0
                && let Some(free) = self.place(slot.id).and_then(|at| self.slots.get_mut(at))
            {
                *free = slot;
            }
        }
        Ok(())
    }

    /// What is known of a stream.
    pub fn of(&mut self, id: u32) -> Option<&mut T> {
        let at = self.place(id)?;
        self.slots.get_mut(at).filter(|s| s.id == id && id != 0).map(|s| &mut s.value)
    }

    /// A stream has ended.
    pub fn end(&mut self, id: u32) -> Option<T> {
        let mut gap = self.place(id)?;
        let ended = take(self.slots.get_mut(gap)?);
        if ended.id == 0 {
            return None;
        }
        self.len -= 1;
        // Those behind the gap come forward, as far as their own places allow, so that each is found.
        let mut at = self.after(gap);
        while let Some(slot) = self.slots.get(at).copied().filter(|s| s.id != 0) {
            let mask = self.slots.len().wrapping_sub(1);
            let from_home = at.wrapping_sub(self.home(slot.id)) & mask;
            if from_home >= at.wrapping_sub(gap) & mask {
                if let Some(free) = self.slots.get_mut(gap) {
                    *free = slot;
                }
                if let Some(left) = self.slots.get_mut(at) {
                    *left = Slot::default();
                }
                gap = at;
            }
            at = self.after(at);
        }
        Some(ended.value)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn like_a_map() {
        let (mut ours, mut theirs) = (Streams::<u64>::new(), HashMap::new());
        assert_eq!(ours.of(1), None);
        assert_eq!(ours.end(1), None);
        let mut random = 7u32;
        for step in 0..200_000u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Few numbers far apart meet in one place often.
            let id = (random >> 16) % 300 * 64 + (random >> 8) % 3;
            match random >> 30 {
                0 => assert_eq!(ours.end(id), theirs.remove(&id).filter(|_| id != 0)),
                1 if theirs.len() < 200 && id != 0 => {
                    ours.begin(id, step as u64).unwrap();
                    theirs.insert(id, step as u64);
                }
                _ => {
                    let want = theirs.get_mut(&id);
                    let got = ours.of(id);
                    assert_eq!(got.as_deref(), want.as_deref());
                    if let (Some(a), Some(b)) = (got, want) {
                        (*a, *b) = (*a + 1, *b + 1);
                    }
                }
            }
            assert_eq!(ours.len, theirs.len());
        }
    }
}
