//! Base64url as RFC 7515 wants it: no padding, no white space, no bits left over.

use alloc::vec::Vec;

use base64ct::{Base64UrlUnpadded, Encoding};

/// Decodes into `out`, whatever was in it. Two texts never give the same bytes.
pub fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let room = text.len().div_ceil(4) * 3;
    out.clear();
    out.try_reserve(room).ok()?;
    out.resize(room, 0);
    let length = Base64UrlUnpadded::decode(text, out).ok()?.len();
    out.truncate(length);
    Some(())
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
