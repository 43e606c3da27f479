//! The calls to the host.

use alloc::alloc::{Layout, alloc, dealloc};
use core::ops::Deref;
use core::ptr::null_mut;

use crate::vm::Vm;

/// The host refused a call, or answered it with what it cannot have.
#[derive(Clone, Copy, Debug)]
pub struct Refused;

/// The request's headers.
pub const REQUEST: u32 = 0;

/// The answer's headers.
pub const RESPONSE: u32 = 2;

/// What a filter answers to the host after request headers, or of a connection that is new.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Action {
    /// On to the next filter.
    Continue = 0,
    /// The request stops here.
    Pause = 1,
}

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const PLUGIN_CONFIGURATION: u32 = 7;
const OLD_VERSION: u32 = 8;
const DOWNSTREAM: u32 = 2;
const ERROR: u32 = 4;
const MONOTONIC: u32 = 1;

mod calls {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
    }

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
        pub fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
        pub fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub fn proxy_get_buffer_bytes(kind: u32, start: usize, max: usize, data: *mut *mut u8, size: *mut usize)
        -> u32;
        pub fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
        pub fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
        pub fn proxy_increment_metric(id: u32, by: i64) -> u32;
        pub fn proxy_record_metric(id: u32, value: u64) -> u32;
        pub fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            version: *mut u32,
        ) -> u32;
        pub fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            data: *const u8,
            size: usize,
            version: u32,
        ) -> u32;
        pub fn proxy_close_stream(kind: u32) -> u32;
    }
}

/// Memory that the host asked for during the present call and nobody owns yet.
static PENDING: Vm<Memory> = Vm::new(Memory { ptr: null_mut(), size: 0 });

/// What the host may ask for in one piece: 16 MiB, twice Envoy's own limit for all headers.
const LARGEST: usize = 1 << 24;

/// What is read of a property: names and numbers, never as long as this.
const LONGEST_PROPERTY: usize = 4096;

fn layout(size: usize) -> Layout {
    // Safety: alignment 16 is a power of two, and sizes stay far below the limit.
    unsafe { Layout::from_size_align_unchecked(size, 16) }
}

/// Bytes that the host handed over; given back when dropped.
pub struct Memory {
    ptr: *mut u8,
    size: usize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !self.ptr.is_null() {
            // Safety: the block came from `proxy_on_memory_allocate` with this size.
            unsafe { dealloc(self.ptr, layout(self.size)) }
        }
    }
}

/// The bytes that the host wrote into memory of ours.
pub struct Bytes {
    memory: Memory,
    used: usize,
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.memory.ptr.is_null() {
            return &[];
        }
        // Safety: `used` is not more than the block's size, as `answer` made sure.
        unsafe { core::slice::from_raw_parts(self.memory.ptr, self.used) }
    }
}

/// The host asks for memory to hand bytes over.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    if size == 0 || size > LARGEST {
        return null_mut();
    }
    // Safety: the size is neither zero nor too large.
    let ptr = unsafe { alloc(layout(size)) };
    // Safety: an exported function. What is still pending belongs to a call that failed.
    let pending = unsafe { PENDING.lend() };
    *pending = Memory { ptr, size: if ptr.is_null() { 0 } else { size } };
    ptr
}

fn answer(status: u32, data: *mut u8, size: usize) -> Result<Bytes, Refused> {
    // Safety: the host call has returned, so nothing else holds it.
    let pending = unsafe { PENDING.lend() };
    let memory = core::mem::replace(pending, Memory { ptr: null_mut(), size: 0 });
    if status != OK {
        return Err(Refused);
    }
    if size == 0 {
        return Ok(Bytes { memory, used: 0 });
    }
    if data.is_null() || data != memory.ptr || size > memory.size {
        return Err(Refused);
    }
    Ok(Bytes { memory, used: size })
}

fn done(status: u32) -> Result<(), Refused> {
    if status == OK { Ok(()) } else { Err(Refused) }
}

/// Writes a line to the host's log at level error. Nothing can be done where that fails.
pub fn log_error(what: &[u8], which: &[u8]) {
    let Ok(line) = mem::join(&[what, which]) else { return };
    // Safety: the pointer and the size are a slice's.
    let _ = unsafe { calls::proxy_log(ERROR, line.as_ptr(), line.len()) };
}

/// The time by the wall clock, in whole seconds since 1970.
pub fn now() -> Result<i64, Refused> {
    let mut time = 0;
    // Safety: the host writes one 64-bit number.
    done(unsafe { calls::proxy_get_current_time_nanoseconds(&mut time) })?;
    // Before any token was made: a clock that was not set must not revive old ones.
    if time == 0 { Err(Refused) } else { Ok((time / 1_000_000_000) as i64) }
}

/// Nanoseconds since some start, by a clock that nobody sets.
pub fn since_start() -> Result<u64, Refused> {
    let mut time = 0;
    // Safety: the host writes one 64-bit number.
    done(unsafe { calls::clock_time_get(MONOTONIC, 0, &mut time) })?;
    Ok(time)
}

/// Has the host call `proxy_on_tick` that often from now on, for the root context that is being configured.
pub fn tick_every(milliseconds: u32) -> Result<(), Refused> {
    // Safety: a number only.
    done(unsafe { calls::proxy_set_tick_period_milliseconds(milliseconds) })
}

