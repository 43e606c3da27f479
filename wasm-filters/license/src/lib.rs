//! What the license allows: features gate paths and routes, and a proxy too many serves nobody.
//!
//! The control plane reads the license key, checks it and decides which proxy is one too many; this filter
//! gets the outcome and never the key. Community paths keep working whatever happens to the license.

#![cfg_attr(target_arch = "wasm32", no_std)]
#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

extern crate alloc;

pub mod gate;

#[cfg(target_arch = "wasm32")]
mod filter;
