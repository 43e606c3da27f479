//! What the reader takes and what it refuses.

use json::{Limits, parse};

const LIMITS: Limits = Limits { nodes: 64, depth: 4 };

fn takes(src: &[u8]) -> bool {
    parse(src, LIMITS).is_ok()
}

#[test]
fn takes_what_the_standard_has() {
    for src in [
        "{}",
        " [ ] ",
        "0",
        "-0.5e+3",
        "\"\\u00e9\\ud83d\\ude00\\n\"",
        "{\"a\":[true,false,null,{\"b\":\"\"}]}",
        "\"\u{e9}\"",
        "\"\u{7f}\"",
    ] {
        assert!(takes(src.as_bytes()), "{src}");
    }
}

#[test]
fn refuses_everything_else() {
    for src in [
        "",
        " ",
        "{",
        "}",
        "{}x",
        "{}{}",
        "[1,]",
        "[,1]",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "tru",
        "nulll",
        "NaN",
        "Infinity",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\n\"",
        "\"\0\"",
        "\u{feff}{}",
        "{\"a\"}",
        "{\"a\":1 \"b\":2}",
        "[1 2]",
        "{\"a\":1,\"a\":1}",
        "{\"a\":1,\"\\u0061\":2}",
        "{\"b\":{\"a\":1,\"c\":2,\"a\":3}}",
        "[[[[[]]]]]",
        "// x\n1",
    ] {
        assert!(!takes(src.as_bytes()), "{src}");
    }
    for src in [&b"\"\xff\""[..], b"\"\xc0\x80\"", b"\"\xed\xa0\x80\"", b"\"\xf5\x80\x80\x80\"", b"\xff"] {
        assert!(!takes(src));
    }
    let many = format!("[{}1]", "1,".repeat(64));
    assert!(!takes(many.as_bytes()));
}

#[test]
fn finds_members_behind_escapes() {
    let doc = parse(br#"{"\u0061lg":"HS\u0032\u0035\u0036","n":12,"l":["x","\ud83d\ude00"]}"#, LIMITS).unwrap();
    let root = doc.root();
    assert!(root.get(b"alg").unwrap().str().unwrap().is(b"HS256"));
    assert_eq!(root.get(b"n").unwrap().count(), Some(12));
    let mut out = Vec::new();
    for v in root.get(b"l").unwrap().items() {
        v.str().unwrap().write(&mut out).unwrap();
    }
    assert_eq!(out, "x\u{1f600}".as_bytes());
    assert!(root.get(b"l").unwrap().get(b"x").is_none());
}
