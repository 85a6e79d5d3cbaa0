use proptest::prelude::*;

use super::*;
use crate::http::head::{HeadLimits, Parsed, parse_request, parse_response};

const LIMITS: HeadLimits =
    HeadLimits { line_bytes: 8192, head_bytes: 32768, fields: 100, underscores: false, merge_slashes: true };

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const V13: &str = "Sec-WebSocket-Version: 13";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket";
const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn websocket() -> Protocols {
    Protocols::Only(vec!["websocket".into()])
}

fn request(line: &str, fields: &[&str]) -> RequestHead {
    let text = format!("{line}\r\nHost: a\r\n{}\r\n\r\n", fields.join("\r\n"));
    match parse_request(text.as_bytes(), &LIMITS) {
        Ok(Parsed::Complete(head, _)) => head,
        other => panic!("{other:?}"),
    }
}

fn judge(fields: &[&str]) -> Result<Option<Upgrade>, (u16, &'static str)> {
    judge_request(&request("GET / HTTP/1.1", fields), &websocket()).map_err(|refusal| (refusal.status, refusal.reason))
}

fn asked(fields: &[&str]) -> Upgrade {
    judge(&[&[UPGRADE, KEY, V13], fields].concat()).expect("valid").expect("an upgrade")
}

fn answer(status: &str, fields: &[&str], asked: Option<&Upgrade>) -> Result<Answer, (u16, &'static str)> {
    let text = format!("{status}\r\n{}\r\n\r\n", fields.join("\r\n"));
    let Ok(Parsed::Complete(head, _)) = parse_response(text.as_bytes(), 8192) else { panic!("{text}") };
    judge_answer(&head, asked).map_err(|refusal| (refusal.status, refusal.reason))
}

fn switched(fields: &[&str], asked: &Upgrade) -> Result<Answer, (u16, &'static str)> {
    answer("HTTP/1.1 101 Switching Protocols", fields, Some(asked))
}

