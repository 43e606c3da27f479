//! The filter as Envoy sees it.

use alloc::vec::Vec;

use abi::host::{self, Action, Metric, MetricKind};
use abi::pairs::{Pairs, Writer, named};
use abi::roots::Roots;
use abi::route::{self, Route};
use abi::vm::Vm;

use json::fields::Wrong;

use crate::claims::forwarded;
use crate::config;
use crate::policy::{Authorization, Config, Policy};
use crate::reason::Reason;
use crate::sha::{Algorithm, Key};

const AUTHORIZATION: &[u8] = b"authorization";

struct Filter {
    roots: Roots<Config>,
    decisions: [Metric; Reason::ALL.len()],
    defined: bool,
}

static FILTER: Vm<Filter> =
    Vm::new(Filter { roots: Roots::new(), decisions: [Metric::NONE; Reason::ALL.len()], defined: false });

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    // Safety: exported.
    unsafe { FILTER.lend() }.roots.created(context, parent);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, _size: usize) -> u32 {
    // Safety: exported.
    let filter = unsafe { FILTER.lend() };
    match filter.configure(root) {
        Ok(()) => 1,
        Err(Wrong(what)) => {
            host::log_error(b"marchproxy auth: configuration refused: ", what.as_bytes());
            0
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, _headers: u32, _end: u32) -> Action {
    // Safety: exported.
    let filter = unsafe { FILTER.lend() };
    let (reason, realm) = match filter.roots.of(context) {
        None => (Reason::Unavailable, &[][..]),
        Some(config) => (config.judge().unwrap_or_else(|reason| reason), config.realm.as_slice()),
    };
    if let Some(counter) = filter.decisions.get(reason as usize) {
        counter.add(1);
    }
    if reason.status() == 0 {
        return Action::Continue;
    }
    // A request that cannot even be refused stays where it is until its timeout: it does not pass.
    if refuse(reason, realm).is_err() {
        let _ = host::respond(503, b"", b"", b"");
    }
    Action::Pause
}

/// Computes an HMAC: for the known answers in the project's tests, which so reach the shipped code. The
/// output needs 64 bytes. Envoy never calls it.
///
/// # Safety
/// The pointers and lengths must be of the caller's own memory in this module.
#[unsafe(no_mangle)]
unsafe extern "C" fn marchproxy_hmac(
    bits: u32,
    key: *const u8,
    key_size: usize,
    message: *const u8,
    message_size: usize,
    out: *mut [u8; 64],
) {
    let algorithm = match bits {
        256 => Algorithm::Hs256,
        384 => Algorithm::Hs384,
        _ => Algorithm::Hs512,
    };
    // Safety: the caller's promise.
    unsafe {
        let key = core::slice::from_raw_parts(key, key_size);
        *out = Key::new(algorithm, key).mac(core::slice::from_raw_parts(message, message_size));
    }
}

impl Filter {
    fn configure(&mut self, root: u32) -> Result<(), Wrong> {
        let bytes = host::configuration().map_err(|_| Wrong("the host gave none"))?;
        let config = config::read(&bytes)?;
        if !self.defined {
            self.defined = true;
            for (metric, reason) in self.decisions.iter_mut().zip(Reason::ALL) {
                *metric = Metric::define(MetricKind::Counter, &name(*reason));
            }
        }
        self.roots.configured(root, bytes.len(), config).map_err(|_| Wrong("too large"))?;
        self.roots.older().for_each(|old| old.cache.empty());
        Ok(())
    }
}

fn name(reason: Reason) -> Vec<u8> {
    let decision: &[u8] = if reason.status() == 0 { b"allow" } else { b"deny" };
    let mut name = Vec::new();
    for part in [b"marchproxy_auth_decisions_total;decision=", decision, b";;reason=", reason.label().as_bytes(), b";"]
    {
        let _ = mem::append(&mut name, part);
    }
    name
}

/// What a request's headers say.
struct Read<'a> {
    /// The client sent a header that only this filter may set.
    claimed: bool,
    authorization: Authorization<'a>,
    target: &'a [u8],
}

impl Config {
    /// The decision about the present request, whose headers then are as they may go on.
    fn judge(&mut self) -> Result<Reason, Reason> {
        let unavailable = |_| Reason::Unavailable;
        let mut raw = host::pairs(host::REQUEST).map_err(unavailable)?;
        let mut read = self.read(&raw)?;
        if read.claimed {
            // The route stays what it is: none matches by a header that this filter changes, or the write is refused
            // (pkg/config/routed.go). It has to, for Envoy selects the route again and shows the old one's name.
            let clean = self.rewrite(&raw, None, false, &[])?;
            host::set_pairs(host::REQUEST, &clean).map_err(unavailable)?;
            raw = host::pairs(host::REQUEST).map_err(unavailable)?;
            read = self.read(&raw)?;
        }
        let Read { authorization, target, .. } = read;
        let Some(index) = self.policy()? else { return Ok(Reason::NoPolicy) };

        let policy = self.policies.get(index).ok_or(Reason::UnknownPolicy)?;
        let mut headers = Vec::new();
        let reason = policy.decide(index, &mut self.cache, target, authorization, || host::now().ok(), &mut headers);
        if reason.status() != 0 {
            return Err(reason);
        }
        let strip = policy.strip && !matches!(authorization, Authorization::Missing);
        if strip || !headers.is_empty() {
            let edited = self.rewrite(&raw, Some(policy), strip, &headers)?;
            host::set_pairs(host::REQUEST, &edited).map_err(unavailable)?;
        }
        Ok(reason)
    }

    /// The policy of the request's route.
    fn policy(&self) -> Result<Option<usize>, Reason> {
        if !self.per_route {
            return Ok(self.default);
        }
        let name = host::route_name().map_err(|_| Reason::Unavailable)?;
        match Route::parse(name.as_deref().unwrap_or_default()).policy {
            route::Policy::Unsaid => Ok(self.default),
            route::Policy::None => Ok(None),
            route::Policy::Named(name) => match self.policies.iter().position(|p| p.name == name) {
                None => Err(Reason::UnknownPolicy),
                found => Ok(found),
            },
        }
    }

    fn is_identity(&self, name: &[u8]) -> bool {
        self.identity.iter().any(|h| named(name, h))
    }

    fn read<'a>(&self, raw: &'a [u8]) -> Result<Read<'a>, Reason> {
        let mut read = Read { claimed: false, authorization: Authorization::Missing, target: &[] };
        for (name, value) in Pairs::parse(raw).map_err(|_| Reason::Unavailable)? {
            read.claimed |= self.is_identity(name);
            if name.eq_ignore_ascii_case(AUTHORIZATION) {
                read.authorization = match read.authorization {
                    Authorization::Missing => Authorization::One(value),
                    _ => Authorization::Many,
                };
            } else if name == b":path" {
                read.target = value;
            }
        }
        Ok(read)
    }

    fn rewrite(&self, raw: &[u8], policy: Option<&Policy>, strip: bool, headers: &[u8]) -> Result<Vec<u8>, Reason> {
        let full = |_| Reason::Unavailable;
        let mut w = Writer::new();
        for (name, value) in Pairs::parse(raw).map_err(|_| Reason::Unavailable)? {
            if self.is_identity(name) || (strip && name.eq_ignore_ascii_case(AUTHORIZATION)) {
                continue;
            }
            w.add(name, value).map_err(full)?;
        }
        let rules = policy.and_then(|p| p.signed.as_ref()).map(|s| s.rules.forward.as_slice()).unwrap_or_default();
        for (rule, value) in forwarded(headers) {
            if let Some(f) = rules.get(rule) {
                w.add(&f.header, value).map_err(full)?;
            }
        }
        w.finish().map_err(full)
    }
}

