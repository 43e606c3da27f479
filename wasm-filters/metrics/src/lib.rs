//! What passes, and how fast: requests by class of method and status, route and service, how many are in
//! flight, their bytes and their time in microseconds.
//!
//! Labels are bounded: classes instead of methods and codes, names of the control plane instead of paths,
//! and no more series than configured. What a request adds is read when it has ended, added up here, and
//! handed to the host twice a second and whenever no request is in flight.

#![cfg_attr(target_arch = "wasm32", no_std)]
#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

extern crate alloc;

pub mod flights;
pub mod label;

#[cfg(target_arch = "wasm32")]
mod filter;
#[cfg(target_arch = "wasm32")]
mod series;
