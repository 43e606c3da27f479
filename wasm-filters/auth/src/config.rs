//! From the configuration's JSON to policies. Everything unknown, missing or doubtful is refused, with the
//! place where it stands and without its value.

use alloc::vec::Vec;

use json::fields::{Result, Wrong, count, flag, list, only, string, text, texts};
use json::{Kind, Limits, Value};

use crate::base64url;
use crate::cache::Cache;
use crate::claims::{Forward, Path, Required, Rules};
use crate::policy::{Config, Exempt, Opaque, Policy, Signed};
use crate::sha::{self, Algorithm};
use crate::siphash;
use crate::token::Key;

/// A value takes four bytes of text at least, and the control plane gives no text beyond 4,000,000 bytes
/// (`pkg/translate/authfilters.go`): it is counted there, and so never refused here.
const LIMITS: Limits = Limits { nodes: 1 << 20, depth: 12 };
const LEEWAY: u64 = 60;
const MOST_LEEWAY: u64 = 3600;
const MOST_KEYS: usize = 16;
const MOST_FORWARDED: usize = 32;
const CACHED: u64 = 2048;
const MOST_CACHED: u64 = 16384;

/// Reads a configuration.
pub fn read(bytes: &[u8]) -> Result<Config> {
    let doc = json::parse(bytes, LIMITS).map_err(|_| Wrong("not the JSON of a configuration"))?;
    let root = doc.root();
    only(root, &["realm", "per_route", "default_policy", "policies", "strip_headers", "cache_entries"])?;

    let realm = text(root, "realm")?.unwrap_or_default();
    if realm.iter().any(|c| !c.is_ascii_alphanumeric() && !b" -._/:".contains(c)) {
        return Err(Wrong("realm: letters, digits, space and -._/: only"));
    }
    let mut policies = Vec::new();
    for v in list(root, "policies")? {
        let p = policy(v)?;
        if policies.iter().any(|q: &Policy| q.name == p.name) {
            return Err(Wrong("policies: two of one name"));
        }
        mem::push(&mut policies, p)?;
    }
    let default_policy = text(root, "default_policy")?.unwrap_or_default();
    let default = match policies.iter().position(|p| p.name == default_policy) {
        None if !default_policy.is_empty() => return Err(Wrong("default_policy: no such policy")),
        found => found,
    };
    let mut identity = Vec::new();
    for header in list(root, "strip_headers")? {
        mem::push(&mut identity, header_name(string(header)?)?)?;
    }
    for f in policies.iter().filter_map(|p| p.signed.as_ref()).flat_map(|s| &s.rules.forward) {
        if !identity.contains(&f.header) {
            mem::push(&mut identity, mem::copy(&f.header)?)?;
        }
    }
    let entries = count(root, "cache_entries", CACHED, MOST_CACHED)? as usize;
    Ok(Config {
        realm,
        per_route: flag(root, "per_route")?,
        default,
        policies,
        identity,
        cache: Cache::new(cache_key(bytes), entries),
    })
}

