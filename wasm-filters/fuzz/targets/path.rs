//! A plain path has one reading: what the most generous server makes of it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut opened = Vec::new();
    path::opened(data, &mut opened).unwrap();
    assert!(opened.starts_with(b"/"));
    assert!(!opened.windows(2).any(|w| w == b"//"));
    assert!(!opened.split(|c| *c == b'/').any(|s| s == b"." || s == b".."));
    if let Some(plain) = path::plain(data) {
        if !plain.contains(&b'%') {
            assert_eq!(plain.strip_suffix(b"/").filter(|p| !p.is_empty()).unwrap_or(plain), opened);
        }
        assert!(path::under(plain, b"/") && path::under(plain, plain));
    }
});
