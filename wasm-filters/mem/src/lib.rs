//! Growing vectors that report a refused allocation instead of ending the program.
//!
//! `Vec::push` and `extend_from_slice` abort when memory is refused, and an abort traps the VM with
//! every request on it. These do the same work and return [`Full`].

#![no_std]

extern crate alloc;

use alloc::vec::Vec;

pub mod streams;

/// Memory was refused, or a limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Adds one item at the end.
pub fn push<T>(v: &mut Vec<T>, item: T) -> Result<(), Full> {
    if v.len() == v.capacity() && v.try_reserve(1).is_err() {
        return Err(Full);
    }
    // Safety: there is room for one more, as the line above made sure.
    unsafe {
        v.as_mut_ptr().add(v.len()).write(item);
        v.set_len(v.len() + 1);
    }
    Ok(())
}

/// Adds a run of bytes at the end.
pub fn append(v: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Full> {
    if v.capacity() - v.len() < bytes.len() && v.try_reserve(bytes.len()).is_err() {
        return Err(Full);
    }
    // Safety: there is room for all of them, and a slice borrowed from elsewhere cannot overlap a
    // vector that is borrowed mutably.
    unsafe {
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), v.as_mut_ptr().add(v.len()), bytes.len());
        v.set_len(v.len() + bytes.len());
    }
    Ok(())
}

/// A new vector that holds the bytes.
pub fn copy(bytes: &[u8]) -> Result<Vec<u8>, Full> {
    let mut v = Vec::new();
    append(&mut v, bytes)?;
    Ok(v)
}

/// All the pieces in one vector.
pub fn join(pieces: &[&[u8]]) -> Result<Vec<u8>, Full> {
    let mut v = Vec::new();
    v.try_reserve_exact(pieces.iter().map(|p| p.len()).sum()).map_err(|_| Full)?;
    for p in pieces {
        append(&mut v, p)?;
    }
    Ok(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined() {
        let mut v = join(&[b"a", b"", b"bc"]).unwrap();
        push(&mut v, b'd').unwrap();
        assert_eq!(v, b"abcd");
        assert_eq!(copy(&v).unwrap(), v);
    }
}