/// The configuration of the root context that is being configured.
pub fn configuration() -> Result<Bytes, Refused> {
    let (mut data, mut size) = (null_mut(), 0);
    // Safety: the host writes one pointer and one size.
    let status = unsafe { calls::proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, LARGEST, &mut data, &mut size) };
    answer(status, data, size)
}

/// All headers of a map, serialised: see [`crate::pairs`]. The first set of a request costs about ten times the next
/// one, and as much as one value does by itself: what is dear is bringing Envoy's code for it into the caches.
pub fn pairs(map: u32) -> Result<Bytes, Refused> {
    let (mut data, mut size) = (null_mut(), 0);
    // Safety: as above.
    let status = unsafe { calls::proxy_get_header_map_pairs(map, &mut data, &mut size) };
    answer(status, data, size)
}

/// Replaces all headers of a map. With this ABI Envoy then selects the route again.
pub fn set_pairs(map: u32, pairs: &[u8]) -> Result<(), Refused> {
    // Safety: the pointer and the size are a slice's.
    done(unsafe { calls::proxy_set_header_map_pairs(map, pairs.as_ptr(), pairs.len()) })
}

/// A property by its path, the parts separated by zeros; nothing where the host has none of that name.
pub fn property(path: &[u8]) -> Result<Option<Bytes>, Refused> {
    let (mut data, mut size) = (null_mut(), 0);
    // Safety: as above.
    let status = unsafe { calls::proxy_get_property(path.as_ptr(), path.len(), &mut data, &mut size) };
    match answer(status, data, size) {
        Ok(bytes) if bytes.len() <= LONGEST_PROPERTY => Ok(Some(bytes)),
        Err(_) if status == NOT_FOUND => Ok(None),
        _ => Err(Refused),
    }
}

/// The name of the request's route; nothing where it has none. [`crate::route::Route`] reads it.
pub fn route_name() -> Result<Option<Bytes>, Refused> {
    property(b"xds\0route_name")
}

/// A property that is a whole number.
pub fn number(path: &[u8]) -> Result<Option<u64>, Refused> {
    let Some(bytes) = property(path)? else { return Ok(None) };
    match bytes.first_chunk::<8>() {
        Some(n) if bytes.len() == 8 => Ok(Some(u64::from_le_bytes(*n))),
        _ => Err(Refused),
    }
}

/// A number that the VMs of all workers share, and its version; 0 and no version where nobody has set it.
pub fn shared(key: &[u8]) -> Result<(u64, u32), Refused> {
    let (mut data, mut size, mut version) = (null_mut(), 0, 0);
    // Safety: the host writes one pointer and two numbers.
    let status = unsafe { calls::proxy_get_shared_data(key.as_ptr(), key.len(), &mut data, &mut size, &mut version) };
    match answer(status, data, size) {
        Ok(bytes) => match bytes.first_chunk::<8>() {
            Some(n) if bytes.len() == 8 => Ok((u64::from_le_bytes(*n), version)),
            _ => Err(Refused),
        },
        Err(_) if status == NOT_FOUND => Ok((0, 0)),
        _ => Err(Refused),
    }
}

/// Sets a number that the VMs of all workers share, unless it has another version meanwhile; says whether it did. No
/// version, 0, is every version.
pub fn share(key: &[u8], value: u64, version: u32) -> Result<bool, Refused> {
    let bytes = value.to_le_bytes();
    // Safety: the pointers and the sizes are slices'.
    let status = unsafe { calls::proxy_set_shared_data(key.as_ptr(), key.len(), bytes.as_ptr(), bytes.len(), version) };
    if status == OLD_VERSION { Ok(false) } else { done(status).map(|()| true) }
}

/// Closes the client's connection. The host may call back within, to tell of its end.
pub fn hang_up() -> Result<(), Refused> {
    // Safety: a number only.
    done(unsafe { calls::proxy_close_stream(DOWNSTREAM) })
}

/// Answers the request. `details` goes to the access log; `headers` is a serialised map.
pub fn respond(status: u32, details: &[u8], body: &[u8], headers: &[u8]) -> Result<(), Refused> {
    // Safety: the pointers and the sizes are slices'.
    done(unsafe {
        calls::proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}

/// A figure that the host keeps. The default one is kept nowhere: a figure that could not be defined must
/// not stop a request.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Metric(Option<u32>);

/// The kinds of figures.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum MetricKind {
    /// Only grows.
    Counter = 0,
    /// Goes up and down; shared by all workers.
    Gauge = 1,
    /// Collects values.
    Histogram = 2,
}

impl Metric {
    /// A figure that is kept nowhere.
    pub const NONE: Metric = Metric(None);

    /// Defines a figure, or finds the one of that name. It takes a lock in the host: not for every request.
    pub fn define(kind: MetricKind, name: &[u8]) -> Metric {
        let mut id = 0;
        // Safety: the pointer and the size are a slice's, and the host writes one number.
        let status = unsafe { calls::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) };
        Metric((status == OK).then_some(id))
    }

    /// Adds to a counter or a gauge. Adding nothing is not worth a call.
    pub fn add(self, by: i64) {
        if let Metric(Some(id)) = self
            && by != 0
        {
            // Safety: numbers only.
            let _ = unsafe { calls::proxy_increment_metric(id, by) };
        }
    }

    /// Records a value in a histogram.
    pub fn record(self, value: u64) {
        if let Metric(Some(id)) = self {
            // Safety: numbers only.
            let _ = unsafe { calls::proxy_record_metric(id, value) };
        }
    }
}
