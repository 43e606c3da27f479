//! Numbers that are moments.

/// The end of the year 9999: what is later is no date that anybody meant.
const LAST: u64 = 253_402_300_799;

/// A NumericDate (RFC 7519 §2) in whole seconds: a fraction counts down, or up where `up` is set.
/// Nothing for a negative number, or one after the year 9999.
pub fn seconds(number: &[u8], up: bool) -> Option<i64> {
    let mut mantissa: u64 = 0;
    let mut scale: i32 = 0;
    let mut lost = false;
    let mut fraction = false;
    let mut rest = number.iter();
    let mut exponent: i32 = 0;
    while let Some(c) = rest.next() {
        match c {
            b'0'..=b'9' if mantissa < 100_000_000_000_000_000 => {
                mantissa = mantissa * 10 + (c - b'0') as u64;
                scale += fraction as i32;
            }
            b'0'..=b'9' if fraction => lost |= *c != b'0',
            b'.' => fraction = true,
            b'e' | b'E' => {
                exponent = exponent_of(rest.as_slice())?;
                break;
            }
            _ => return None,
        }
    }
    let mut shift = exponent - scale;
    if shift > 0 && lost {
        return None;
    }
    while shift > 0 && mantissa != 0 {
        mantissa = mantissa.checked_mul(10)?;
        shift -= 1;
    }
    while shift < 0 && mantissa != 0 {
        lost |= !mantissa.is_multiple_of(10);
        mantissa /= 10;
        shift += 1;
    }
    if up && lost {
        mantissa += 1;
    }
    (mantissa <= LAST).then_some(mantissa as i64)
}

fn exponent_of(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let mut n: i32 = 0;
    for c in digits {
        n = n * 10 + (c - b'0') as i32;
        if n > 100 {
            return None;
        }
    }
    Some(if negative { -n } else { n })
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn dates() {
        for (text, down, up) in [
            ("0", Some(0), Some(0)),
            ("1300819380", Some(1300819380), Some(1300819380)),
            ("1300819380.5", Some(1300819380), Some(1300819381)),
            ("1300819380.000", Some(1300819380), Some(1300819380)),
            ("1.30081938e9", Some(1300819380), Some(1300819380)),
            ("13008193805E-1", Some(1300819380), Some(1300819381)),
            ("0.00000000000000000000000001", Some(0), Some(1)),
            ("0e99", Some(0), Some(0)),
            ("253402300799", Some(253402300799), Some(253402300799)),
            ("253402300800", None, None),
            ("99999999999999999999999999", None, None),
            ("1e30", None, None),
            ("1e101", None, None),
            ("-1", None, None),
            ("-0", None, None),
        ] {
            assert_eq!(seconds(text.as_bytes(), false), down, "{text}");
            assert_eq!(seconds(text.as_bytes(), true), up, "{text}");
        }
    }
}
