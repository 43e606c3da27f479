//! The configuration, and the decision about one request.

use alloc::vec::Vec;

use abi::pairs::named;
use json::Limits;
use json::fields::{Result, Wrong, count, flag, list, only, string, text, texts};

const LIMITS: Limits = Limits { nodes: 1 << 16, depth: 6 };

/// What the license allows.
pub struct Config {
    /// Whether this proxy is one more than licensed.
    pub surplus: bool,
    /// Whether routes may name features.
    pub per_route: bool,
    /// The features that the license has.
    pub features: Vec<Vec<u8>>,
    /// The second of the license's end; 0: none.
    pub expires_at: i64,
    /// Seconds after the end in which everything still works.
    pub grace: i64,
    /// Paths that need a feature.
    pub gates: Vec<Gate>,
    /// More headers to drop, besides all that begin with `x-license-`.
    pub strip: Vec<Vec<u8>>,
}

/// A path, and everything below it, that needs a feature.
pub struct Gate {
    path: Vec<u8>,
    feature: Vec<u8>,
}

/// Why a request may pass or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// It needs no feature.
    Community,
    /// The license has the feature.
    Licensed,
    /// The license has ended, and its time of grace has not.
    Grace,
    /// The license does not have the feature.
    Feature,
    /// The license has ended.
    Expired,
    /// This proxy is one more than licensed.
    ProxyLimit,
    /// The host refused a call, or there is no configuration.
    Unavailable,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Reason; 7] = [
        Reason::Community,
        Reason::Licensed,
        Reason::Grace,
        Reason::Feature,
        Reason::Expired,
        Reason::ProxyLimit,
        Reason::Unavailable,
    ];

    /// The status for the client; 0 lets the request pass.
    pub fn status(self) -> u32 {
        match self {
            Reason::Community | Reason::Licensed | Reason::Grace => 0,
            Reason::Feature | Reason::Expired => 402,
            Reason::ProxyLimit => 429,
            Reason::Unavailable => 503,
        }
    }

    /// The name in metrics and access logs, and for clients.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Community => "community",
            Reason::Licensed => "licensed",
            Reason::Grace => "grace",
            Reason::Feature => "feature_not_licensed",
            Reason::Expired => "license_expired",
            Reason::ProxyLimit => "proxy_limit",
            Reason::Unavailable => "unavailable",
        }
    }
}

impl Config {
    /// Reads a configuration.
    pub fn read(bytes: &[u8]) -> Result<Config> {
        let doc = json::parse(bytes, LIMITS).map_err(|_| Wrong("not the JSON of a configuration"))?;
        let root = doc.root();
        only(root, &["surplus", "per_route", "features", "expires_at", "grace_seconds", "gates", "strip_headers"])?;
        let features = texts(root, "features")?;
        let mut gates = Vec::new();
        for g in list(root, "gates")? {
            only(g, &["path", "feature"])?;
            let path = text(g, "path")?.unwrap_or_default();
            let feature = text(g, "feature")?.unwrap_or_default();
            // A path that is not what it seems would gate nothing.
            if path::plain(&path) != Some(path.as_slice()) || path.contains(&b'%') {
                return Err(Wrong("gates: path is a plain path from / on, without escapes"));
            }
            if !is_feature(&feature) {
                return Err(Wrong("gates: feature: letters, digits and -_. only"));
            }
            mem::push(&mut gates, Gate { path, feature })?;
        }
        let mut strip = Vec::new();
        for h in list(root, "strip_headers")? {
            mem::push(&mut strip, string(h)?)?;
        }
        if features.iter().any(|f| !is_feature(f)) {
            return Err(Wrong("features: letters, digits and -_. only"));
        }
        Ok(Config {
            surplus: flag(root, "surplus")?,
            per_route: flag(root, "per_route")?,
            features,
            expires_at: count(root, "expires_at", 0, 253_402_300_799)? as i64,
            grace: count(root, "grace_seconds", 0, 366 * 86400)? as i64,
            gates,
            strip,
        })
    }

    /// The features that a path needs. An ambiguous path needs what any reading of it needs.
    pub fn gated<'a>(&'a self, target: &[u8], out: &mut Vec<&'a [u8]>) -> core::result::Result<(), mem::Full> {
        if self.gates.is_empty() {
            return Ok(());
        }
        let literal = path::cut(target);
        let mut opened = Vec::new();
        if path::plain(target).is_none() || literal.contains(&b'%') {
            path::opened(target, &mut opened)?;
        }
        for g in &self.gates {
            if path::under(literal, &g.path) || path::under(&opened, &g.path) {
                mem::push(out, g.feature.as_slice())?;
            }
        }
        Ok(())
    }

    /// Whether the features may be used. Where not, the second part is the one that is missing.
    pub fn decide<'a>(&self, features: &[&'a [u8]], now: impl FnOnce() -> Option<i64>) -> (Reason, &'a [u8]) {
        let Some(first) = features.first() else { return (Reason::Community, &[]) };
        for f in features {
            if !self.features.iter().any(|have| have == f) {
                return (Reason::Feature, f);
            }
        }
        if self.expires_at == 0 {
            return (Reason::Licensed, &[]);
        }
        match now() {
            None => (Reason::Unavailable, &[]),
            Some(now) if now < self.expires_at => (Reason::Licensed, &[]),
            Some(now) if now < self.expires_at + self.grace => (Reason::Grace, &[]),
            Some(_) => (Reason::Expired, first),
        }
    }

    /// Whether a client's header is dropped here.
    pub fn drops(&self, name: &[u8]) -> bool {
        name.get(..10).is_some_and(|p| named(p, b"x-license-")) || self.strip.iter().any(|h| named(name, h))
    }
}

/// Whether a feature's name can stand in JSON and in a metric as it is.
pub fn is_feature(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= 64 && name.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}
