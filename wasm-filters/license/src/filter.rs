//! The filter as Envoy sees it.

use alloc::vec::Vec;

use abi::host::{self, Action, Metric, MetricKind};
use abi::pairs::{Pairs, Writer};
use abi::roots::Roots;
use abi::route::Route;
use abi::vm::Vm;
use json::fields::Wrong;

use crate::gate::{Config, Reason, is_feature};

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
    match unsafe { FILTER.lend() }.configure(root) {
        Ok(()) => 1,
        Err(Wrong(what)) => {
            host::log_error(b"marchproxy license: configuration refused: ", what.as_bytes());
            0
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, _headers: u32, _end: u32) -> Action {
    // Safety: exported.
    let filter = unsafe { FILTER.lend() };
    let mut missing = Vec::new();
    let reason = match filter.roots.of(context) {
        None => Reason::Unavailable,
        Some(config) => config.judge(&mut missing).unwrap_or(Reason::Unavailable),
    };
    if let Some(counter) = filter.decisions.get(reason as usize) {
        counter.add(1);
    }
    if reason.status() == 0 {
        return Action::Continue;
    }
    // A request that cannot even be refused stays where it is until its timeout: it does not pass.
    if refuse(reason, &missing).is_err() {
        let _ = host::respond(503, b"", b"", b"");
    }
    Action::Pause
}

/// The request cannot be judged: the host refused a call, or memory is short.
struct Unable;

impl From<host::Refused> for Unable {
    fn from(_: host::Refused) -> Unable {
        Unable
    }
}

impl From<abi::pairs::Malformed> for Unable {
    fn from(_: abi::pairs::Malformed) -> Unable {
        Unable
    }
}

impl From<mem::Full> for Unable {
    fn from(_: mem::Full) -> Unable {
        Unable
    }
}

impl Filter {
    fn configure(&mut self, root: u32) -> Result<(), Wrong> {
        let bytes = host::configuration().map_err(|_| Wrong("the host gave none"))?;
        let config = Config::read(&bytes)?;
        if !self.defined {
            self.defined = true;
            for (metric, reason) in self.decisions.iter_mut().zip(Reason::ALL) {
                let decision: &[u8] = if reason.status() == 0 { b"allow" } else { b"deny" };
                let name: [&[u8]; 5] = [
                    b"marchproxy_license_decisions_total;decision=",
                    decision,
                    b";;reason=",
                    reason.label().as_bytes(),
                    b";",
                ];
                *metric = Metric::define(MetricKind::Counter, &mem::join(&name)?);
            }
        }
        Ok(self.roots.configured(root, bytes.len(), config)?)
    }
}

impl Config {
    fn judge(&self, missing: &mut Vec<u8>) -> Result<Reason, Unable> {
        if self.surplus {
            return Ok(Reason::ProxyLimit);
        }
        let raw = host::pairs(host::REQUEST)?;
        let mut target: &[u8] = &[];
        let mut forged = false;
        if raw.is_empty() {
            // No request is without headers: the host does not tell.
            return Err(Unable);
        }
        for (name, value) in Pairs::parse(&raw)? {
            forged |= self.drops(name);
            if name == b":path" {
                target = value;
            }
        }
        if forged {
            // Before the route is looked at: it may have been chosen by a forged header.
            let mut w = Writer::new();
            for (name, value) in Pairs::parse(&raw)?.filter(|(name, _)| !self.drops(name)) {
                w.add(name, value)?;
            }
            host::set_pairs(host::REQUEST, &w.finish()?)?;
        }
        let mut features = Vec::new();
        self.gated(target, &mut features)?;
        let name = if self.per_route { host::route_name()? } else { None };
        let route = Route::parse(name.as_deref().unwrap_or_default());
        for f in route.features.split(|c| *c == b',').filter(|f| !f.is_empty()) {
            if !is_feature(f) {
                return Err(Unable);
            }
            mem::push(&mut features, f)?;
        }
        let (reason, feature) = self.decide(&features, || host::now().ok());
        mem::append(missing, feature)?;
        Ok(reason)
    }
}

fn refuse(reason: Reason, feature: &[u8]) -> Result<(), Unable> {
    let mut headers = Writer::new();
    headers.add(b"content-type", b"application/json")?;
    headers.add(b"cache-control", b"no-store")?;
    let error: &[u8] = match reason.status() {
        402 => b"payment_required",
        429 => b"too_many_proxies",
        _ => b"unavailable",
    };
    let label = reason.label().as_bytes();
    let mut body = mem::join(&[b"{\"error\":\"", error, b"\",\"reason\":\"", label, b"\""])?;
    if !feature.is_empty() {
        mem::append(&mut body, &mem::join(&[b",\"feature\":\"", feature, b"\""])?)?;
    }
    mem::append(&mut body, b"}\n")?;
    let details = mem::join(&[b"marchproxy_license_", label])?;
    Ok(host::respond(reason.status(), &details, &body, &headers.finish()?)?)
}
