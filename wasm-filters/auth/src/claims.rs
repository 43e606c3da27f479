//! What a policy asks of a token's claims.

use alloc::vec::Vec;

use json::{Kind, Value};

use crate::reason::Reason;

/// A claim's name, or the names on the way to it.
pub type Path = Vec<Vec<u8>>;

/// A claim that must be there.
pub struct Required {
    /// The claim.
    pub claim: Path,
    /// One of these, as the claim itself or inside it; empty means any value but null and false.
    pub values: Vec<Vec<u8>>,
    /// A string is a list of words, as in OAuth's `scope`.
    pub words: bool,
}

/// A claim that becomes a header.
pub struct Forward {
    /// The claim.
    pub claim: Path,
    /// The header, in lower case.
    pub header: Vec<u8>,
}

/// What a policy asks.
#[derive(Default)]
pub struct Rules {
    /// Seconds by which clocks may differ.
    pub leeway: i64,
    /// Empty: any.
    pub issuers: Vec<Vec<u8>>,
    /// Empty: any.
    pub audiences: Vec<Vec<u8>>,
    /// All of these.
    pub required: Vec<Required>,
    /// At most 32.
    pub forward: Vec<Forward>,
}

/// The seconds between which a token is good, `leeway` included: from the first, before the second.
#[derive(Clone, Copy)]
pub struct Span {
    /// The first good second.
    pub from: i64,
    /// The first one that is not good any more.
    pub until: i64,
}

/// The most bytes that forwarded headers may have together.
const FORWARDED: usize = 4096;

fn one_of(list: &[Vec<u8>], v: Value<'_>) -> bool {
    v.str().is_some_and(|s| list.iter().any(|want| s.is(want)))
}

fn find<'a>(mut v: Value<'a>, path: &Path) -> Option<Value<'a>> {
    for name in path {
        v = v.get(name)?;
    }
    Some(v)
}

impl Rules {
    /// Checks the dates, the issuer, the audience and the other registered names.
    pub fn check(&self, claims: Value<'_>, now: i64) -> Result<Span, Reason> {
        if claims.kind() != Kind::Object {
            return Err(Reason::Claims);
        }
        let date = |name: &[u8], up| match claims.get(name) {
            None => Ok(None),
            Some(v) => match v.number().and_then(|n| json::seconds(n, up)) {
                Some(s) => Ok(Some(s)),
                None => Err(Reason::Claims),
            },
        };
        let exp = date(b"exp", false)?;
        let nbf = date(b"nbf", true)?;
        let iat = date(b"iat", true)?;
        let until = exp.ok_or(Reason::NoExpiry)? + self.leeway;
        if now >= until {
            return Err(Reason::Expired);
        }
        let from = nbf.unwrap_or(0) - self.leeway;
        if now < from {
            return Err(Reason::NotYet);
        }
        let issued = iat.unwrap_or(0) - self.leeway;
        if now < issued {
            return Err(Reason::IssuedLater);
        }
        // RFC 7519 §4.1.2, §4.1.7: strings. Readers behind would make different texts of anything else.
        for name in [&b"sub"[..], b"jti"] {
            if claims.get(name).is_some_and(|v| v.kind() != Kind::String) {
                return Err(Reason::Claims);
            }
        }
        self.issuer(claims)?;
        self.audience(claims)?;
        Ok(Span { from: from.max(issued), until })
    }

    fn issuer(&self, claims: Value<'_>) -> Result<(), Reason> {
        match claims.get(b"iss") {
            Some(v) if v.kind() != Kind::String => Err(Reason::Claims),
            Some(v) if self.issuers.is_empty() || one_of(&self.issuers, v) => Ok(()),
            None if self.issuers.is_empty() => Ok(()),
            _ => Err(Reason::Issuer),
        }
    }

