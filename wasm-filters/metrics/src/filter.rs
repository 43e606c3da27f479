//! The filter as Envoy sees it.

use abi::host::{self, Action, Metric, MetricKind, Refused};
use abi::pairs::{Malformed, Pairs};
use abi::route::Route;
use abi::vm::Vm;
use json::Limits;
use json::fields::{Wrong, count, only};
use mem::streams::Streams;

use crate::flights::Flight;
use crate::label;
use crate::series::Table;

const CODE: &[u8] = b"response\0code";

const SERIES: u64 = 1000;
const MOST_SERIES: u64 = 10_000;

/// How often the host is told what has come together, in milliseconds.
const PERIOD: u32 = 500;

struct Filter {
    in_flight: Metric,
    flying: i64,
    /// How many requests in flight the host knows of. The gauge is shared by all workers: each adds what has changed.
    told: i64,
    flights: Streams<Flight>,
    table: Table,
    defined: bool,
}

static FILTER: Vm<Filter> = Vm::new(Filter {
    in_flight: Metric::NONE,
    flying: 0,
    told: 0,
    flights: Streams::new(),
    table: Table::new(),
    defined: false,
});

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(_root: u32, _size: usize) -> u32 {
    // Safety: exported.
    match unsafe { FILTER.lend() }.configure() {
        Ok(()) => 1,
        Err(Wrong(what)) => {
            host::log_error(b"marchproxy metrics: configuration refused: ", what.as_bytes());
            0
        }
    }
}

/// A request begins here and not with its headers: the host answers some requests (a path it does not take)
/// before any filter sees headers, and tells of their end all the same.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    if parent != 0 {
        // Safety: exported.
        unsafe { FILTER.lend() }.began(context);
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(context: u32, size: u32, _end: u32) -> Action {
    // Safety: exported.
    if let Some(flight) = unsafe { FILTER.lend() }.flights.of(context) {
        flight.received += size as u64;
    }
    Action::Continue
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(context: u32, size: u32, _end: u32) -> Action {
    // Safety: exported.
    if let Some(flight) = unsafe { FILTER.lend() }.flights.of(context) {
        flight.sent += size as u64;
    }
    Action::Continue
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(context: u32) {
    // Safety: exported.
    let filter = unsafe { FILTER.lend() };
    // What cannot be read is not counted, and the request has ended anyway.
    let _ = filter.ended(context);
    // The last one leaves nothing untold: a VM ends when none is left, and does not say so.
    if filter.flying <= 0 {
        filter.tell();
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(_root: u32) {
    // Safety: exported.
    unsafe { FILTER.lend() }.tell();
}

/// What cannot be read of a request's end.
struct Unknown;

impl From<Refused> for Unknown {
    fn from(_: Refused) -> Unknown {
        Unknown
    }
}

impl From<Malformed> for Unknown {
    fn from(_: Malformed) -> Unknown {
        Unknown
    }
}

impl Filter {
    fn configure(&mut self) -> Result<(), Wrong> {
        let bytes = host::configuration().map_err(|_| Wrong("the host gave none"))?;
        let mut most = SERIES;
        if !bytes.is_empty() {
            let doc = json::parse(&bytes, Limits { nodes: 16, depth: 2 })
                .map_err(|_| Wrong("not the JSON of a configuration"))?;
            only(doc.root(), &["max_series"])?;
            most = count(doc.root(), "max_series", SERIES, MOST_SERIES)?;
        }
        host::tick_every(PERIOD).map_err(|_| Wrong("the host gives no time"))?;
        self.table.limit(most as usize);
        if !self.defined {
            self.defined = true;
            self.in_flight = Metric::define(MetricKind::Gauge, b"marchproxy_requests_in_flight");
            // A figure that was never touched is left out of scrapes with `usedonly`.
            self.in_flight.add(1);
            self.in_flight.add(-1);
        }
        Ok(())
    }

    fn began(&mut self, context: u32) {
        self.flying += 1;
        if let Ok(now) = host::since_start() {
            let _ = self.flights.begin(context, Flight { began: now, ..Flight::default() });
        }
    }

    fn ended(&mut self, context: u32) -> Result<(), Unknown> {
        self.flying -= 1;
        let flight = self.flights.end(context);
        let Flight { began, mut received, mut sent } = flight.unwrap_or_default();
        let (mut method, mut status) = (label::OTHER, None);
        let request = host::pairs(host::REQUEST)?;
        for (name, value) in Pairs::parse(&request)? {
            received += (name.len() + value.len()) as u64;
            if name == b":method" {
                method = label::method(value);
            }
        }
        let response = host::pairs(host::RESPONSE)?;
        for (name, value) in Pairs::parse(&response)? {
            sent += (name.len() + value.len()) as u64;
            if name == b":status" {
                status = label::digits(value);
            }
        }
        // Envoy has a code of its own where an answer was never made.
        let status = match status {
            Some(code) => code,
            None => host::number(CODE)?.unwrap_or(0),
        };
        let name = host::route_name()?;
        let route = Route::parse(name.as_deref().unwrap_or_default());
        let series = self.table.of(route.series).ok_or(Unknown)?;
        series.add(method, label::status(status), received, sent);
        if flight.is_some() {
            series.duration().record(host::since_start()?.saturating_sub(began) / 1000);
        }
        Ok(())
    }

    fn tell(&mut self) {
        self.in_flight.add(self.flying - self.told);
        self.told = self.flying;
        self.table.tell();
    }
}
