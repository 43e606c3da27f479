//! Strings with their escapes.

use alloc::vec::Vec;

/// A string as it stands in the text, checked but not yet unescaped.
#[derive(Clone, Copy)]
pub struct Str<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) escaped: bool,
}

impl<'a> Str<'a> {
    /// Whether the string is these bytes.
    pub fn is(&self, want: &[u8]) -> bool {
        if self.escaped { self.bytes().eq(want.iter().copied()) } else { self.raw == want }
    }

    /// Whether both are the same string.
    pub fn same(&self, other: &Str<'_>) -> bool {
        if self.escaped || other.escaped { self.bytes().eq(other.bytes()) } else { self.raw == other.raw }
    }

    /// The string's bytes, in UTF-8.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + use<'a> {
        Bytes { raw: self.raw, pending: [0; 4], have: 0 }
    }

    /// Adds the string's bytes to a vector.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), mem::Full> {
        if !self.escaped {
            return mem::append(out, self.raw);
        }
        for b in self.bytes() {
            mem::push(out, b)?;
        }
        Ok(())
    }
}

struct Bytes<'a> {
    raw: &'a [u8],
    pending: [u8; 4],
    have: usize,
}

impl Bytes<'_> {
    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.raw.split_first()?;
        self.raw = rest;
        Some(*first)
    }

    fn hex4(&mut self) -> Option<u32> {
        let mut n = 0;
        for _ in 0..4 {
            n = n * 16 + (self.take()? as char).to_digit(16)?;
        }
        Some(n)
    }
}

impl Iterator for Bytes<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.have > 0 {
            let [a, b, c, d] = self.pending;
            self.pending = [b, c, d, 0];
            self.have -= 1;
            return Some(a);
        }
        let c = self.take()?;
        if c != b'\\' {
            return Some(c);
        }
        Some(match self.take()? {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut n = self.hex4()?;
                if (0xD800..0xDC00).contains(&n) {
                    self.take()?;
                    self.take()?;
                    n = 0x10000 + ((n & 0x3FF) << 10) + (self.hex4()? & 0x3FF);
                }
                let mut buf = [0; 4];
                let len = char::from_u32(n)?.encode_utf8(&mut buf).len();
                let [a, b, c, d] = buf;
                self.pending = [b, c, d, 0];
                self.have = len - 1;
                a
            }
            other => other,
        })
    }
}