    fn audience(&self, claims: Value<'_>) -> Result<(), Reason> {
        let Some(aud) = claims.get(b"aud") else {
            return if self.audiences.is_empty() { Ok(()) } else { Err(Reason::Audience) };
        };
        let found = match aud.kind() {
            Kind::String => one_of(&self.audiences, aud),
            Kind::Array if aud.items().all(|v| v.kind() == Kind::String) => {
                aud.items().any(|v| one_of(&self.audiences, v))
            }
            _ => return Err(Reason::Claims),
        };
        if found || self.audiences.is_empty() { Ok(()) } else { Err(Reason::Audience) }
    }

    /// Checks the required claims.
    pub fn require(&self, claims: Value<'_>) -> Result<(), Reason> {
        for r in &self.required {
            match find(claims, &r.claim) {
                Some(v) if r.met(v) => {}
                _ => return Err(Reason::ClaimRequired),
            }
        }
        Ok(())
    }

    /// Writes the headers to forward: for each the number of its rule, the length in two bytes, the value.
    pub fn headers(&self, claims: Value<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
        let mut value = Vec::new();
        for (i, f) in self.forward.iter().enumerate() {
            let Some(v) = find(claims, &f.claim) else { continue };
            value.clear();
            text(v, &mut value).ok_or(Reason::ClaimForward)?;
            header(i, &value, out)?;
        }
        Ok(())
    }
}

/// Writes one header as [`Rules::headers`] does.
pub fn header(rule: usize, value: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    let control = value.iter().any(|c| *c < b' ' || *c == 0x7f);
    // Servers trim values: " root" must not become "root" behind the proxy.
    let trimmed = value.first() == Some(&b' ') || value.last() == Some(&b' ');
    if control || trimmed || out.len() + value.len() > FORWARDED {
        return Err(Reason::ClaimForward);
    }
    let [low, high] = (value.len() as u16).to_le_bytes();
    mem::append(out, &[rule as u8, low, high]).map_err(|_| Reason::Unavailable)?;
    mem::append(out, value).map_err(|_| Reason::Unavailable)
}

/// Reads back what [`Rules::headers`] wrote.
pub fn forwarded(mut bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    core::iter::from_fn(move || {
        let ([rule, low, high], rest) = bytes.split_first_chunk::<3>()?;
        let (value, rest) = rest.split_at_checked(u16::from_le_bytes([*low, *high]) as usize)?;
        bytes = rest;
        Some((*rule as usize, value))
    })
}

/// A scalar as text, or a list of them with commas between.
fn text(v: Value<'_>, out: &mut Vec<u8>) -> Option<()> {
    if v.kind() != Kind::Array {
        return scalar(v, out);
    }
    for (i, item) in v.items().enumerate() {
        if i > 0 {
            mem::push(out, b',').ok()?;
        }
        let start = out.len();
        scalar(item, out)?;
        // A comma inside would make two values of one.
        if out.get(start..)?.contains(&b',') {
            return None;
        }
    }
    Some(())
}

fn scalar(v: Value<'_>, out: &mut Vec<u8>) -> Option<()> {
    match v.kind() {
        Kind::String => v.str()?.write(out).ok(),
        Kind::Number => mem::append(out, v.number()?).ok(),
        Kind::True => mem::append(out, b"true").ok(),
        Kind::False => mem::append(out, b"false").ok(),
        _ => None,
    }
}

impl Required {
    fn met(&self, v: Value<'_>) -> bool {
        if self.values.is_empty() {
            return !matches!(v.kind(), Kind::Null | Kind::False);
        }
        match v.kind() {
            Kind::Array => v.items().any(|item| one_of(&self.values, item)),
            Kind::String if self.words => {
                let mut words = Vec::new();
                v.str().is_some_and(|s| s.write(&mut words).is_ok())
                    && words.split(|c| *c == b' ').any(|w| self.values.iter().any(|want| want == w))
            }
            _ => one_of(&self.values, v),
        }
    }
}
