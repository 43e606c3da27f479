//! How many connections one address may have: above its limit a new one is closed before anything of it is read.
//!
//! Connections are spread over workers, each with a VM of its own, so the counts are in the memory that those share. The
//! host cannot take a key out of it: addresses share a fixed number of counts, by a hash that nobody outside can compute.

#![cfg_attr(target_arch = "wasm32", no_std)]
#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

pub mod address;

#[cfg(target_arch = "wasm32")]
mod filter;