#[test]
fn the_handshake_of_rfc_6455_is_an_upgrade() {
    let upgrade = asked(&[]);
    assert_eq!(&*upgrade.token, "websocket");
    let offer = upgrade.websocket.expect("a websocket");
    assert_eq!(&offer.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(offer.extensions.is_empty() && offer.subprotocols.is_empty());
}

#[test]
fn connection_may_list_upgrade_anywhere_and_in_any_case() {
    for connection in
        ["Connection: keep-alive, Upgrade", "connection: UPGRADE,x", "Connection: x\r\nConnection: upgrade"]
    {
        assert!(judge(&[connection, "Upgrade: WebSocket", KEY, V13]).expect("valid").is_some(), "{connection}");
    }
}

#[test]
fn an_upgrade_without_the_connection_token_is_plain_http() {
    assert_eq!(judge(&["Upgrade: websocket", KEY, V13]), Ok(None));
    assert_eq!(judge(&["Connection: upgraded", "Upgrade: websocket", KEY, V13]), Ok(None));
    assert_eq!(judge(&["Connection: upgrade", KEY, V13]), Ok(None));
}

#[test]
fn an_upgrade_in_http_10_is_plain_http() {
    let head = request("GET / HTTP/1.0", &[UPGRADE, KEY, V13]);
    assert_eq!(judge_request(&head, &websocket()), Ok(None));
}

#[test]
fn a_token_that_is_not_allowed_is_plain_http() {
    for upgrade in ["Upgrade: foo", "Upgrade: TLS/1.0", "Upgrade: websocket/13", "Upgrade: web socket", "Upgrade:"] {
        assert_eq!(judge(&["Connection: upgrade", upgrade]), Ok(None), "{upgrade}");
    }
}

#[test]
fn h2c_never_becomes_a_tunnel_and_curl_posts_with_it() {
    for protocols in [Protocols::Any, Protocols::Only(vec!["h2c".into()])] {
        for fields in ["Upgrade: h2c", "Upgrade: h2c/1", "Upgrade: H2C\r\nContent-Length: 3"] {
            let head = request(
                "POST / HTTP/1.1",
                &["Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk", fields],
            );
            assert_eq!(judge_request(&head, &protocols), Ok(None));
        }
    }
}

#[test]
fn only_the_allowed_token_of_a_list_is_kept() {
    let upgrade = judge(&["Connection: upgrade", "Upgrade: h2c, foo/2, WebSocket", KEY, V13]).expect("valid");
    assert_eq!(&*upgrade.expect("an upgrade").token, "WebSocket");
    let head = request("GET / HTTP/1.1", &["Connection: upgrade", "Upgrade: h2c, foo/2, websocket"]);
    let upgrade = judge_request(&head, &Protocols::Any).expect("valid").expect("an upgrade");
    assert_eq!((&*upgrade.token, upgrade.websocket), ("foo/2", None));
}

#[test]
fn two_upgrade_lines_are_400() {
    assert_eq!(judge(&[UPGRADE, "Upgrade: websocket", KEY, V13]), Err((400, "two_upgrades")));
}

#[test]
fn an_upgrade_with_a_body_is_400() {
    for framing in ["Content-Length: 5", "Content-Length: 0", "Transfer-Encoding: chunked"] {
        assert_eq!(judge(&[UPGRADE, KEY, V13, framing]), Err((400, "upgrade_with_body")), "{framing}");
    }
}

#[test]
fn an_upgrade_by_another_method_is_400() {
    let head = request("POST / HTTP/1.1", &[UPGRADE, KEY, V13]);
    assert_eq!(judge_request(&head, &websocket()).unwrap_err().reason, "upgrade_method");
}

#[test]
fn another_websocket_version_is_426() {
    for version in ["X: y", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 13, 8", "Sec-WebSocket-Version: 013"] {
        assert_eq!(judge(&[UPGRADE, KEY, version]), Err((426, "websocket_version")), "{version}");
    }
    assert_eq!(judge(&[UPGRADE, KEY, V13, V13]), Err((426, "websocket_version")));
    assert_eq!(judge(&[UPGRADE, "Sec-WebSocket-Version: 8"]).unwrap_err().0, 426, "old clients sent no key");
}

#[test]
fn the_key_is_16_bytes_in_strict_base64() {
    for key in [
        "",
        "AAAA",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZR==",
        "dGhlIHNhbXBsZSBub25jZQ= ",
        "dGhlIHNhbXBsZSBub25jZQA=",
    ] {
        let key = format!("Sec-WebSocket-Key: {key}");
        assert_eq!(judge(&[UPGRADE, V13, &key]), Err((400, "bad_websocket_key")), "{key}");
    }
    assert_eq!(judge(&[UPGRADE, V13]), Err((400, "bad_websocket_key")));
    assert_eq!(judge(&[UPGRADE, V13, KEY, KEY]), Err((400, "two_websocket_keys")));
}

#[test]
fn a_valid_101_opens_the_tunnel() {
    let asked = asked(&[]);
    assert_eq!(switched(&[UPGRADE, ACCEPT], &asked), Ok(Answer::Switched { rsv: 0 }));
    let spelt = ["connection: x, UPGRADE", "upgrade: WebSocket", ACCEPT];
    assert_eq!(switched(&spelt, &asked), Ok(Answer::Switched { rsv: 0 }));
}

#[test]
fn a_101_nobody_asked_for_is_502() {
    let status = "HTTP/1.1 101 Switching Protocols";
    assert_eq!(answer(status, &[UPGRADE, ACCEPT], None), Err((502, "upstream_unasked_101")));
}

#[test]
fn a_101_to_another_protocol_is_502() {
    for upgrade in ["Upgrade: h2c", "Upgrade: websocket, h2c", "Upgrade: websocket\r\nUpgrade: websocket", "X: y"] {
        let fields = ["Connection: upgrade", upgrade, ACCEPT];
        assert_eq!(switched(&fields, &asked(&[])), Err((502, "upstream_wrong_upgrade")), "{upgrade}");
    }
}

#[test]
fn a_101_without_connection_upgrade_or_in_http_10_is_502() {
    assert_eq!(switched(&["Upgrade: websocket", ACCEPT], &asked(&[])), Err((502, "upstream_bad_101")));
    assert_eq!(answer("HTTP/1.0 101 X", &[UPGRADE, ACCEPT], Some(&asked(&[]))), Err((502, "upstream_bad_101")));
}

#[test]
fn a_wrong_accept_is_502() {
    let wrong = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=";
    for fields in [&[UPGRADE][..], &[UPGRADE, wrong], &[UPGRADE, ACCEPT, ACCEPT]] {
        assert_eq!(switched(fields, &asked(&[])), Err((502, "upstream_wrong_accept")), "{fields:?}");
    }
}

#[test]
fn a_subprotocol_must_have_been_offered() {
    let offered = asked(&["Sec-WebSocket-Protocol: chat, mqtt", "Sec-WebSocket-Protocol: soap"]);
    for chosen in ["mqtt", "soap"] {
        let chosen = format!("Sec-WebSocket-Protocol: {chosen}");
        assert!(switched(&[UPGRADE, ACCEPT, &chosen], &offered).is_ok());
        assert_eq!(switched(&[UPGRADE, ACCEPT, &chosen], &asked(&[])), Err((502, "upstream_wrong_subprotocol")));
    }
    for chosen in ["MQTT", "chat, mqtt", ""] {
        let chosen = format!("Sec-WebSocket-Protocol: {chosen}");
        assert_eq!(switched(&[UPGRADE, ACCEPT, &chosen], &offered), Err((502, "upstream_wrong_subprotocol")));
    }
}

#[test]
fn extensions_agreed_decide_about_rsv_bits() {
    let offered = asked(&["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-other"]);
    let rsv =
        |extensions: &str| switched(&[UPGRADE, ACCEPT, &format!("Sec-WebSocket-Extensions: {extensions}")], &offered);
    assert_eq!(rsv("Permessage-Deflate;server_no_context_takeover"), Ok(Answer::Switched { rsv: 0x40 }));
    assert_eq!(rsv("x-other"), Ok(Answer::Switched { rsv: 0x70 }));
    assert_eq!(rsv("permessage-deflate, x-other"), Ok(Answer::Switched { rsv: 0x70 }));
    assert_eq!(rsv(""), Ok(Answer::Switched { rsv: 0 }));
    assert_eq!(rsv("x-another"), Err((502, "upstream_wrong_extension")));
}

#[test]
fn anything_but_101_is_plain_http() {
    for status in ["HTTP/1.1 200 OK", "HTTP/1.1 100 Continue", "HTTP/1.0 426 Upgrade Required"] {
        assert_eq!(answer(status, &["A: b"], Some(&asked(&[]))), Ok(Answer::Plain));
        assert_eq!(answer(status, &["A: b"], None), Ok(Answer::Plain));
    }
}

#[test]
fn another_protocol_needs_no_websocket_fields() {
    let head = request("GET / HTTP/1.1", &["Connection: upgrade", "Upgrade: tcp"]);
    let upgrade = judge_request(&head, &Protocols::Any).expect("valid").expect("an upgrade");
    assert_eq!(switched(&["Connection: upgrade", "Upgrade: tcp"], &upgrade), Ok(Answer::Switched { rsv: 0 }));
}

proptest! {
    #[test]
    fn every_16_bytes_are_a_key_and_their_accept_has_28(key: [u8; 16]) {
        let key = STANDARD.encode(key);
        prop_assert!(is_key(key.as_bytes()));
        prop_assert!(STANDARD.decode(accept_of(key.as_bytes())).is_ok_and(|digest| digest.len() == 20));
    }

    #[test]
    fn no_field_values_make_the_judges_panic(values in proptest::collection::vec("[ -~]{0,40}", 6)) {
        let names = ["Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"];
        let fields: Vec<String> = names.iter().zip(&values).map(|(name, value)| format!("{name}: {value}")).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let _ = judge(&fields);
        let _ = switched(&fields, &asked(&[]));
    }
}
