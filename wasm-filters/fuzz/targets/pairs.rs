//! Any bytes as a header map: all of what was taken is there, and comes back when it is written.
#![no_main]

use abi::pairs::{Pairs, Writer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(pairs) = Pairs::parse(data) else { return };
    let list: Vec<_> = pairs.collect();
    let mut w = Writer::new();
    for (name, value) in &list {
        w.add(name, value).unwrap();
    }
    let bytes = w.finish().unwrap();
    assert!(bytes.len() <= data.len().max(4));
    assert_eq!(Pairs::parse(&bytes).unwrap().collect::<Vec<_>>(), list);
});
