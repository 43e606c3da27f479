//! A strict and bounded JSON reader for bytes that strangers send.
//!
//! It takes RFC 8259 and nothing else: UTF-8, one value, no trailing bytes, no control character in a
//! string, no lone surrogate. An object that names a key twice is refused (two readers would disagree
//! about its meaning), as is anything deeper or larger than [`Limits`] allows. Work is linear in the
//! input but for the search for duplicate keys, which the limit of nodes bounds.

#![no_std]

extern crate alloc;

pub mod fields;
mod number;
mod parse;
mod string;

pub use number::seconds;
pub use parse::parse;
pub use string::Str;

use alloc::vec::Vec;

/// What one document may hold.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Values and keys together.
    pub nodes: usize,
    /// Arrays and objects inside each other.
    pub depth: u32,
}

/// The bytes are not the JSON this reader takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true`
    True,
    /// `false`
    False,
    /// A number, kept as its text.
    Number,
    /// A string, kept with its escapes.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

#[derive(Clone, Copy)]
struct Node {
    kind: Kind,
    escaped: bool,
    start: u32,
    end: u32,
    /// The node after everything inside this one.
    skip: u32,
}

/// A parsed document: nodes in the order of the text, over the text itself.
pub struct Doc<'a> {
    src: &'a [u8],
    nodes: Vec<Node>,
}

impl<'a> Doc<'a> {
    /// The document's one value.
    pub fn root(&self) -> Value<'_> {
        Value { doc: self, at: 0 }
    }
}

/// One value of a document.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    doc: &'a Doc<'a>,
    at: u32,
}

impl<'a> Value<'a> {
    fn node(&self) -> Option<&'a Node> {
        self.doc.nodes.get(self.at as usize)
    }

    fn text(&self) -> &'a [u8] {
        self.node().and_then(|n| self.doc.src.get(n.start as usize..n.end as usize)).unwrap_or_default()
    }

    /// What kind of value this is.
    pub fn kind(&self) -> Kind {
        self.node().map_or(Kind::Null, |n| n.kind)
    }

    /// The string, if it is one.
    pub fn str(&self) -> Option<Str<'a>> {
        let n = self.node()?;
        (n.kind == Kind::String).then(|| Str { raw: self.text(), escaped: n.escaped })
    }

    /// The number's text, if it is one.
    pub fn number(&self) -> Option<&'a [u8]> {
        (self.kind() == Kind::Number).then(|| self.text())
    }

    /// The number as a count, if it is a whole one that fits.
    pub fn count(&self) -> Option<u64> {
        let mut n: u64 = 0;
        for c in self.number()? {
            if !c.is_ascii_digit() {
                return None;
            }
            n = n.checked_mul(10)?.checked_add((c - b'0') as u64)?;
        }
        Some(n)
    }

    /// The truth value, if it is one.
    pub fn bool(&self) -> Option<bool> {
        match self.kind() {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    fn inside(&self, kind: Kind) -> Inside<'a> {
        match self.node() {
            Some(n) if n.kind == kind => Inside { doc: self.doc, at: self.at + 1, end: n.skip },
            _ => Inside { doc: self.doc, at: 0, end: 0 },
        }
    }

    /// An array's values; of anything else, nothing.
    pub fn items(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        self.inside(Kind::Array)
    }

    /// An object's keys and values; of anything else, nothing.
    pub fn members(&self) -> impl Iterator<Item = (Str<'a>, Value<'a>)> + use<'a> {
        let mut inside = self.inside(Kind::Object);
        core::iter::from_fn(move || Some((inside.next()?.str()?, inside.next()?)))
    }

    /// The member of that name.
    pub fn get(&self, name: &[u8]) -> Option<Value<'a>> {
        self.members().find(|(k, _)| k.is(name)).map(|(_, v)| v)
    }
}

struct Inside<'a> {
    doc: &'a Doc<'a>,
    at: u32,
    end: u32,
}

impl<'a> Iterator for Inside<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.at >= self.end {
            return None;
        }
        let v = Value { doc: self.doc, at: self.at };
        self.at = v.node()?.skip;
        Some(v)
    }
}
