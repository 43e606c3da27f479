//! Base64url as RFC 7515 wants it: no padding, no white space, no bits left over.

use alloc::vec::Vec;

const NONE: u8 = 0xff;

const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut table = [NONE; 256];
    let mut i = 0;
    #[allow(clippy::indexing_slicing, reason = "while compiling")]
    while i < alphabet.len() {
        table[alphabet[i] as usize] = i as u8;
        i += 1;
    }
    table
}

fn value(c: u8) -> u8 {
    VALUES.get(c as usize).copied().unwrap_or(NONE)
}

/// Decodes into `out`, which is emptied first. Two texts never give the same bytes.
pub fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.clear();
    let (quads, tail) = text.as_chunks::<4>();
    for [a, b, c, d] in quads {
        let (a, b, c, d) = (value(*a), value(*b), value(*c), value(*d));
        if (a | b | c | d) & 0xc0 != 0 {
            return None;
        }
        mem::append(out, &[a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]).ok()?;
    }
    match *tail {
        [] => Some(()),
        [a, b] => {
            let (a, b) = (value(a), value(b));
            if (a | b) & 0xc0 != 0 || b & 0x0f != 0 {
                return None;
            }
            mem::push(out, a << 2 | b >> 4).ok()
        }
        [a, b, c] => {
            let (a, b, c) = (value(a), value(b), value(c));
            if (a | b | c) & 0xc0 != 0 || c & 0x03 != 0 {
                return None;
            }
            mem::append(out, &[a << 2 | b >> 4, b << 4 | c >> 2]).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict() {
        let mut out = Vec::new();
        for (text, want) in [
            ("", ""),
            ("Zg", "f"),
            ("Zm8", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg", "foob"),
            ("Pz8_", "???"),
            ("-_-_", "\u{0}"),
        ] {
            decode(text.as_bytes(), &mut out).unwrap();
            assert!(text == "-_-_" || out == want.as_bytes(), "{text}");
        }
        assert_eq!(out, [0xfb, 0xff, 0xbf]);
        for text in ["Z", "Zm9vY", "Zh", "Zm9", "Zg==", "Zm8=", "Zm 9v", "Zm9v\n", "Pz8/", "+/+/", "Zm9?", "Z\u{e9}"] {
            assert!(decode(text.as_bytes(), &mut out).is_none(), "{text}");
        }
    }
}
