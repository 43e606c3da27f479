//! Reading configurations: everything unknown or of the wrong type is refused, with what was wanted and
//! without the value, which may be a secret.

use alloc::vec::Vec;

use crate::{Kind, Value};

/// What is wrong with a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong(pub &'static str);

impl From<mem::Full> for Wrong {
    fn from(_: mem::Full) -> Wrong {
        Wrong("too large")
    }
}

/// The result of reading something.
pub type Result<T> = core::result::Result<T, Wrong>;

/// Refuses anything but an object that has these fields or fewer.
pub fn only(v: Value<'_>, names: &[&str]) -> Result<()> {
    if v.kind() != Kind::Object {
        return Err(Wrong("an object is wanted"));
    }
    match v.members().all(|(k, _)| names.iter().any(|n| k.is(n.as_bytes()))) {
        true => Ok(()),
        false => Err(Wrong("a field that is not known")),
    }
}

/// A string's bytes.
pub fn string(v: Value<'_>) -> Result<Vec<u8>> {
    let s = v.str().ok_or(Wrong("a string is wanted"))?;
    let mut out = Vec::new();
    s.write(&mut out)?;
    Ok(out)
}

/// The string in a field.
pub fn text(v: Value<'_>, name: &str) -> Result<Option<Vec<u8>>> {
    v.get(name.as_bytes()).map(string).transpose()
}

/// The list in a field; none is an empty one.
pub fn list<'a>(v: Value<'a>, name: &str) -> Result<impl Iterator<Item = Value<'a>> + use<'a>> {
    match v.get(name.as_bytes()) {
        Some(l) if l.kind() != Kind::Array => Err(Wrong("a list is wanted")),
        l => Ok(l.into_iter().flat_map(|l| l.items())),
    }
}

/// The list of strings in a field.
pub fn texts(v: Value<'_>, name: &str) -> Result<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    for item in list(v, name)? {
        mem::push(&mut out, string(item)?)?;
    }
    Ok(out)
}

/// The truth value in a field; none is false.
pub fn flag(v: Value<'_>, name: &str) -> Result<bool> {
    match v.get(name.as_bytes()) {
        None => Ok(false),
        Some(v) => v.bool().ok_or(Wrong("true or false is wanted")),
    }
}

/// The whole number in a field.
pub fn count(v: Value<'_>, name: &str, default: u64, most: u64) -> Result<u64> {
    match v.get(name.as_bytes()) {
        None => Ok(default),
        Some(v) => v.count().filter(|n| *n <= most).ok_or(Wrong("a whole number in its bounds is wanted")),
    }
}
