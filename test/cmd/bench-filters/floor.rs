//! The least that a filter can cost: it makes the host calls of one of ours and does nothing with the answers.
//! `--cfg metrics`, `license` or `auth` says of which one; `headers` only reads the request's headers.
#![no_std]
#![allow(dead_code)] // each kind makes some of the calls

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}

static mut SPACE: [u64; 8192] = [0; 8192];
static mut FIGURE: u32 = 0;

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(_size: usize) -> *mut u8 {
    &raw mut SPACE as *mut u8
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(_root: u32, _size: usize) -> u32 {
    let (kind, name) = if cfg!(metrics) { (2, "floor_us") } else { (0, "floor_total") };
    unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut FIGURE) };
    1
}

fn headers(map: u32) {
    let (mut data, mut size) = (core::ptr::null_mut(), 0);
    unsafe { proxy_get_header_map_pairs(map, &mut data, &mut size) };
}

fn route() {
    let path = "xds\0route_name";
    let (mut data, mut size) = (core::ptr::null_mut(), 0);
    unsafe { proxy_get_property(path.as_ptr(), path.len(), &mut data, &mut size) };
}

fn time() {
    let mut now = 0;
    unsafe { if cfg!(metrics) { clock_time_get(1, 0, &mut now) } else { proxy_get_current_time_nanoseconds(&mut now) } };
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(_context: u32, _parent: u32) {
    if cfg!(metrics) {
        time();
    }
}

#[cfg(not(metrics))]
#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(_context: u32, _headers: u32, _end: u32) -> u32 {
    headers(0);
    if cfg!(auth) {
        time();
    }
    if cfg!(any(auth, license)) {
        unsafe { proxy_increment_metric(FIGURE, 1) };
    }
    0
}

#[cfg(metrics)]
#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(_context: u32, _size: u32, _end: u32) -> u32 {
    0
}

#[cfg(metrics)]
#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(_context: u32) {
    headers(0);
    headers(2);
    route();
    time();
    unsafe { proxy_record_metric(FIGURE, 100) };
}
