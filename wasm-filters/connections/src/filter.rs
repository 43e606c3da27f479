//! The filter as Envoy sees it.

use abi::host::{self, Action, Metric, MetricKind, Refused};
use abi::vm::Vm;
use json::Limits;
use json::fields::{Wrong, count, only};
use mem::streams::Streams;

use crate::address;

const ADDRESS: &[u8] = b"source\0address";
const SEED: &[u8] = b"seed";

/// How often a count is tried to be changed where other workers change it, too.
const TRIES: usize = 100;

struct Filter {
    limit: u64,
    seed: u64,
    refused: Metric,
    defined: bool,
    /// The count of each connection that is counted, plus one.
    counted: Streams<u64>,
}

static FILTER: Vm<Filter> =
    Vm::new(Filter { limit: 0, seed: 0, refused: Metric::NONE, defined: false, counted: Streams::new() });

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(_root: u32, _size: usize) -> u32 {
    // Safety: exported.
    match unsafe { FILTER.lend() }.configure() {
        Ok(()) => 1,
        Err(Wrong(what)) => {
            host::log_error(b"marchproxy connections: configuration refused: ", what.as_bytes());
            0
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_new_connection(context: u32) -> Action {
    // Safety: exported. The loan has ended when the connection is closed, of which the host tells before it returns.
    let refused = match unsafe { FILTER.lend() }.came(context) {
        Ok(Some(refused)) => refused,
        // What cannot be counted is let through: a limit shares out what there is.
        _ => return Action::Continue,
    };
    refused.add(1);
    let _ = host::hang_up();
    Action::Pause
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_downstream_connection_close(context: u32, _by: u32) {
    // Safety: exported.
    unsafe { FILTER.lend() }.went(context);
}

impl Filter {
    fn configure(&mut self) -> Result<(), Wrong> {
        let bytes = host::configuration().map_err(|_| Wrong("the host gave none"))?;
        let doc = json::parse(&bytes, Limits { nodes: 16, depth: 2 })
            .map_err(|_| Wrong("not the JSON of a configuration"))?;
        only(doc.root(), &["limit"])?;
        let limit = count(doc.root(), "limit", 0, u32::MAX as u64)?;
        if limit == 0 {
            return Err(Wrong("limit is wanted, at least 1"));
        }
        self.limit = limit;
        if !self.defined {
            self.defined = true;
            self.refused = Metric::define(MetricKind::Counter, b"marchproxy_connections_refused_total");
        }
        // The main thread's VM reads the first configuration before a worker's does, and chooses for all.
        let (mut seed, version) = host::shared(SEED).map_err(|_| Wrong("the host shares nothing"))?;
        if version == 0 {
            seed = host::since_start().map_err(|_| Wrong("the host has no clock"))?;
            let _ = host::share(SEED, seed, 0);
        }
        self.seed = seed;
        Ok(())
    }

    /// Counts a connection; gives the figure of those that are refused where it is one too many.
    fn came(&mut self, context: u32) -> Result<Option<Metric>, Refused> {
        let Some(from) = host::property(ADDRESS)? else { return Ok(None) };
        let Some(network) = address::network(&from) else { return Ok(None) };
        let place = address::place(network, self.seed);
        if change(place, |n| if n < self.limit { Some(n + 1) } else { None })?.is_none() {
            return Ok(Some(self.refused));
        }
        if self.counted.begin(context, place + 1).is_err() {
            change(place, |n| Some(n.saturating_sub(1)))?;
        }
        Ok(None)
    }

    fn went(&mut self, context: u32) {
        if let Some(place) = self.counted.end(context) {
            let _ = change(place - 1, |n| Some(n.saturating_sub(1)));
        }
    }
}

/// Changes a count, unless there is nothing to change it to.
fn change(place: u64, to: impl Fn(u64) -> Option<u64>) -> Result<Option<()>, Refused> {
    let key = place.to_le_bytes();
    for _ in 0..TRIES {
        let (n, version) = host::shared(&key)?;
        let Some(next) = to(n) else { return Ok(None) };
        if host::share(&key, next, version)? {
            return Ok(Some(()));
        }
    }
    Err(Refused)
}
