//! Tokens that were good, so that the next request with one need not prove it again.
//!
//! An entry is found by a keyed digest of the whole token and of the policy, holds no token, and is good
//! only inside the token's own dates. A new configuration begins with an empty cache, so that a key that
//! is gone takes its tokens with it.

use alloc::vec::Vec;

use crate::claims::Span;
use crate::siphash::{self, Key};

/// Entries that share a place; the one that ends first makes room.
const WAYS: usize = 4;

/// Forwarded headers longer than this are worked out anew each time, which bounds the cache's memory.
const HEADERS: usize = 512;

struct Entry {
    tag: [u64; 2],
    span: Span,
    headers: Vec<u8>,
}

/// The cache of one configuration.
pub struct Cache {
    key: Key,
    places: usize,
    entries: Vec<Entry>,
}

impl Cache {
    /// An empty cache for about `entries` tokens (rounded up to a power of two); 0 caches nothing.
    pub fn new(key: Key, entries: usize) -> Cache {
        let places = if entries == 0 { 0 } else { entries.div_ceil(WAYS).next_power_of_two() };
        Cache { key, places, entries: Vec::new() }
    }

    /// The digest under which a token is found. Policies ask different things of the same token.
    pub fn tag(&self, policy: usize, token: &[u8]) -> [u64; 2] {
        let Key(a, b) = self.key;
        siphash::digest(Key(a ^ policy as u64, b), token)
    }

    fn place(&mut self, tag: [u64; 2]) -> &mut [Entry] {
        let [low, _] = tag;
        // A power of two, or nothing at all.
        let at = (low as usize & self.places.wrapping_sub(1)) * WAYS;
        self.entries.get_mut(at..at + WAYS).unwrap_or_default()
    }

    /// The forwarded headers of a token that is good now.
    pub fn find(&mut self, tag: [u64; 2], now: i64) -> Option<&[u8]> {
        let entry = self.place(tag).iter().find(|e| e.tag == tag)?;
        (entry.span.from <= now && now < entry.span.until).then_some(&entry.headers)
    }

    /// Keeps a good token.
    pub fn keep(&mut self, tag: [u64; 2], span: Span, headers: &[u8]) {
        if headers.len() > HEADERS || self.places == 0 || !self.room() {
            return;
        }
        let Ok(headers) = mem::copy(headers) else { return };
        if let Some(e) = self.place(tag).iter_mut().min_by_key(|e| if e.tag == tag { i64::MIN } else { e.span.until }) {
            *e = Entry { tag, span, headers };
        }
    }

    /// Memory is taken with the first token only: most configurations replaced never see one.
    fn room(&mut self) -> bool {
        let all = self.places * WAYS;
        if self.entries.is_empty() && self.entries.try_reserve_exact(all).is_ok() {
            for _ in 0..all {
                let none = Entry { tag: [0; 2], span: Span { from: 0, until: 0 }, headers: Vec::new() };
                if mem::push(&mut self.entries, none).is_err() {
                    return false;
                }
            }
        }
        !self.entries.is_empty()
    }

    /// Forgets everything and gives the memory back.
    pub fn empty(&mut self) {
        self.entries = Vec::new();
    }
}