/// The cache's key comes out of the configuration, which holds the secrets: nobody else can know it.
fn cache_key(bytes: &[u8]) -> siphash::Key {
    let mac = sha::Key::new(Algorithm::Hs256, bytes).mac(b"marchproxy cache of verified tokens");
    let mut words = mac.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w));
    siphash::Key(words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

fn policy(v: Value<'_>) -> Result<Policy> {
    only(v, &["name", "jwt", "tokens", "exempt_paths", "strip"])?;
    let name = text(v, "name")?.filter(|n| !n.is_empty()).ok_or(Wrong("policies: name is missing"))?;
    let signed = v.get(b"jwt").map(signed).transpose()?;
    let mut tokens = Vec::new();
    for t in list(v, "tokens")? {
        mem::push(&mut tokens, opaque(t)?)?;
    }
    if signed.is_none() && tokens.is_empty() {
        return Err(Wrong("policies: neither jwt nor tokens"));
    }
    let mut exempt = Vec::new();
    for e in list(v, "exempt_paths")? {
        mem::push(&mut exempt, exemption(e)?)?;
    }
    Ok(Policy { name, signed, tokens, exempt, strip: flag(v, "strip")? })
}

fn signed(v: Value<'_>) -> Result<Signed> {
    only(v, &["keys", "types", "leeway_seconds", "issuers", "audiences", "required_claims", "forward_claims"])?;
    let mut keys = Vec::new();
    for k in list(v, "keys")? {
        let k = key(k)?;
        if keys.iter().any(|other: &Key| other.kid == k.kid && !k.kid.is_empty()) {
            return Err(Wrong("jwt: two keys of one kid"));
        }
        mem::push(&mut keys, k)?;
    }
    if keys.is_empty() || keys.len() > MOST_KEYS {
        return Err(Wrong("jwt: keys: from 1 to 16"));
    }
    let mut rules = Rules {
        leeway: count(v, "leeway_seconds", LEEWAY, MOST_LEEWAY)? as i64,
        issuers: texts(v, "issuers")?,
        audiences: texts(v, "audiences")?,
        ..Rules::default()
    };
    for r in list(v, "required_claims")? {
        only(r, &["claim", "values", "words"])?;
        let r = Required { claim: claim(r)?, values: texts(r, "values")?, words: flag(r, "words")? };
        mem::push(&mut rules.required, r)?;
    }
    for f in list(v, "forward_claims")? {
        only(f, &["claim", "header"])?;
        let header = f.get(b"header").ok_or(Wrong("forward_claims: header is missing"))?;
        let f = Forward { claim: claim(f)?, header: header_name(string(header)?)? };
        if rules.forward.iter().any(|other| other.header == f.header) {
            return Err(Wrong("forward_claims: two claims for one header"));
        }
        mem::push(&mut rules.forward, f)?;
    }
    if rules.forward.len() > MOST_FORWARDED {
        return Err(Wrong("forward_claims: at most 32"));
    }
    Ok(Signed { keys, types: texts(v, "types")?, rules })
}

fn key(v: Value<'_>) -> Result<Key> {
    only(v, &["kid", "alg", "k"])?;
    let alg = text(v, "alg")?.unwrap_or_default();
    let algorithm = [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512]
        .into_iter()
        .find(|a| a.name() == alg)
        .ok_or(Wrong("jwt: keys: alg is HS256, HS384 or HS512"))?;
    let mut secret = Vec::new();
    base64url::decode(&text(v, "k")?.unwrap_or_default(), &mut secret)
        .ok_or(Wrong("jwt: keys: k is the secret in Base64url without padding"))?;
    // RFC 7518 §3.2: shorter keys can be guessed from one token.
    if secret.len() < algorithm.size() {
        return Err(Wrong("jwt: keys: k is shorter than the algorithm's hash"));
    }
    Ok(Key { kid: text(v, "kid")?.unwrap_or_default(), mac: sha::Key::new(algorithm, &secret) })
}

fn opaque(v: Value<'_>) -> Result<Opaque> {
    only(v, &["sha256", "subject", "not_after"])?;
    let hex = text(v, "sha256")?.unwrap_or_default();
    let mut digest = [0; 32];
    let (pairs, rest) = hex.as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return Err(Wrong("tokens: sha256 is 64 hexadecimal digits"));
    }
    for (d, [hi, lo]) in digest.iter_mut().zip(pairs) {
        match ((*hi as char).to_digit(16), (*lo as char).to_digit(16)) {
            (Some(hi), Some(lo)) => *d = (hi * 16 + lo) as u8,
            _ => return Err(Wrong("tokens: sha256 is 64 hexadecimal digits")),
        }
    }
    let not_after = match v.get(b"not_after") {
        None => None,
        Some(_) => Some(count(v, "not_after", 0, i64::MAX as u64)? as i64),
    };
    Ok(Opaque { digest, subject: text(v, "subject")?.unwrap_or_default(), not_after })
}

fn exemption(v: Value<'_>) -> Result<Exempt> {
    only(v, &["path", "prefix"])?;
    let path = text(v, "path")?.unwrap_or_default();
    if path::plain(&path) != Some(path.as_slice()) {
        return Err(Wrong("exempt_paths: path is a plain path from / on"));
    }
    Ok(Exempt { path, prefix: flag(v, "prefix")? })
}

/// A claim's name, or a list of names from the outside in.
fn claim(v: Value<'_>) -> Result<Path> {
    let mut path = Vec::new();
    let v = v.get(b"claim").ok_or(Wrong("claim is missing"))?;
    if v.kind() == Kind::String {
        mem::push(&mut path, string(v)?)?;
    }
    for name in v.items() {
        mem::push(&mut path, string(name)?)?;
    }
    if path.is_empty() || path.len() > 8 {
        return Err(Wrong("claim is a name, or up to 8 names from the outside in"));
    }
    Ok(path)
}

/// Names that others give a meaning to cannot be identity headers.
fn header_name(name: Vec<u8>) -> Result<Vec<u8>> {
    const TAKEN: [&[u8]; 8] = [
        b"authorization",
        b"connection",
        b"content-length",
        b"cookie",
        b"host",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    ];
    let fit = name.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-');
    if name.is_empty() || name.len() > 128 || !fit || TAKEN.contains(&name.as_slice()) || name.starts_with(b"x-envoy-")
    {
        return Err(Wrong("header: a name of one's own in lower case letters, digits and dashes"));
    }
    Ok(name)
}
