//! A whole decision about any Authorization header: nothing passes that nobody signed, and the same question has
//! the same answer from the cache.
#![no_main]

use std::sync::Mutex;

use auth::policy::{Authorization, Config};
use auth::sha::{Algorithm, Key};
use libfuzzer_sys::fuzz_target;

const CONFIG: &[u8] = br#"{"default_policy":"p","policies":[{"name":"p","jwt":{"keys":[
 {"kid":"a","alg":"HS256","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"},
 {"kid":"b","alg":"HS384","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm"}],
 "issuers":["joe"],"required_claims":[{"claim":["a","b"],"values":["x"]}],"forward_claims":[{"claim":"sub","header":"x-sub"}]},
 "tokens":[{"sha256":"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae","subject":"s"}],
 "exempt_paths":[{"path":"/open","prefix":true}],"strip":true}]}"#;

static FILTER: Mutex<Option<Config>> = Mutex::new(None);

fn base64url(bytes: &[u8]) -> String {
    const A: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for c in bytes.chunks(3) {
        let n = (c[0] as u32) << 16 | (*c.get(1).unwrap_or(&0) as u32) << 8 | *c.get(2).unwrap_or(&0) as u32;
        for i in 0..=c.len() {
            out.push(A[(n >> (18 - 6 * i)) as usize & 63] as char);
        }
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let mut guard = FILTER.lock().unwrap();
    let config = guard.get_or_insert_with(|| auth::config::read(CONFIG).ok().unwrap());
    let Some((&how, data)) = data.split_first() else { return };
    let cut = data.iter().position(|c| *c == 0).unwrap_or(data.len());
    let (first, second) = (&data[..cut], data.get(cut + 1..).unwrap_or_default());
    // Signed by a key of the policy, so that the claims are read too; or as it stands.
    let value = if how & 1 == 0 {
        data.to_vec()
    } else {
        let header: &[u8] = if how & 2 == 0 { br#"{"alg":"HS256"}"# } else { second };
        let text = format!("{}.{}", base64url(header), base64url(first));
        let mac = Key::new(Algorithm::Hs256, b"0123456789abcdef0123456789abcdef").mac(text.as_bytes());
        format!("Bearer {text}.{}", base64url(&mac[..32])).into_bytes()
    };
    let authorization = if how & 4 == 0 { Authorization::One(&value) } else { Authorization::Many };
    let mut decide = |cache: &mut auth::cache::Cache| {
        let mut headers = Vec::new();
        let r = config.policies[0].decide(0, cache, b"/x", authorization, || Some(1_800_000_000), &mut headers);
        assert!(auth::claims::forwarded(&headers).all(|(_, v)| !v.iter().any(|c| *c < b' ')));
        (r.status(), headers)
    };
    let cold = decide(&mut config.cache);
    assert!(cold.0 != 0 || how & 1 == 1 || value.to_ascii_lowercase() == b"bearer foo");
    assert_eq!(cold, decide(&mut config.cache));
});
