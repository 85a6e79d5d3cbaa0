//! Which requests may become a tunnel, and how they reach the backend.

use super::{Case, arrives, forwarded, refused, rules};
use crate::util::frames::KEY;

rules![
    an_upgrade_is_a_get_without_a_body,
    an_upgrade_has_one_key_of_16_bytes,
    an_upgrade_has_version_13,
    an_upgrade_has_one_upgrade_line,
    connection_lists_upgrade_in_any_spelling,
    only_the_allowed_token_goes_on,
    an_upgrade_that_is_none_is_plain_http,
];

/// An upgrade request with these lines in place of the usual ones.
pub fn upgrade(lines: &str) -> String {
    format!("GET /ws HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
}

const USUAL: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

fn key() -> String {
    format!("Sec-WebSocket-Key: {KEY}\r\n")
}

fn rest() -> String {
    key() + VERSION
}

/// An upgrade as the backend gets it.
fn tunnel(fields: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nX-Real-IP: 127.0.0.1\r\n{fields}\r\n"
    )
}

/// An upgrade that goes on as a plain request.
fn plain(fields: &str) -> String {
    arrives("GET /ws HTTP/1.1", "", fields)
}

fn an_upgrade_is_a_get_without_a_body() -> Vec<Case> {
    let usual = format!("{USUAL}{}", rest());
    let body = |name: &str, fields: &str, body: &str| {
        refused(name, upgrade(&format!("{usual}{fields}")) + body, 400, "upgrade_with_body")
    };
    vec![
        body("a body by its length", "Content-Length: 5\r\n", "hello"),
        body("a body of no bytes", "Content-Length: 0\r\n", ""),
        body("a chunked body", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        refused("POST", upgrade(&usual).replace("GET", "POST"), 400, "upgrade_method"),
        refused("PUT", upgrade(&usual).replace("GET", "PUT"), 400, "upgrade_method"),
        forwarded("an upgrade as it should be", upgrade(&usual), tunnel(&rest())),
    ]
}

fn an_upgrade_has_one_key_of_16_bytes() -> Vec<Case> {
    let bad = |key: &str| {
        let lines = format!("{USUAL}Sec-WebSocket-Key: {key}\r\n{VERSION}");
        refused(format!("`Sec-WebSocket-Key: {key}`"), upgrade(&lines), 400, "bad_websocket_key")
    };
    let key = key();
    vec![
        refused("no key", upgrade(&format!("{USUAL}{VERSION}")), 400, "bad_websocket_key"),
        refused("two keys", upgrade(&format!("{USUAL}{key}{key}{VERSION}")), 400, "two_websocket_keys"),
        bad(""),
        bad("c2hvcnQ="),
        bad("!!!!!!!!!!!!!!!!!!!!!!=="),
        bad("dGhlIHNhbXBsZSBub25jZQ"),
        bad("dGhlIHNhbXBsZSBub25jZR=="),
        bad("dGhlIHNhbXBsZSBub25jZTE="),
    ]
}

fn an_upgrade_has_version_13() -> Vec<Case> {
    let other =
        |name: &str, lines: &str| refused(name, upgrade(&format!("{USUAL}{}{lines}", key())), 426, "websocket_version");
    vec![
        other("no version", ""),
        other("version 8", "Sec-WebSocket-Version: 8\r\n"),
        other("versions `13, 8`", "Sec-WebSocket-Version: 13, 8\r\n"),
        other("version 13 twice", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n"),
        other("version `013`", "Sec-WebSocket-Version: 013\r\n"),
        other("a broken version (websocket smuggling)", "Sec-WebSocket-Version: 1337\r\n"),
    ]
}

fn an_upgrade_has_one_upgrade_line() -> Vec<Case> {
    let two =
        |name: &str, lines: &str| refused(name, upgrade(&format!("{USUAL}{lines}{}", rest())), 400, "two_upgrades");
    vec![
        two("`Upgrade: websocket` twice", "Upgrade: websocket\r\n"),
        two("another of `h2c`", "Upgrade: h2c\r\n"),
        two("another without value", "Upgrade:\r\n"),
    ]
}

fn connection_lists_upgrade_in_any_spelling() -> Vec<Case> {
    let spelt = |name: &str, lines: &str| forwarded(name, upgrade(&format!("{lines}{}", rest())), tunnel(&rest()));
    vec![
        spelt(
            "`Connection: keep-alive, Upgrade`, as Firefox",
            "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n",
        ),
        spelt("`connection: UPGRADE`, `upgrade: websocket`", "upgrade: websocket\r\nconnection: UPGRADE\r\n"),
        spelt("two Connection lines", "Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"),
        spelt("`Connection: ,upgrade ,`", "Connection: ,upgrade ,\r\nUpgrade: websocket\r\n"),
    ]
}

fn only_the_allowed_token_goes_on() -> Vec<Case> {
    let also = |name: &str, value: &str| {
        let lines = format!("Upgrade: {value}\r\nConnection: Upgrade\r\n{}", rest());
        forwarded(name, upgrade(&lines), tunnel(&rest()))
    };
    vec![
        also("`Upgrade: h2c, websocket`", "h2c, websocket"),
        also("`Upgrade: websocket, h2c`", "websocket, h2c"),
        forwarded(
            "`Connection: Upgrade, HTTP2-Settings`",
            upgrade(&format!(
                "Upgrade: websocket\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMA\r\n{}",
                rest()
            )),
            tunnel(&rest()),
        ),
    ]
}

fn an_upgrade_that_is_none_is_plain_http() -> Vec<Case> {
    let rest = rest();
    vec![
        forwarded(
            "`Upgrade: h2c` (h2c smuggling)",
            upgrade("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMA\r\n"),
            plain(""),
        ),
        forwarded("`Upgrade: TLS/1.0`", upgrade("Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n"), plain("")),
        forwarded(
            "`Upgrade: websocket/13`",
            upgrade(&format!("Upgrade: websocket/13\r\nConnection: Upgrade\r\n{rest}")),
            plain(&rest),
        ),
        forwarded("`Upgrade` and no Connection", upgrade(&format!("Upgrade: websocket\r\n{rest}")), plain(&rest)),
        forwarded(
            "`Connection: keep-alive`",
            upgrade(&format!("Upgrade: websocket\r\nConnection: keep-alive\r\n{rest}")),
            plain(&rest),
        ),
        forwarded(
            "`Connection: upgraded`",
            upgrade(&format!("Upgrade: websocket\r\nConnection: upgraded\r\n{rest}")),
            plain(&rest),
        ),
        forwarded("no Upgrade", upgrade(&format!("Connection: Upgrade\r\n{rest}")), plain(&rest)),
        forwarded("HTTP/1.0", upgrade(&format!("{USUAL}{rest}")).replace("1.1", "1.0"), plain(&rest)),
    ]
}
