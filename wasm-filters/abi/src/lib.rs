//! Our thin layer over proxy-wasm 0.2.1: bytes only, and no way to panic.
//!
//! Every call to the host gives a `Result`: a host may refuse any call, and may answer with nothing or
//! with too much. What the host hands over is taken only if it lies in memory that this call asked for.
//! Header names and values are bytes; nothing here asks for UTF-8.
//!
//! A panic would trap the VM. The panic handler calls a function that no host has, so that a module in
//! which any panic can be reached does not load: `scripts/wasm` and the tests look for that import.

#![no_std]

extern crate alloc;

pub mod pairs;
pub mod roots;
pub mod route;

#[cfg(target_arch = "wasm32")]
mod heap;
#[cfg(target_arch = "wasm32")]
pub mod host;
#[cfg(target_arch = "wasm32")]
pub mod vm;

#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn marchproxy_a_panic_can_be_reached() -> !;
    }
    // Safety: the call never happens; its import is what the tests look for.
    unsafe { marchproxy_a_panic_can_be_reached() }
}
