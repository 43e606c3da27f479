//! State that lives as long as the VM.

use core::cell::UnsafeCell;

/// A value that the module's callbacks share. A host calls one callback at a time, and during a call
/// comes back only to ask for memory, which does not touch it.
pub struct Vm<T>(UnsafeCell<T>);

// Safety: a module has one thread.
unsafe impl<T> Sync for Vm<T> {}

impl<T> Vm<T> {
    /// The value at the start.
    pub const fn new(value: T) -> Self {
        Vm(UnsafeCell::new(value))
    }

    /// Lends the value to one callback.
    ///
    /// # Safety
    /// Only for a function exported to the host, once, and not handed on to another one.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn lend(&self) -> &mut T {
        // Safety: callbacks do not run inside each other.
        unsafe { &mut *self.0.get() }
    }
}
