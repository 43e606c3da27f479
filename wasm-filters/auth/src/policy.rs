//! Policies, and the decision about one request.

use alloc::vec::Vec;

use subtle::ConstantTimeEq;

use crate::cache::Cache;
use crate::claims::{self, Rules};
use crate::reason::Reason;
use crate::sha;
use crate::token::{self, Key};

/// All that one configuration says.
pub struct Config {
    /// For `WWW-Authenticate`.
    pub realm: Vec<u8>,
    /// Whether routes may name their policy.
    pub per_route: bool,
    /// The policy of a route that names none.
    pub default: Option<usize>,
    /// All policies.
    pub policies: Vec<Policy>,
    /// Headers that only this filter may set; what a client sends under these names is dropped.
    pub identity: Vec<Vec<u8>>,
    /// Tokens that were good.
    pub cache: Cache,
}

/// Who may pass.
pub struct Policy {
    /// The name that routes use.
    pub name: Vec<u8>,
    /// Signed tokens, if they are taken.
    pub signed: Option<Signed>,
    /// Opaque tokens.
    pub tokens: Vec<Opaque>,
    /// Paths that need no credentials.
    pub exempt: Vec<Exempt>,
    /// Whether the credentials end here.
    pub strip: bool,
}

/// What a signed token must be.
pub struct Signed {
    /// From 1 to 16.
    pub keys: Vec<Key>,
    /// The types taken; empty: any.
    pub types: Vec<Vec<u8>>,
    /// What the claims must be.
    pub rules: Rules,
}

/// An opaque token, known by its digest only.
pub struct Opaque {
    /// SHA-256 of the token's text.
    pub digest: [u8; 32],
    /// Stands for the claim `sub`.
    pub subject: Vec<u8>,
    /// The second of its end, if it has one.
    pub not_after: Option<i64>,
}

/// A path that needs no credentials.
pub struct Exempt {
    /// A plain path.
    pub path: Vec<u8>,
    /// Whether everything below it is meant too.
    pub prefix: bool,
}

/// A request's Authorization header.
#[derive(Clone, Copy)]
pub enum Authorization<'a> {
    /// None.
    Missing,
    /// One.
    One(&'a [u8]),
    /// More than one: two readers might take different ones.
    Many,
}

impl Policy {
    fn exempts(&self, target: &[u8]) -> bool {
        if self.exempt.is_empty() {
            return false;
        }
        let Some(path) = path::plain(target) else { return false };
        self.exempt.iter().any(|e| if e.prefix { path::under(path, &e.path) } else { path == e.path })
    }

    /// Decides about a request; `headers` then holds what [`claims::forwarded`] reads. `now` is asked for
    /// only when a token is there.
    pub fn decide(
        &self,
        index: usize,
        cache: &mut Cache,
        target: &[u8],
        authorization: Authorization<'_>,
        now: impl FnOnce() -> Option<i64>,
        headers: &mut Vec<u8>,
    ) -> Reason {
        headers.clear();
        if self.exempts(target) {
            return Reason::Exempt;
        }
        let value = match authorization {
            Authorization::Missing => return Reason::Missing,
            Authorization::Many => return Reason::Ambiguous,
            Authorization::One(value) => value,
        };
        let token = match bearer(value) {
            Ok(token) => token,
            Err(reason) => return reason,
        };
        if token.len() > token::LONGEST {
            return Reason::TooLong;
        }
        let Some(now) = now() else { return Reason::Unavailable };
        // No Base64 alphabet has a dot, and a signed token has two.
        match &self.signed {
            Some(signed) if token.contains(&b'.') || self.tokens.is_empty() => {
                let tag = cache.tag(index, token);
                // Before its letters are looked at: a token in the cache has none but good ones.
                if let Some(found) = cache.find(tag, now) {
                    return match mem::append(headers, found) {
                        Ok(()) => Reason::JwtCached,
                        Err(_) => Reason::Unavailable,
                    };
                }
                if !is_token68(token) {
                    return Reason::Malformed;
                }
                match signed.decide(token, now, headers) {
                    Ok(span) => {
                        cache.keep(tag, span, headers);
                        Reason::Jwt
                    }
                    Err(reason) => reason,
                }
            }
            _ if !is_token68(token) => Reason::Malformed,
            _ => self.opaque(token, now, headers).err().unwrap_or(Reason::Opaque),
        }
    }

    fn opaque(&self, token: &[u8], now: i64, headers: &mut Vec<u8>) -> Result<(), Reason> {
        let digest = sha::sha256(token);
        let mut found = None;
        for known in &self.tokens {
            // All are compared, so that the time does not tell which one was nearest.
            if bool::from(known.digest.ct_eq(&digest)) {
                found = Some(known);
            }
        }
        let known = found.ok_or(Reason::UnknownToken)?;
        if known.not_after.is_some_and(|end| now >= end) {
            return Err(Reason::UnknownToken);
        }
        let Some(signed) = &self.signed else { return Ok(()) };
        let is_sub = |claim: &claims::Path| matches!(claim.as_slice(), [name] if name == b"sub");
        for r in &signed.rules.required {
            let fits = r.values.is_empty() || r.values.contains(&known.subject);
            if !is_sub(&r.claim) || known.subject.is_empty() || !fits {
                return Err(Reason::ClaimRequired);
            }
        }
        for (i, f) in signed.rules.forward.iter().enumerate() {
            if is_sub(&f.claim) && !known.subject.is_empty() {
                claims::header(i, &known.subject, headers)?;
            }
        }
        Ok(())
    }
}

impl Signed {
    fn decide(&self, token: &[u8], now: i64, headers: &mut Vec<u8>) -> Result<claims::Span, Reason> {
        let mut payload = Vec::new();
        token::verify(token, &self.keys, &self.types, &mut payload)?;
        let doc = json::parse(&payload, token::CLAIMS).map_err(|_| Reason::Claims)?;
        let span = self.rules.check(doc.root(), now)?;
        self.rules.require(doc.root())?;
        self.rules.headers(doc.root(), headers)?;
        Ok(span)
    }
}

/// What stands where `Bearer <token68>` (RFC 6750 §2.1) has its token.
fn bearer(value: &[u8]) -> Result<&[u8], Reason> {
    let (scheme, mut token) = value.split_at_checked(6).ok_or(Reason::Scheme)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") || !matches!(token.first(), None | Some(b' ')) {
        return Err(Reason::Scheme);
    }
    while let Some((b' ', rest)) = token.split_first() {
        token = rest;
    }
    if token.is_empty() { Err(Reason::Malformed) } else { Ok(token) }
}

fn is_token68(token: &[u8]) -> bool {
    token.iter().all(|c| c.is_ascii_alphanumeric() || b"-._~+/=".contains(c))
}
