//! Heads: httparse is the oracle for what is accepted, and the rules of HANDSHAKE are checked once more in other words.

use std::fmt::Debug;

use super::pieces::cuts;
use crate::{
    http::{
        body::{Framing, response_framing},
        fields::{Fields, is_token},
        head::{HeadLimits, Parsed, RequestHead, ResponseHead, Version, parse_request, parse_response, request_line},
        refusal::Refusal,
    },
    websocket::handshake::{Answer, Protocols, Upgrade, judge_answer, judge_request},
};

/// nginx's defaults.
const USUAL: HeadLimits =
    HeadLimits { line_bytes: 8192, head_bytes: 32768, fields: 100, underscores: false, merge_slashes: true };
/// Bounds that short inputs reach, and the other flags.
const TIGHT: HeadLimits =
    HeadLimits { line_bytes: 64, head_bytes: 200, fields: 4, underscores: true, merge_slashes: false };
/// A small `proxy_buffer_size`, and one that short inputs reach.
const RESPONSE_BYTES: [usize; 2] = [4096, 120];

/// A request's head, however it arrives.
pub fn request_head(data: &[u8]) {
    assert!(!request_line(data).contains(&b'\n'));
    for limits in [USUAL, TIGHT] {
        let parse = |bytes: &[u8]| parse_request(bytes, &limits);
        let Some((head, used)) = whole_and_in_parts(data, parse) else { continue };
        // One empty line before the first counts in no bound.
        assert!(used <= limits.head_bytes + 2 && head.fields.len() <= limits.fields);
        same_as_httparse(&data[..used], &head, limits.underscores);
        request_rules(&head);
        comes_back(&head, &limits);
        upgrade_rules(&head);
    }
}

/// A response's head, however it arrives, and what it is taken for.
pub fn response_head(data: &[u8]) {
    for head_bytes in RESPONSE_BYTES {
        let Some((head, used)) = whole_and_in_parts(data, |bytes| parse_response(bytes, head_bytes)) else { continue };
        assert!(used <= head_bytes && (100..600).contains(&head.status));
        let mut fields = [httparse::EMPTY_HEADER; 256];
        let mut parsed = httparse::Response::new(&mut fields);
        assert_eq!(parsed.parse(&data[..used]), Ok(httparse::Status::Complete(used)));
        assert_eq!((parsed.code, parsed.version), (Some(head.status), Some(minor(head.version))));
        assert!(same_fields(parsed.headers, &head.fields, |_| true));
        field_rules(&head.fields);
        framing_rules(&head);
        answer_rules(&head);
    }
}

/// What the whole is, once every part of it was found to be no other: a part may lack something, and nothing else.
fn whole_and_in_parts<T: Debug>(
    data: &[u8],
    parse: impl Fn(&[u8]) -> Result<Parsed<T>, Refusal>,
) -> Option<(T, usize)> {
    let whole = parse(data);
    let told = format!("{whole:?}");
    for cut in cuts(data) {
        match parse(&data[..cut]) {
            Ok(Parsed::Partial) => {}
            part => assert_eq!(format!("{part:?}"), told, "the first {cut} bytes"),
        }
    }
    match whole {
        Ok(Parsed::Complete(head, used)) => Some((head, used)),
        _ => None,
    }
}

fn minor(version: Version) -> u8 {
    u8::from(version == Version::Http11)
}

fn same_as_httparse(bytes: &[u8], head: &RequestHead, underscores: bool) {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut fields);
    assert_eq!(parsed.parse(bytes), Ok(httparse::Status::Complete(bytes.len())));
    assert_eq!(parsed.method, Some(&*head.method));
    assert_eq!(parsed.path.map(str::as_bytes), Some(&*head.target));
    assert_eq!(parsed.version, Some(minor(head.version)));
    assert!(same_fields(parsed.headers, &head.fields, |name| underscores || !name.contains('_')));
}

fn same_fields(parsed: &[httparse::Header<'_>], fields: &Fields, kept: impl Fn(&str) -> bool) -> bool {
    let parsed = parsed.iter().filter(|field| kept(field.name)).map(|field| (field.name.as_bytes(), field.value));
    parsed.eq(fields.iter())
}

fn field_rules(fields: &Fields) {
    for (name, value) in fields.iter() {
        assert!(is_token(name));
        assert!(value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control()));
        assert_eq!(value, value.trim_ascii());
    }
}

