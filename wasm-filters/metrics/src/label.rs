//! Labels with few values.

use alloc::vec::Vec;

/// Classes of methods.
pub const METHODS: [&str; 4] = ["read", "write", "connect", "other"];

/// Classes of statuses; the first is for a request that got no answer.
pub const STATUSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The place in [`METHODS`] of all that is in no other class.
pub const OTHER: usize = 3;

/// The place of a method's class in [`METHODS`].
pub fn method(name: &[u8]) -> usize {
    match name {
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" => 0,
        b"POST" | b"PUT" | b"PATCH" | b"DELETE" => 1,
        b"CONNECT" => 2,
        _ => OTHER,
    }
}

/// The place of a status's class in [`STATUSES`].
pub fn status(code: u64) -> usize {
    match code / 100 {
        class @ 1..=5 => class as usize,
        _ => 0,
    }
}

/// The number that a status is, as text; nothing if it is none.
pub fn digits(text: &[u8]) -> Option<u64> {
    let [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = text else { return None };
    Some((*a - b'0') as u64 * 100 + (*b - b'0') as u64 * 10 + (*c - b'0') as u64)
}

/// The longest name in a label.
const LONGEST: usize = 64;

/// Writes a name so that it cannot be taken for more than one label: nothing but letters, digits and
/// `-_./:`, and at most 64 bytes.
pub fn write(name: &[u8], out: &mut Vec<u8>) -> Result<(), mem::Full> {
    if name.is_empty() {
        return mem::append(out, b"none");
    }
    for c in name.iter().take(LONGEST) {
        let plain = c.is_ascii_alphanumeric() || b"-_./:".contains(c);
        mem::push(out, if plain { *c } else { b'_' })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded() {
        let mut out = Vec::new();
        write(b"a;route=\xff.b", &mut out).unwrap();
        assert_eq!(out, b"a_route__.b");
        out.clear();
        write(&[b'x'; 100], &mut out).unwrap();
        assert_eq!(out.len(), LONGEST);
        assert_eq!((STATUSES[status(204)], STATUSES[status(0)], STATUSES[status(999)]), ("2xx", "none", "none"));
        assert_eq!((digits(b"204"), digits(b"20"), digits(b"2x4"), digits(b"")), (Some(204), None, None, None));
        assert_eq!((METHODS[method(b"GET")], METHODS[method(b"get")]), ("read", "other"));
    }
}
