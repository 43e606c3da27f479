//! Who a connection counts for.

use siphasher::sip::SipHasher13;

/// How many counts there are: with 10,000 addresses at a time two of them share one seldom, and it takes many with many
/// connections to reach a limit of hundreds together.
pub const COUNTS: u64 = 16_384;

/// What of an address counts, from "192.0.2.1:80" or "[2001:db8::1]:80": all of IPv4, and of IPv6 the network of 64 bits
/// that one customer has. Nothing of what is no address, a Unix socket's path. The standard library's reading, which the
/// tests hold it against, has a panic that can be reached (docs/adr/0033-the-filters-have-no-sdk.md).
pub fn network(address: &[u8]) -> Option<u64> {
    let Some(rest) = address.strip_prefix(b"[") else { return quad(until(address, b':')).map(mapped) };
    let inside = until(rest, b']');
    let inside = until(inside, b'%');
    let (mut groups, mut len, mut gap) = ([0u16; 8], 0usize, None);
    for (n, group) in inside.split(|c| *c == b':').enumerate() {
        if group.is_empty() {
            // "::" at the beginning is two empty groups, in the middle one.
            if n > 0 && gap.is_none() {
                gap = Some(len);
            }
            continue;
        }
        let parts = match quad(group) {
            Some(v4) => [(v4 >> 16) as u16, v4 as u16],
            None => [0, hexadecimal(group)?],
        };
        for part in parts.iter().skip(if group.contains(&b'.') { 0 } else { 1 }) {
            *groups.get_mut(len)? = *part;
            len += 1;
        }
    }
    // What is behind the gap is at the end.
    let at = |n: usize| match gap {
        Some(gap) if n >= gap => (n + len).checked_sub(8).filter(|i| *i >= gap).and_then(|i| groups.get(i)),
        _ => groups.get(n),
    };
    let group = |n| at(n).map_or(0, |g| *g as u64);
    if group(0) | group(1) | group(2) | group(3) | group(4) == 0 && group(5) == 0xffff {
        return Some(mapped((group(6) << 16 | group(7)) as u32));
    }
    Some(group(0) << 48 | group(1) << 32 | group(2) << 16 | group(3))
}

/// The place of an address's count; `seed` is a number that nobody outside knows.
pub fn place(network: u64, seed: u64) -> u64 {
    SipHasher13::new_with_keys(seed, 0).hash(&network.to_le_bytes()) % COUNTS
}

fn mapped(v4: u32) -> u64 {
    0x0000_ffff_0000_0000 | v4 as u64
}

fn until(text: &[u8], end: u8) -> &[u8] {
    text.split(|c| *c == end).next().unwrap_or_default()
}

fn quad(text: &[u8]) -> Option<u32> {
    let (mut out, mut parts) = (0u32, 0);
    for part in text.split(|c| *c == b'.') {
        let mut n = 0u32;
        for c in part {
            n = n * 10 + (c.is_ascii_digit() && part.len() <= 3).then(|| (c - b'0') as u32)?;
        }
        if part.is_empty() || n > 255 {
            return None;
        }
        out = out << 8 | n;
        parts += 1;
    }
    (parts == 4).then_some(out)
}

fn hexadecimal(text: &[u8]) -> Option<u16> {
    if text.len() > 4 {
        return None;
    }
    let mut n = 0u16;
    for c in text {
        n = n << 4 | (*c as char).to_digit(16)? as u16;
    }
    Some(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, SocketAddr};

    fn want(ip: IpAddr) -> u64 {
        match ip.to_canonical() {
            IpAddr::V4(v4) => mapped(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        }
    }

    #[test]
    fn as_the_standard_library_reads_it() {
        for text in [
            "192.0.2.1:80",
            "255.255.255.255:65535",
            "[::1]:80",
            "[::]:80",
            "[2001:db8::1]:80",
            "[2001:db8:1:2:3:4:5:6]:80",
            "[2001:db8:1:2::]:80",
            "[1::8]:80",
            "[::2:3:4:5:6:7:8]:80",
            "[1:2:3:4:5:6:7::]:80",
            "[::ffff:192.0.2.1]:80",
            "[fe80::1]:80",
            "[0:0:1::]:80",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(network(text.as_bytes()), Some(want(address.ip())), "{text}");
        }
        let mut random = 7u64;
        for _ in 0..20_000 {
            let mut groups = [0u16; 8];
            for g in &mut groups {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *g = if random >> 62 == 0 { 0 } else { (random >> 33) as u16 };
            }
            let ip = IpAddr::V6(groups.into());
            assert_eq!(network(SocketAddr::new(ip, 1).to_string().as_bytes()), Some(want(ip)), "{ip}");
        }
    }

    #[test]
    fn what_is_no_address() {
        for text in
            ["", "/run/socket", "1.2.3:80", "1.2.3.256:80", "[1:2:3:4:5:6:7:8:9]:80", "[g::]:80", "[12345::]:80"]
        {
            assert_eq!(network(text.as_bytes()), None, "{text}");
        }
        assert_eq!(network(b"[fe80::1%eth0]:80"), Some(0xfe80_0000_0000_0000));
    }

    #[test]
    fn spread() {
        let mut used = std::collections::HashSet::new();
        for n in 0..COUNTS {
            used.insert(place(mapped(0x0a00_0000 | n as u32), 12_345));
        }
        // As many as chance has: 1 - 1/e of them.
        assert!(used.len() > COUNTS as usize * 6 / 10, "{}", used.len());
        assert_ne!(place(1, 2), place(1, 3));
    }
}