fn request_rules(head: &RequestHead) {
    field_rules(&head.fields);
    assert!(is_token(head.method.as_bytes()) && !head.method.bytes().any(|byte| byte.is_ascii_lowercase()));
    assert!(head.target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#'));
    assert!(matches!(head.origin_form().first(), Some(b'/' | b'*')));
    assert!(head.path.starts_with(b"/") && !head.path.contains(&0));
    assert!(!head.path.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b"..")));
    assert!(!head.host.iter().any(|byte| byte.is_ascii_uppercase() || b" /@,?#\\%".contains(byte)));
    assert!(head.authority.to_ascii_lowercase().starts_with(&head.host));
    let hosts = head.fields.all("host").count();
    assert!(hosts == 1 || hosts == 0 && head.version == Version::Http10);
    one_framing(head.body, &head.fields, head.version);
}

/// The fields say nothing, or one thing in one way.
fn one_framing(body: Framing, fields: &Fields, version: Version) {
    let lengths: Vec<&[u8]> = fields.all("content-length").collect();
    let codings: Vec<&[u8]> = fields.all("transfer-encoding").collect();
    match (body, &lengths[..], &codings[..]) {
        (Framing::None, [], []) => {}
        (Framing::Length(length), [text], []) => {
            let digits = String::from_utf8_lossy(text);
            assert!(text.iter().all(u8::is_ascii_digit) && digits.parse() == Ok(length));
        }
        (Framing::Chunked, [], [coding]) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked") && version == Version::Http11);
        }
        other => panic!("{other:?}"),
    }
}

/// Written down again, it is the same head.
fn comes_back(head: &RequestHead, limits: &HeadLimits) {
    let mut text = [head.method.as_bytes(), b" ", &head.target].concat();
    text.extend(format!(" HTTP/1.{}\r\n", minor(head.version)).bytes());
    for (name, value) in head.fields.iter() {
        text.extend([name, b": ", value, b"\r\n"].concat());
    }
    text.extend(b"\r\n");
    // Line ends and blanks may have become more.
    let roomy = HeadLimits { line_bytes: 16 << 10, head_bytes: 64 << 10, ..limits.clone() };
    match parse_request(&text, &roomy) {
        Ok(Parsed::Complete(again, used)) => {
            assert_eq!(format!("{again:?}"), format!("{head:?}"));
            assert_eq!(used, text.len());
        }
        other => panic!("{other:?}"),
    }
}

fn upgrade_rules(head: &RequestHead) {
    let Ok(Some(upgrade)) = judge_request(head, &Protocols::Any) else { return };
    assert_eq!((&*head.method, head.version, head.body), ("GET", Version::Http11, Framing::None));
    assert!(head.fields.lists("connection", "upgrade") && !upgrade.token.eq_ignore_ascii_case("h2c"));
    assert!(upgrade.token.split('/').all(|part| is_token(part.as_bytes())));
    assert_eq!(upgrade.websocket.is_some(), upgrade.token.eq_ignore_ascii_case("websocket"));
    if upgrade.websocket.is_some() {
        assert_eq!(head.fields.single("sec-websocket-version"), Ok(Some(&b"13"[..])));
        assert!(head.fields.single("sec-websocket-key").is_ok_and(|key| key.is_some_and(|key| key.len() == 24)));
    }
}

fn framing_rules(head: &ResponseHead) {
    one_framing(head.body, &head.fields, head.version);
    for method in ["GET", "HEAD"] {
        let bodiless = method == "HEAD" || head.status < 200 || matches!(head.status, 204 | 304);
        assert_eq!(response_framing(head, method) == Framing::None, bodiless);
    }
}

/// The example of RFC 6455 section 1.3, and what it may be answered.
fn answer_rules(head: &ResponseHead) {
    let asked = asked();
    match judge_answer(head, Some(&asked)) {
        Ok(Answer::Plain) => assert_ne!(head.status, 101),
        Ok(Answer::Switched { .. }) => {
            assert_eq!(head.status, 101);
            assert_eq!(head.fields.get("sec-websocket-accept"), Some(&b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="[..]));
        }
        Err(refusal) => assert_eq!((head.status, refusal.status), (101, 502)),
    }
    assert_eq!(judge_answer(head, None).is_err(), head.status == 101, "nobody asked");
}

fn asked() -> Upgrade {
    const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let Ok(Parsed::Complete(head, _)) = parse_request(REQUEST, &USUAL) else { panic!("a good request") };
    judge_request(&head, &Protocols::Any).expect("allowed").expect("an upgrade")
}
