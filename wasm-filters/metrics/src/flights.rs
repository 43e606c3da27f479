//! What is known of the requests in flight: when they began, and the bytes of their bodies so far.

use alloc::vec::Vec;
use core::mem::take;

/// One request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flight {
    /// The time of its beginning, in nanoseconds.
    pub began: u64,
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// The request's context; 0, which no request has: free.
    id: u32,
    flight: Flight,
}

/// The requests in flight by their context: an open table that is at most half full. Contexts are numbered one
/// after the other, so that the lowest bits of their numbers spread them well.
#[derive(Default)]
pub struct Flights {
    slots: Vec<Slot>,
    len: usize,
}

impl Flights {
    /// No requests.
    pub const fn new() -> Self {
        Flights { slots: Vec::new(), len: 0 }
    }

    fn home(&self, id: u32) -> usize {
        // The length is a power of two, or 0.
        id as usize & self.slots.len().wrapping_sub(1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & self.slots.len().wrapping_sub(1)
    }

    /// The place of a request, or the free one where it would be.
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

    /// A request begins. Where memory is refused nothing is known of it.
    pub fn begin(&mut self, id: u32, began: u64) -> Result<(), mem::Full> {
        if id == 0 {
            return Ok(());
        }
        if self.slots.len() < (self.len + 1) * 2 {
            self.grow()?;
        }
        if let Some(slot) = self.place(id).and_then(|at| self.slots.get_mut(at)) {
            self.len += (slot.id == 0) as usize;
            *slot = Slot { id, flight: Flight { began, ..Flight::default() } };
        }
        Ok(())
    }

    fn grow(&mut self) -> Result<(), mem::Full> {
        let size = (self.slots.len() * 2).max(16);
        let mut slots = Vec::new();
        slots.try_reserve_exact(size).map_err(|_| mem::Full)?;
        for _ in 0..size {
            mem::push(&mut slots, Slot::default())?;
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

    /// What is known of a request.
    pub fn of(&mut self, id: u32) -> Option<&mut Flight> {
        let at = self.place(id)?;
        self.slots.get_mut(at).filter(|s| s.id == id && id != 0).map(|s| &mut s.flight)
    }

    /// A request has ended.
    pub fn end(&mut self, id: u32) -> Option<Flight> {
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
        Some(ended.flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn like_a_map() {
        let (mut ours, mut theirs) = (Flights::new(), HashMap::new());
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
                    theirs.insert(id, Flight { began: step as u64, ..Flight::default() });
                }
                _ => {
                    let want = theirs.get_mut(&id);
                    let got = ours.of(id);
                    assert_eq!(got.as_deref(), want.as_deref());
                    if let (Some(a), Some(b)) = (got, want) {
                        (a.sent, b.sent) = (a.sent + 1, b.sent + 1);
                    }
                }
            }
            assert_eq!(ours.len, theirs.len());
        }
    }
}
