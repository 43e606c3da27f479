//! Who may pass: signed tokens (JWT with HS256, HS384, HS512) and opaque ones, by the policy of the route.
//!
//! [`config`] reads what the control plane sends, [`policy`] decides about one request, [`token`] and
//! [`claims`] about one token; none of them knows a host. `filter` is the part that talks to Envoy.
//! Whatever fails on the way refuses the request.

#![cfg_attr(target_arch = "wasm32", no_std)]
#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

extern crate alloc;

pub mod base64url;
pub mod cache;
pub mod claims;
pub mod config;
pub mod policy;
pub mod reason;
pub mod sha;
pub mod siphash;
pub mod token;

#[cfg(target_arch = "wasm32")]
mod filter;
