//! SHA-2 and HMAC (FIPS 180-4, RFC 2104) over the compression functions of the `sha2` crate.
//!
//! The padding is ours because the crate's own buffers can panic, and because a key's two inner states
//! are computed once here, which saves two of the about seven compressions of a usual token.

use sha2::block_api::{compress256, compress512};
use subtle::ConstantTimeEq;

/// The algorithms of HMAC with SHA-2 (RFC 7518 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

impl Algorithm {
    /// The name in a token.
    pub fn name(self) -> &'static [u8] {
        match self {
            Algorithm::Hs256 => b"HS256",
            Algorithm::Hs384 => b"HS384",
            Algorithm::Hs512 => b"HS512",
        }
    }

    /// The length of a MAC in bytes, and the least length of a key.
    pub fn size(self) -> usize {
        match self {
            Algorithm::Hs256 => 32,
            Algorithm::Hs384 => 48,
            Algorithm::Hs512 => 64,
        }
    }
}

const INIT256: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
const INIT384: [u64; 8] = [
    0xcbbb9d5dc1059ed8,
    0x629a292a367cd507,
    0x9159015a3070dd17,
    0x152fecd8f70e5939,
    0x67332667ffc00b31,
    0x8eb44a8768581511,
    0xdb0c2e0d64f98fa7,
    0x47b5481dbefa4fa4,
];
const INIT512: [u64; 8] = [
    0x6a09e667f3bcc908,
    0xbb67ae8584caa73b,
    0x3c6ef372fe94f82b,
    0xa54ff53a5f1d36f1,
    0x510e527fade682d1,
    0x9b05688c2b3e6c1f,
    0x1f83d9abfb41bd6b,
    0x5be0cd19137e2179,
];

fn put(to: &mut [u8], bytes: &[u8]) {
    for (t, b) in to.iter_mut().zip(bytes) {
        *t = *b;
    }
}

/// Ends a hash of 64-byte blocks that has taken `before` bytes already.
fn end256(mut state: [u32; 8], before: u64, message: &[u8]) -> [u8; 32] {
    let (blocks, tail) = message.as_chunks::<64>();
    compress256(&mut state, blocks);
    let mut last = [[0u8; 64]; 2];
    let flat = last.as_flattened_mut();
    put(flat, tail);
    put(flat.get_mut(tail.len()..).unwrap_or_default(), &[0x80]);
    let used = if tail.len() < 56 { 1 } else { 2 };
    let bits = (before + message.len() as u64) * 8;
    put(flat.get_mut(used * 64 - 8..).unwrap_or_default(), &bits.to_be_bytes());
    compress256(&mut state, last.get(..used).unwrap_or_default());
    let mut out = [0; 32];
    for (o, w) in out.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *o = w.to_be_bytes();
    }
    out
}

/// The same with 128-byte blocks.
fn end512(mut state: [u64; 8], before: u64, message: &[u8]) -> [u8; 64] {
    let (blocks, tail) = message.as_chunks::<128>();
    compress512(&mut state, blocks);
    let mut last = [[0u8; 128]; 2];
    let flat = last.as_flattened_mut();
    put(flat, tail);
    put(flat.get_mut(tail.len()..).unwrap_or_default(), &[0x80]);
    let used = if tail.len() < 112 { 1 } else { 2 };
    let bits = (before + message.len() as u64) * 8;
    put(flat.get_mut(used * 128 - 8..).unwrap_or_default(), &bits.to_be_bytes());
    compress512(&mut state, last.get(..used).unwrap_or_default());
    let mut out = [0; 64];
    for (o, w) in out.as_chunks_mut::<8>().0.iter_mut().zip(state) {
        *o = w.to_be_bytes();
    }
    out
}

/// SHA-256.
pub fn sha256(message: &[u8]) -> [u8; 32] {
    end256(INIT256, 0, message)
}

/// A key ready for use: the states after the inner and the outer pad.
pub enum Key {
    /// For 64-byte blocks.
    Short([u32; 8], [u32; 8]),
    /// For 128-byte blocks, and whether the hash is cut to 384 bits.
    Long([u64; 8], [u64; 8], Algorithm),
}

impl Key {
    /// Prepares a key of any length.
    pub fn new(algorithm: Algorithm, secret: &[u8]) -> Key {
        let mut block = [0u8; 128];
        let size = if algorithm == Algorithm::Hs256 { 64 } else { 128 };
        if secret.len() <= size {
            put(&mut block, secret);
        } else {
            match algorithm {
                Algorithm::Hs256 => put(&mut block, &sha256(secret)),
                Algorithm::Hs384 => put(&mut block, end512(INIT384, 0, secret).get(..48).unwrap_or_default()),
                Algorithm::Hs512 => put(&mut block, &end512(INIT512, 0, secret)),
            }
        }
        let [inner, outer] = [0x36, 0x5c].map(|pad| block.map(|b| b ^ pad));
        match algorithm {
            Algorithm::Hs256 => {
                let mut states = [INIT256; 2];
                for (state, pad) in states.iter_mut().zip([inner, outer]) {
                    compress256(state, pad.as_chunks().0.get(..1).unwrap_or_default());
                }
                let [inner, outer] = states;
                Key::Short(inner, outer)
            }
            Algorithm::Hs384 | Algorithm::Hs512 => {
                let mut states = [if algorithm == Algorithm::Hs384 { INIT384 } else { INIT512 }; 2];
                for (state, pad) in states.iter_mut().zip([inner, outer]) {
                    compress512(state, &[pad]);
                }
                let [inner, outer] = states;
                Key::Long(inner, outer, algorithm)
            }
        }
    }

    /// The algorithm, which the key alone decides.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Key::Short(..) => Algorithm::Hs256,
            Key::Long(_, _, algorithm) => *algorithm,
        }
    }

    /// The MAC of a message, in the first [`Algorithm::size`] bytes.
    pub fn mac(&self, message: &[u8]) -> [u8; 64] {
        match self {
            Key::Short(inner, outer) => {
                let mut out = [0; 64];
                put(&mut out, &end256(*outer, 64, &end256(*inner, 64, message)));
                out
            }
            Key::Long(inner, outer, algorithm) => {
                let hash = end512(*inner, 128, message);
                end512(*outer, 128, hash.get(..algorithm.size()).unwrap_or_default())
            }
        }
    }

    /// Whether the MAC is that of the message; how much of it is right does not show in the time.
    pub fn verify(&self, message: &[u8], mac: &[u8]) -> bool {
        let want = self.mac(message);
        want.get(..self.algorithm().size()).unwrap_or_default().ct_eq(mac).into()
    }
}
