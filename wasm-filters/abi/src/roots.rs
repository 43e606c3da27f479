//! Which configuration a request belongs to.
//!
//! A VM outlives its configurations: a new one comes with a new root context in the same VM, while
//! requests that began under the old one finish. Each request names its root when its context is
//! created, directly before its headers come.

use alloc::vec::Vec;

/// Configurations kept in one VM; the oldest goes first. The callback that would tell when one has ended
/// is called for every request too and costs about a microsecond.
const KEPT: usize = 32;

/// The configurations of a VM by their root context.
pub struct Roots<T> {
    kept: Vec<(u32, T)>,
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

    /// A root has a configuration from now on.
    pub fn configured(&mut self, root: u32, config: T) -> Result<(), mem::Full> {
        if let Some(same) = self.kept.iter_mut().find(|(id, _)| *id == root) {
            same.1 = config;
            return Ok(());
        }
        if self.kept.len() >= KEPT {
            // The vector is not empty, and `Vec::remove` would bring a panic with it.
            self.kept.rotate_left(1);
            self.kept.truncate(KEPT - 1);
        }
        mem::push(&mut self.kept, (root, config))
    }

    /// The configurations before the newest one.
    pub fn older(&mut self) -> impl Iterator<Item = &mut T> {
        self.kept.iter_mut().rev().skip(1).map(|(_, config)| config)
    }

    /// The configuration of a request's context; nothing if it was never told or is gone, and a filter
    /// that decides must then refuse.
    pub fn of(&mut self, stream: u32) -> Option<&mut T> {
        if stream != self.stream {
            return match self.kept.as_mut_slice() {
                [(_, only)] => Some(only),
                _ => None,
            };
        }
        let root = self.root;
        self.kept.iter_mut().rev().find(|(id, _)| *id == root).map(|(_, config)| config)
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
        r.configured(1, 'a').unwrap();
        assert_eq!(r.of(9), Some(&mut 'a'));
        r.created(2, 0);
        r.configured(2, 'b').unwrap();
        r.created(3, 1);
        assert_eq!(r.of(3), Some(&mut 'a'));
        r.created(4, 2);
        assert_eq!(r.of(4), Some(&mut 'b'));
        assert_eq!(r.of(3), None);
        r.configured(2, 'c').unwrap();
        assert_eq!(r.of(4), Some(&mut 'c'));
        for id in 10..50 {
            r.configured(id, 'x').unwrap();
        }
        assert_eq!(r.of(4), None);
    }
}
