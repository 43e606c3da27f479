//! The figures of one route and service: added up here, and handed to the host from time to time.

use alloc::vec::Vec;

use abi::host::{Metric, MetricKind};

use crate::label::{self, METHODS, STATUSES};

/// A counter of the host, defined when it is first needed, and what it has not been told yet.
#[derive(Clone, Copy, Default)]
struct Counter {
    host: Option<Metric>,
    untold: u64,
}

/// One route and service.
pub struct Series {
    /// As the control plane writes it into the route: service, a bar, route.
    name: Vec<u8>,
    requests: [[Counter; STATUSES.len()]; METHODS.len()],
    request_bytes: Counter,
    response_bytes: Counter,
    duration: Option<Metric>,
    untold: bool,
}

/// All series.
pub struct Table {
    all: Vec<Series>,
    /// Places in `all`, by name.
    sorted: Vec<usize>,
    /// Places in `all` of those with something untold.
    untold: Vec<usize>,
    most: usize,
}

impl Table {
    /// An empty table.
    pub const fn new() -> Self {
        Table { all: Vec::new(), sorted: Vec::new(), untold: Vec::new(), most: 0 }
    }

    /// Takes no more series than that from now on.
    pub fn limit(&mut self, most: usize) {
        self.most = most;
    }

    /// The series of that name, to add to; beyond the limit, the one called `other`.
    pub fn of(&mut self, name: &[u8]) -> Option<&mut Series> {
        let at = match self.find(name) {
            Ok(at) => *self.sorted.get(at)?,
            Err(_) if self.all.len() >= self.most && name != b"other|other" => return self.of(b"other|other"),
            Err(at) => {
                let new = self.all.len();
                mem::push(&mut self.all, Series::new(name).ok()?).ok()?;
                mem::push(&mut self.sorted, new).ok()?;
                if let Some(rest @ [_, ..]) = self.sorted.get_mut(at..) {
                    rest.rotate_right(1);
                }
                new
            }
        };
        let series = self.all.get_mut(at)?;
        if !series.untold {
            mem::push(&mut self.untold, at).ok()?;
            series.untold = true;
        }
        Some(series)
    }

    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.sorted.binary_search_by(|at| self.all.get(*at).map_or(&[][..], |s| s.name.as_slice()).cmp(name))
    }

    /// Hands over what has come together.
    pub fn tell(&mut self) {
        for at in &self.untold {
            if let Some(series) = self.all.get_mut(*at) {
                series.tell();
            }
        }
        self.untold.clear();
    }
}

fn define(cell: &mut Option<Metric>, kind: MetricKind, what: &str, series: &[u8], more: &[&[u8]]) -> Metric {
    if let Some(metric) = cell {
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
    *cell = Some(metric);
    metric
}

impl Counter {
    fn tell(&mut self, what: &str, series: &[u8], more: &[&[u8]]) {
        if self.untold != 0 {
            let by = self.untold.min(i64::MAX as u64) as i64;
            define(&mut self.host, MetricKind::Counter, what, series, more).add(by);
            self.untold = 0;
        }
    }
}

impl Series {
    fn new(name: &[u8]) -> Result<Series, mem::Full> {
        Ok(Series {
            name: mem::copy(name)?,
            requests: [[Counter::default(); STATUSES.len()]; METHODS.len()],
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            duration: None,
            untold: false,
        })
    }

    /// Adds a request with that class of method and status, and its bytes.
    pub fn add(&mut self, method: usize, status: usize, received: u64, sent: u64) {
        if let Some(counter) = self.requests.get_mut(method).and_then(|r| r.get_mut(status)) {
            counter.untold += 1;
        }
        for (counter, bytes) in [(&mut self.request_bytes, received), (&mut self.response_bytes, sent)] {
            counter.untold = counter.untold.saturating_add(bytes);
        }
    }

    /// The histogram of times, which takes each value by itself.
    pub fn duration(&mut self) -> Metric {
        define(&mut self.duration, MetricKind::Histogram, "request_duration_us", &self.name, &[])
    }

    fn tell(&mut self) {
        for (by_status, method) in self.requests.iter_mut().zip(METHODS) {
            for (counter, status) in by_status.iter_mut().zip(STATUSES) {
                let labels: [&[u8]; 5] = [b";method=", method.as_bytes(), b";;status=", status.as_bytes(), b";"];
                counter.tell("requests_total", &self.name, &labels);
            }
        }
        self.request_bytes.tell("request_bytes_total", &self.name, &[]);
        self.response_bytes.tell("response_bytes_total", &self.name, &[]);
        self.untold = false;
    }
}
