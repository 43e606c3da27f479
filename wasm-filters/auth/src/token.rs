//! Signed tokens in compact form (RFC 7515), with the algorithm fixed by the key.

use alloc::vec::Vec;

use json::{Doc, Kind, Limits};

use crate::base64url;
use crate::reason::Reason;
use crate::sha;

/// The longest token. Envoy takes 60 KiB of headers; no honest token needs more than this.
pub const LONGEST: usize = 8192;

const HEADER: Limits = Limits { nodes: 64, depth: 4 };
/// For the claims, which are read only behind a good signature.
pub const CLAIMS: Limits = Limits { nodes: 1024, depth: 16 };

/// A key of a policy.
pub struct Key {
    /// Its name; a token that names a key is checked with that one only. Empty: it has none.
    pub kid: Vec<u8>,
    /// The secret, prepared.
    pub mac: sha::Key,
}

/// Whether the header's `typ` will do; empty takes any.
fn typed(doc: &Doc<'_>, types: &[Vec<u8>]) -> bool {
    let typ = doc.root().get(b"typ");
    if types.is_empty() {
        return typ.is_none_or(|v| v.kind() == Kind::String);
    }
    let mut text = Vec::new();
    typ.and_then(|v| v.str()).is_some_and(|s| s.write(&mut text).is_ok())
        && types.iter().any(|t| media(t).eq_ignore_ascii_case(media(&text)))
}

/// A media type without the part that may be left out (RFC 7515 §4.1.9).
fn media(typ: &[u8]) -> &[u8] {
    match typ.split_at_checked(12) {
        Some((whole, rest)) if whole.eq_ignore_ascii_case(b"application/") && !rest.contains(&b'/') => rest,
        _ => typ,
    }
}

/// Checks the signature and writes the payload's bytes.
pub fn verify(token: &[u8], keys: &[Key], types: &[Vec<u8>], payload: &mut Vec<u8>) -> Result<(), Reason> {
    if token.len() > LONGEST {
        return Err(Reason::TooLong);
    }
    let mut parts = token.split(|c| *c == b'.');
    let (Some(head), Some(body), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Reason::Malformed);
    };
    let decoded = |text: &[u8], out: &mut Vec<u8>| base64url::decode(text, out).ok_or(Reason::Malformed);
    let mut header = Vec::new();
    decoded(head, &mut header)?;
    let doc = json::parse(&header, HEADER).map_err(|_| Reason::Malformed)?;
    let root = doc.root();
    // No extension is known here, and a token that wants one understood must be refused; `b64` changes
    // what is signed.
    if root.kind() != Kind::Object || root.get(b"crit").is_some() || root.get(b"b64").is_some() {
        return Err(Reason::Malformed);
    }
    let alg = root.get(b"alg").and_then(|v| v.str()).ok_or(Reason::Malformed)?;
    let kid = match root.get(b"kid") {
        None => None,
        Some(v) => Some(v.str().ok_or(Reason::Malformed)?),
    };
    let signed = token.get(..head.len() + 1 + body.len()).unwrap_or_default();
    let mut mac = Vec::new();
    decoded(signature, &mut mac)?;

    let mut worst = Reason::UnknownKey;
    for key in keys {
        if kid.is_some_and(|kid| !kid.is(&key.kid)) {
            continue;
        }
        if !alg.is(key.mac.algorithm().name()) {
            worst = Reason::Algorithm;
            continue;
        }
        if key.mac.verify(signed, &mac) {
            decoded(body, payload)?;
            return if typed(&doc, types) { Ok(()) } else { Err(Reason::Type) };
        }
        worst = Reason::Signature;
    }
    Err(worst)
}
