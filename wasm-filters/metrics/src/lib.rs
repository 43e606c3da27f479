//! What passes, and how fast: requests by class of method and status, route and service, how many are in
//! flight, their bytes and their time in microseconds.
//!
//! Labels are bounded: classes instead of methods and codes, names of the control plane instead of paths,
//! and no more series than configured. There is no state for a request, so that none can be left behind:
//! all is read when the request has ended.

#![cfg_attr(target_arch = "wasm32", no_std)]
#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

extern crate alloc;

pub mod label;

#[cfg(target_arch = "wasm32")]
mod filter;
#[cfg(target_arch = "wasm32")]
mod series;
