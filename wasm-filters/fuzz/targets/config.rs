//! Any text as a configuration of either filter, and a request under what was taken.
#![no_main]

use auth::policy::Authorization;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(mut c) = auth::config::read(data) {
        assert!(c.default.is_none_or(|i| i < c.policies.len()));
        for (i, p) in c.policies.iter().enumerate() {
            let mut headers = Vec::new();
            p.decide(i, &mut c.cache, b"/x", Authorization::One(b"Bearer a.b.c"), || Some(1), &mut headers);
        }
    }
    if let Ok(c) = license::gate::Config::read(data) {
        let mut features = Vec::new();
        c.gated(b"/a/%2e/b", &mut features).unwrap();
        c.decide(&features, || Some(1));
        c.drops(b"X_License-");
    }
});
