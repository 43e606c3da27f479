//! Header maps as the host writes them: a count, the lengths of each name and value, then the bytes,
//! each followed by a zero. All numbers are 32 bits, little-endian.

use alloc::vec::Vec;

/// The host's bytes are no header map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The headers in a serialised map, in order.
#[derive(Clone)]
pub struct Pairs<'a> {
    lengths: &'a [u8],
    data: &'a [u8],
}

impl<'a> Pairs<'a> {
    /// Reads a map and checks that all of it is there.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Ok(Pairs { lengths: &[], data: &[] });
        }
        let (count, rest) = number(bytes).ok_or(Malformed)?;
        let table = (count as usize).checked_mul(8).ok_or(Malformed)?;
        let lengths = rest.get(..table).ok_or(Malformed)?;
        let data = rest.get(table..).ok_or(Malformed)?;
        let mut whole: u64 = 0;
        let mut left = lengths;
        while let Some((n, after)) = number(left) {
            whole += n as u64 + 1;
            left = after;
        }
        if whole > data.len() as u64 {
            return Err(Malformed);
        }
        Ok(Pairs { lengths, data })
    }

    fn piece(&mut self) -> Option<&'a [u8]> {
        let (n, lengths) = number(self.lengths)?;
        let piece = self.data.get(..n as usize)?;
        self.data = self.data.get(n as usize + 1..)?;
        self.lengths = lengths;
        Some(piece)
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.piece()?, self.piece()?))
    }
}

/// Whether a header has that name for any server behind: CGI and its heirs (WSGI, Rack, PHP) cannot tell
/// `x_a` from `x-a`, nor an upper case letter from a lower case one.
pub fn named(name: &[u8], want: &[u8]) -> bool {
    let plain = |c: &u8| if *c == b'_' { b'-' } else { c.to_ascii_lowercase() };
    name.len() == want.len() && name.iter().map(plain).eq(want.iter().map(plain))
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*head), rest))
}

/// Writes a map.
#[derive(Default)]
pub struct Writer {
    count: u32,
    lengths: Vec<u8>,
    data: Vec<u8>,
}

impl Writer {
    /// An empty map.
    pub const fn new() -> Self {
        Writer { count: 0, lengths: Vec::new(), data: Vec::new() }
    }

    /// Adds a header.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), mem::Full> {
        self.count += 1;
        for piece in [name, value] {
            mem::append(&mut self.lengths, &(piece.len() as u32).to_le_bytes())?;
            mem::append(&mut self.data, piece)?;
            mem::push(&mut self.data, 0)?;
        }
        Ok(())
    }

    /// The map's bytes.
    pub fn finish(self) -> Result<Vec<u8>, mem::Full> {
        let mut out = Vec::new();
        out.try_reserve_exact(4 + self.lengths.len() + self.data.len()).map_err(|_| mem::Full)?;
        mem::append(&mut out, &self.count.to_le_bytes())?;
        mem::append(&mut out, &self.lengths)?;
        mem::append(&mut out, &self.data)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let mut w = Writer::new();
        w.add(b":path", b"/").unwrap();
        w.add(b"x", b"").unwrap();
        w.add(b"\xff", b"\xfe\0").unwrap();
        let bytes = w.finish().unwrap();
        let got: Vec<_> = Pairs::parse(&bytes).unwrap().collect();
        assert_eq!(got, [(&b":path"[..], &b"/"[..]), (b"x", b""), (b"\xff", b"\xfe\0")]);
        for n in 0..bytes.len() {
            let cut = Pairs::parse(&bytes[..n]);
            assert!(n == 0 || cut.is_err(), "{n}");
        }
    }

    #[test]
    fn names() {
        assert!(named(b"X_Auth-sub", b"x-auth-sub"));
        assert!(!named(b"x-auth-su", b"x-auth-sub"));
        assert!(!named(b"x-auth.sub", b"x-auth-sub"));
    }

    #[test]
    fn lies_about_lengths() {
        for bytes in
            [&[1, 0, 0, 0][..], &[255; 4], &[255; 64], &[1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]]
        {
            assert_eq!(Pairs::parse(bytes).err(), Some(Malformed));
        }
    }
}
