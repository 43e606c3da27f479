//! SipHash-2-4 with 128 bits (Aumasson, Bernstein 2012): a keyed digest for short inputs, about eight
//! times as fast in a VM as SHA-256. Who does not know the key cannot make two tokens meet.

/// A key for the digest.
#[derive(Clone, Copy)]
pub struct Key(pub u64, pub u64);

struct State(u64, u64, u64, u64);

impl State {
    fn round(&mut self) {
        let State(v0, v1, v2, v3) = self;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
    }

    fn word(&mut self, m: u64) {
        self.3 ^= m;
        self.round();
        self.round();
        self.0 ^= m;
    }

    fn fold(&mut self) -> u64 {
        for _ in 0..4 {
            self.round();
        }
        self.0 ^ self.1 ^ self.2 ^ self.3
    }
}

/// The digest of a message.
pub fn digest(key: Key, message: &[u8]) -> [u64; 2] {
    let Key(k0, k1) = key;
    let mut s = State(
        k0 ^ 0x736f6d6570736575,
        k1 ^ 0x646f72616e646f6d ^ 0xee,
        k0 ^ 0x6c7967656e657261,
        k1 ^ 0x7465646279746573,
    );
    let (words, tail) = message.as_chunks::<8>();
    for word in words {
        s.word(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (l, t) in last.iter_mut().zip(tail) {
        *l = *t;
    }
    s.word(u64::from_le_bytes(last) | (message.len() as u64) << 56);
    s.2 ^= 0xee;
    let first = s.fold();
    s.1 ^= 0xdd;
    [first, s.fold()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and some later lines of the authors' own table, key 00..0f, message 00..n.
    #[test]
    fn vectors() {
        let key = Key(0x0706050403020100, 0x0f0e0d0c0b0a0908);
        let message: alloc::vec::Vec<u8> = (0..64).collect();
        for (n, want) in [
            (0, "a3817f04ba25a8e66df67214c7550293"),
            (1, "da87c1d86b99af44347659119b22fc45"),
            (2, "8177228da4a45dc7fca38bdef60affe4"),
        ] {
            let [a, b] = digest(key, &message[..n]);
            let got: alloc::string::String =
                a.to_le_bytes().iter().chain(&b.to_le_bytes()).map(|b| alloc::format!("{b:02x}")).collect();
            assert_eq!(got, want, "{n}");
        }
    }
}