fn refuse(reason: Reason, realm: &[u8]) -> Result<(), ()> {
    let join = |parts: &[&[u8]]| mem::join(parts).map_err(|_| ());
    let mut headers = Writer::new();
    let mut add = |name: &[u8], value: &[u8]| headers.add(name, value).map_err(|_| ());
    add(b"content-type", b"application/json")?;
    add(b"cache-control", b"no-store")?;
    // RFC 6750 §3.1: no error code for a request that brought no credentials.
    let error: &[u8] = match reason.status() {
        401 if reason.without_credentials() => b"",
        401 => b", error=\"invalid_token\"",
        _ => b", error=\"insufficient_scope\"",
    };
    if reason.status() != 503 {
        let realm = if realm.is_empty() { b"marchproxy" } else { realm };
        add(b"www-authenticate", &join(&[b"Bearer realm=\"", realm, b"\"", error])?)?;
    }
    let title: &[u8] = match reason.status() {
        401 => b"unauthorized",
        403 => b"forbidden",
        _ => b"unavailable",
    };
    let body = join(&[b"{\"error\":\"", title, b"\",\"reason\":\"", reason.public().as_bytes(), b"\"}\n"])?;
    let details = join(&[b"marchproxy_auth_", reason.label().as_bytes()])?;
    let headers = headers.finish().map_err(|_| ())?;
    host::respond(reason.status(), &details, &body, &headers).map_err(|_| ())
}
