//! Request paths, compared by whole segments.
//!
//! There are two questions with opposite safe answers. An exemption must not match what might be
//! another path behind the proxy, so [`plain`] gives nothing for a path with any trick in it. A gate
//! must match whatever might be the gated path, so [`opened`] undoes the tricks first.

#![no_std]

extern crate alloc;

use alloc::vec::Vec;

/// The path without query and fragment, or nothing if a server behind might read it as another one:
/// escaped separators or dots, empty or dot segments, a backslash, a parameter, or no leading slash.
pub fn plain(target: &[u8]) -> Option<&[u8]> {
    let path = cut(target);
    let inner = path.strip_prefix(b"/")?;
    let segments = inner.split(|c| *c == b'/').count();
    for (i, segment) in inner.split(|c| *c == b'/').enumerate() {
        if (segment.is_empty() && i + 1 != segments) || segment == b"." || segment == b".." {
            return None;
        }
    }
    let mut rest = path;
    while let Some((c, after)) = rest.split_first() {
        match c {
            b'\\' | b';' | 0..0x21 | 0x7f.. => return None,
            b'%' => match hex2(after)? {
                b'/' | b'\\' | b'.' | b'%' | b';' | b'?' | b'#' | 0..0x21 | 0x7f.. => return None,
                _ => {}
            },
            _ => {}
        }
        rest = after;
    }
    Some(path)
}

/// Writes the path as the most generous server behind would read it: without query, fragment and
/// parameters, escapes undone once, slashes of both kinds as separators, empty and dot segments resolved.
pub fn opened(target: &[u8], out: &mut Vec<u8>) -> Result<(), mem::Full> {
    let mut decoded = Vec::new();
    let mut rest = cut(target);
    while let Some((c, after)) = rest.split_first() {
        rest = after;
        let mut c = *c;
        if c == b'%'
            && let Some(d) = hex2(after)
        {
            c = d;
            rest = after.get(2..).unwrap_or_default();
        }
        mem::push(&mut decoded, if c == b'\\' { b'/' } else { c })?;
    }
    for segment in decoded.split(|c| *c == b'/') {
        let name = segment.split(|c| *c == b';').next().unwrap_or_default();
        match name {
            b"" | b"." => {}
            b".." => {
                let parent = out.iter().rposition(|c| *c == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            _ => {
                mem::push(out, b'/')?;
                mem::append(out, name)?;
            }
        }
    }
    if out.is_empty() { mem::push(out, b'/') } else { Ok(()) }
}

/// Whether the path is the prefix, or goes on below it with a new segment.
pub fn under(path: &[u8], prefix: &[u8]) -> bool {
    let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.first() == Some(&b'/'),
        None => false,
    }
}

/// The target without query and fragment.
pub fn cut(target: &[u8]) -> &[u8] {
    target.split(|c| matches!(c, b'?' | b'#')).next().unwrap_or_default()
}

fn hex2(text: &[u8]) -> Option<u8> {
    let hi = (*text.first()? as char).to_digit(16)?;
    let lo = (*text.get(1)? as char).to_digit(16)?;
    Some((hi * 16 + lo) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_only() {
        for ok in ["/", "/a", "/a/", "/a/b.c", "/a%20".strip_suffix("%20").unwrap(), "/a?x=/../", "/a#..", "/caf%41"] {
            assert!(plain(ok.as_bytes()).is_some(), "{ok}");
        }
        for bad in [
            "",
            "*",
            "a",
            "//a",
            "/a//b",
            "/a//",
            "/./a",
            "/a/..",
            "/a/../b",
            "/a\\b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/%2e%2e/a",
            "/a%00",
            "/a%2525",
            "/a%",
            "/a%zz",
            "/a;x",
            "/a\x01",
            "/\u{e9}",
        ] {
            assert!(plain(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn opened_paths() {
        for (target, want) in [
            ("/api/v1/multi-cloud", "/api/v1/multi-cloud"),
            ("/api/v1/multi%2Dcloud?x", "/api/v1/multi-cloud"),
            ("//api//v1/./x/../multi-cloud;a=b/c", "/api/v1/multi-cloud/c"),
            ("/api%2fv1%5cmulti-cloud", "/api/v1/multi-cloud"),
            ("/../../a", "/a"),
            ("", "/"),
            ("/%zz", "/%zz"),
        ] {
            let mut out = Vec::new();
            opened(target.as_bytes(), &mut out).unwrap();
            assert_eq!(core::str::from_utf8(&out).unwrap(), want, "{target}");
        }
    }

    #[test]
    fn whole_segments() {
        assert!(under(b"/public", b"/public"));
        assert!(under(b"/public/x", b"/public"));
        assert!(under(b"/public/x", b"/public/"));
        assert!(!under(b"/publicx", b"/public"));
        assert!(under(b"/anything", b"/"));
        assert!(!under(b"/", b"/public"));
    }
}
