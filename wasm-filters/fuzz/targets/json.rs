//! Whatever is taken can be walked whole, within the limits, and names no key twice.
#![no_main]

use json::{Kind, Limits, Value};
use libfuzzer_sys::fuzz_target;

fn walk(v: Value<'_>, depth: u32) -> usize {
    assert!(depth <= 16);
    let mut out = Vec::new();
    if let Some(s) = v.str() {
        s.write(&mut out).unwrap();
        assert!(std::str::from_utf8(&out).is_ok());
    }
    if let Some(n) = v.number() {
        let (down, up) = (json::seconds(n, false), json::seconds(n, true));
        assert!(down <= up || up.is_none());
    }
    let mut names = std::collections::HashSet::new();
    let mut nodes = 1;
    for (k, v) in v.members() {
        let mut name = Vec::new();
        k.write(&mut name).unwrap();
        assert!(names.insert(name), "a key twice");
        nodes += 1 + walk(v, depth + 1);
    }
    nodes + v.items().map(|v| walk(v, depth + 1)).sum::<usize>()
}

fuzz_target!(|data: &[u8]| {
    if let Ok(doc) = json::parse(data, Limits { nodes: 256, depth: 16 }) {
        assert!(walk(doc.root(), 0) <= 256);
        assert!(doc.root().kind() != Kind::Object || data.contains(&b'{'));
    }
});
