//! The figures of one route and service, defined when they are first needed.

use alloc::vec::Vec;

use abi::host::{Metric, MetricKind};

use crate::label::{self, METHODS, STATUSES};

/// One route and service.
pub struct Series {
    /// As the control plane writes it into the route: service, a bar, route.
    name: Vec<u8>,
    requests: [[Option<Metric>; STATUSES.len()]; METHODS.len()],
    request_bytes: Option<Metric>,
    response_bytes: Option<Metric>,
    duration: Option<Metric>,
}

/// All series, by name.
pub struct Table {
    sorted: Vec<Series>,
    most: usize,
}

impl Table {
    /// An empty table.
    pub const fn new() -> Self {
        Table { sorted: Vec::new(), most: 0 }
    }

    /// Takes no more series than that from now on.
    pub fn limit(&mut self, most: usize) {
        self.most = most;
    }

    /// The series of that name; beyond the limit, the one called `other`.
    pub fn of(&mut self, name: &[u8]) -> Option<&mut Series> {
        let at = match self.find(name) {
            Ok(at) => at,
            Err(_) if self.sorted.len() >= self.most && name != b"other|other" => return self.of(b"other|other"),
            Err(at) => {
                let new = Series {
                    name: mem::copy(name).ok()?,
                    requests: [[None; STATUSES.len()]; METHODS.len()],
                    request_bytes: None,
                    response_bytes: None,
                    duration: None,
                };
                mem::push(&mut self.sorted, new).ok()?;
                if let Some(rest @ [_, ..]) = self.sorted.get_mut(at..) {
                    rest.rotate_right(1);
                }
                at
            }
        };
        self.sorted.get_mut(at)
    }

    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.sorted.binary_search_by(|s| s.name.as_slice().cmp(name))
    }
}

fn define(slot: &mut Option<Metric>, kind: MetricKind, what: &str, series: &[u8], more: &[&[u8]]) -> Metric {
    if let Some(metric) = slot {
        return *metric;
    }
    let named = || {
        let mut parts = series.splitn(2, |c| *c == b'|');
        let mut name = mem::join(&[b"marchproxy_", what.as_bytes(), b";service="])?;
        label::write(parts.next().unwrap_or_default(), &mut name)?;
        mem::append(&mut name, b";;route=")?;
        label::write(parts.next().unwrap_or_default(), &mut name)?;
        mem::append(&mut name, b";")?;
        mem::append(&mut name, &mem::join(more)?)?;
        Ok::<_, mem::Full>(name)
    };
    // A figure that cannot be had is not tried again: defining takes a lock.
    let metric = named().map_or(Metric::NONE, |name| Metric::define(kind, &name));
    *slot = Some(metric);
    metric
}

impl Series {
    /// The counter of requests with that class of method and status.
    pub fn requests(&mut self, method: usize, status: usize) -> Metric {
        let (Some(m), Some(s)) = (METHODS.get(method), STATUSES.get(status)) else { return Metric::NONE };
        let Some(slot) = self.requests.get_mut(method).and_then(|r| r.get_mut(status)) else { return Metric::NONE };
        let labels: [&[u8]; 5] = [b";method=", m.as_bytes(), b";;status=", s.as_bytes(), b";"];
        define(slot, MetricKind::Counter, "requests_total", &self.name, &labels)
    }

    /// The counter of bytes received.
    pub fn request_bytes(&mut self) -> Metric {
        define(&mut self.request_bytes, MetricKind::Counter, "request_bytes_total", &self.name, &[])
    }

    /// The counter of bytes sent.
    pub fn response_bytes(&mut self) -> Metric {
        define(&mut self.response_bytes, MetricKind::Counter, "response_bytes_total", &self.name, &[])
    }

    /// The histogram of times.
    pub fn duration(&mut self) -> Metric {
        define(&mut self.duration, MetricKind::Histogram, "request_duration_us", &self.name, &[])
    }
}
