//! Which configuration a request belongs to.
//!
//! A VM outlives its configurations: a new one comes with a new root context in the same VM, while
//! requests that began under the old one finish. Each request names its root when its context is
//! created, directly before its headers come.

use alloc::vec::Vec;

/// Configurations kept in one VM, and the bytes of text they were read from; what was used least recently
/// goes first. The callback that would tell when one has ended is called for every request too and costs
/// about a microsecond. A host that goes back to a text whose root a long request still holds (a WebSocket)
/// uses that root again without configuring it, so that few are dropped.
const KEPT: usize = 1024;
const BYTES: usize = 16 << 20;

struct Kept<T> {
    root: u32,
    size: usize,
    config: T,
}

/// The configurations of a VM by their root context, the one used last at the end.
pub struct Roots<T> {
    kept: Vec<Kept<T>>,
    stream: u32,
    root: u32,
}

impl<T> Default for Roots<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Roots<T> {
    /// None yet.
    pub const fn new() -> Self {
        Roots { kept: Vec::new(), stream: 0, root: 0 }
    }

    /// A context was created; a root's own has no parent.
    pub fn created(&mut self, context: u32, parent: u32) {
        if parent != 0 {
            (self.stream, self.root) = (context, parent);
        }
    }

    /// A root has a configuration from now on, read from a text of `size` bytes.
    pub fn configured(&mut self, root: u32, size: usize, config: T) -> Result<(), mem::Full> {
        let new = Kept { root, size, config };
        match self.touch(root) {
            Some(same) => *same = new,
            None => mem::push(&mut self.kept, new)?,
        }
        let mut bytes: usize = self.kept.iter().map(|k| k.size).sum();
        while self.kept.len() > KEPT || (bytes > BYTES && self.kept.len() > 1) {
            bytes -= self.kept.first().map_or(0, |k| k.size);
            // `Vec::remove` would bring a panic with it.
            self.kept.rotate_left(1);
            self.kept.truncate(self.kept.len() - 1);
        }
        Ok(())
    }

    /// The configurations before the newest one, directly after it was configured.
    pub fn older(&mut self) -> impl Iterator<Item = &mut T> {
        self.kept.iter_mut().rev().skip(1).map(|k| &mut k.config)
    }

    fn touch(&mut self, root: u32) -> Option<&mut Kept<T>> {
        let at = self.kept.iter().rposition(|k| k.root == root)?;
        if let Some(later @ [_, _, ..]) = self.kept.get_mut(at..) {
            later.rotate_left(1);
        }
        self.kept.last_mut()
    }

    /// The configuration of a request's context; nothing if it was never told or is gone, and a filter
    /// that decides must then refuse.
    pub fn of(&mut self, stream: u32) -> Option<&mut T> {
        if stream == self.stream {
            return self.touch(self.root).map(|k| &mut k.config);
        }
        match self.kept.as_mut_slice() {
            [only] => Some(&mut only.config),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Roots;

    #[test]
    fn a_request_keeps_its_own_configuration() {
        let mut r = Roots::new();
        assert!(r.of(9).is_none());
        r.created(1, 0);
        r.configured(1, 1, 'a').unwrap();
        assert_eq!(r.of(9), Some(&mut 'a'));
        r.created(2, 0);
        r.configured(2, 1, 'b').unwrap();
        r.created(3, 1);
        assert_eq!(r.of(3), Some(&mut 'a'));
        r.created(4, 2);
        assert_eq!(r.of(4), Some(&mut 'b'));
        assert_eq!(r.of(3), None);
        r.configured(2, 1, 'c').unwrap();
        assert_eq!(r.of(4), Some(&mut 'c'));
        // A request holds 1 while 900 others come; then the host goes back to it without a word.
        r.created(5, 1);
        assert_eq!(r.of(5), Some(&mut 'a'));
        for id in 10..910 {
            r.configured(id, 1, 'x').unwrap();
        }
        r.created(6, 1);
        assert_eq!(r.of(6), Some(&mut 'a'));
        // What is used stays, whatever comes; what is not goes.
        for id in 1000..3000 {
            r.configured(id, 1, 'x').unwrap();
            r.created(7, 1);
            assert_eq!(r.of(7), Some(&mut 'a'));
        }
        r.created(4, 2);
        assert_eq!(r.of(4), None);
        r.configured(9000, 20 << 20, 'l').unwrap();
        r.created(8, 9000);
        assert_eq!(r.of(8), Some(&mut 'l'));
        r.created(7, 1);
        assert_eq!(r.of(7), None);
    }
}
