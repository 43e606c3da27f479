//! The filter as Envoy sees it.

use abi::host::{self, Metric, MetricKind, Refused};
use abi::vm::Vm;
use json::Limits;
use json::fields::{Wrong, count, only};

use crate::label;
use crate::series::Table;

/// Service and route with a bar between, in the metadata that the control plane writes.
const ROUTE_NAME: &[u8] = b"xds\0route_metadata\0filter_metadata\0marchproxy\0metrics";
const METHOD: &[u8] = b"request\0method";
const CODE: &[u8] = b"response\0code";
const DURATION: &[u8] = b"request\0duration";
const RECEIVED: &[u8] = b"request\0total_size";
const SENT: &[u8] = b"response\0total_size";

const SERIES: u64 = 1000;
const MOST_SERIES: u64 = 10_000;

struct Filter {
    in_flight: Metric,
    table: Table,
    defined: bool,
}

static FILTER: Vm<Filter> = Vm::new(Filter { in_flight: Metric::NONE, table: Table::new(), defined: false });

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
extern "C" fn proxy_on_context_create(_context: u32, parent: u32) {
    if parent != 0 {
        // Safety: exported.
        unsafe { FILTER.lend() }.in_flight.add(1);
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(_context: u32) {
    // Safety: exported.
    let filter = unsafe { FILTER.lend() };
    filter.in_flight.add(-1);
    // What cannot be read is not counted, and the request has ended anyway.
    let _ = filter.ended();
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
        self.table.limit(most as usize);
        if !self.defined {
            self.defined = true;
            self.in_flight = Metric::define(MetricKind::Gauge, b"marchproxy_requests_in_flight");
        }
        Ok(())
    }

    fn ended(&mut self) -> Result<(), Refused> {
        let name = host::property(ROUTE_NAME)?;
        let series = self.table.of(name.as_deref().unwrap_or_default()).ok_or(Refused)?;
        let method = host::property(METHOD)?;
        let method = label::method(method.as_deref().unwrap_or_default());
        let status = label::status(host::number(CODE)?.unwrap_or(0));
        series.requests(method, status).add(1);
        for (size, counter) in [(RECEIVED, series.request_bytes()), (SENT, series.response_bytes())] {
            counter.add(host::number(size)?.unwrap_or(0).min(i64::MAX as u64) as i64);
        }
        if let Some(ns) = host::number(DURATION)? {
            series.duration().record(ns / 1000);
        }
        Ok(())
    }
}
