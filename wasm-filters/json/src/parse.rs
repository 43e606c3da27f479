//! From bytes to nodes.

use alloc::vec::Vec;

use crate::{Doc, Invalid, Kind, Limits, Node, Str};

/// Reads one document.
pub fn parse<'a>(src: &'a [u8], limits: Limits) -> Result<Doc<'a>, Invalid> {
    if src.len() > u32::MAX as usize / 2 || core::str::from_utf8(src).is_err() {
        return Err(Invalid);
    }
    let mut p = Parser { src, at: 0, nodes: Vec::new(), limits };
    p.value(0)?;
    p.space();
    if p.at != src.len() {
        return Err(Invalid);
    }
    Ok(Doc { src, nodes: p.nodes })
}

struct Parser<'a> {
    src: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    limits: Limits,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.src.get(self.at).copied()
    }

    fn take(&mut self, c: u8) -> Result<(), Invalid> {
        if self.peek() != Some(c) {
            return Err(Invalid);
        }
        self.at += 1;
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn open(&mut self, kind: Kind) -> Result<usize, Invalid> {
        if self.nodes.len() >= self.limits.nodes {
            return Err(Invalid);
        }
        let node = Node { kind, escaped: false, start: self.at as u32, end: self.at as u32, skip: 0 };
        mem::push(&mut self.nodes, node).map_err(|_| Invalid)?;
        Ok(self.nodes.len() - 1)
    }

    fn close(&mut self, node: usize) {
        let (end, skip) = (self.at as u32, self.nodes.len() as u32);
        if let Some(n) = self.nodes.get_mut(node) {
            n.end = end;
            n.skip = skip;
        }
    }

    fn value(&mut self, depth: u32) -> Result<(), Invalid> {
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Kind::True),
            Some(b'f') => self.word(b"false", Kind::False),
            Some(b'n') => self.word(b"null", Kind::Null),
            _ => Err(Invalid),
        }
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<(), Invalid> {
        let node = self.open(kind)?;
        for c in word {
            self.take(*c)?;
        }
        self.close(node);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Invalid> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(Invalid) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), Invalid> {
        let node = self.open(Kind::Number)?;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        self.close(node);
        Ok(())
    }

    /// A string's node spans what is between the quotes.
    fn string(&mut self) -> Result<(), Invalid> {
        self.take(b'"')?;
        let node = self.open(Kind::String)?;
        let mut escaped = false;
        loop {
            match self.peek() {
                None | Some(0..0x20) => return Err(Invalid),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    self.escape()?;
                }
                Some(_) => self.at += 1,
            }
        }
        self.close(node);
        if let Some(n) = self.nodes.get_mut(node) {
            n.escaped = escaped;
        }
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Invalid> {
        let c = self.peek().ok_or(Invalid)?;
        self.at += 1;
        match c {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => match self.hex4()? {
                0xD800..0xDC00 => {
                    self.take(b'\\')?;
                    self.take(b'u')?;
                    match self.hex4()? {
                        0xDC00..0xE000 => Ok(()),
                        _ => Err(Invalid),
                    }
                }
                0xDC00..0xE000 => Err(Invalid),
                _ => Ok(()),
            },
            _ => Err(Invalid),
        }
    }

    fn hex4(&mut self) -> Result<u32, Invalid> {
        let mut n = 0;
        for _ in 0..4 {
            let d = (self.peek().ok_or(Invalid)? as char).to_digit(16).ok_or(Invalid)?;
            n = n * 16 + d;
            self.at += 1;
        }
        Ok(n)
    }

    fn array(&mut self, depth: u32) -> Result<(), Invalid> {
        if depth >= self.limits.depth {
            return Err(Invalid);
        }
        let node = self.open(Kind::Array)?;
        self.at += 1;
        self.space();
        if self.peek() != Some(b']') {
            loop {
                self.value(depth + 1)?;
                self.space();
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.take(b']')?;
        self.close(node);
        Ok(())
    }

    fn object(&mut self, depth: u32) -> Result<(), Invalid> {
        if depth >= self.limits.depth {
            return Err(Invalid);
        }
        let node = self.open(Kind::Object)?;
        self.at += 1;
        self.space();
        if self.peek() != Some(b'}') {
            loop {
                self.space();
                let key = self.nodes.len();
                self.string()?;
                self.unique(node, key)?;
                self.space();
                self.take(b':')?;
                self.value(depth + 1)?;
                self.space();
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.take(b'}')?;
        self.close(node);
        Ok(())
    }

    fn str(&self, node: usize) -> Option<Str<'a>> {
        let n = self.nodes.get(node)?;
        Some(Str { raw: self.src.get(n.start as usize..n.end as usize)?, escaped: n.escaped })
    }

    /// Refuses a key that the object has already; escapes do not hide a second one.
    fn unique(&self, object: usize, key: usize) -> Result<(), Invalid> {
        let new = self.str(key).ok_or(Invalid)?;
        let mut at = object + 1;
        while at < key {
            if self.str(at).ok_or(Invalid)?.same(&new) {
                return Err(Invalid);
            }
            at = self.nodes.get(at + 1).ok_or(Invalid)?.skip as usize;
        }
        Ok(())
    }
}
