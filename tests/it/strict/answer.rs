//! What a backend may answer: the care of a request head, and no tunnel that nobody asked for.

use super::{Case, Expected, Lie, case, get, rules};
use crate::util::frames::{self, ACCEPT};

rules![
    an_answer_begins_with_a_status_line,
    the_head_of_an_answer_is_bounded,
    the_fields_of_an_answer_are_fields,
    an_answer_is_framed_in_one_way,
    an_answer_that_breaks_off_is_none,
    chunks_of_an_answer_are_read_by_the_letter,
    what_is_behind_an_answer_goes_nowhere,
    hop_by_hop_fields_of_an_answer_end_here,
    interim_answers_pass_and_are_counted,
    nobody_is_switched_who_did_not_ask,
    a_tunnel_needs_a_101_in_every_detail,
    anything_but_101_is_plain_http,
];

/// A backend that answers like this, and stays.
fn answer(name: impl Into<String>, sent: String, answer: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case { lie: Some(Lie { answer: answer.into(), closes: false }), ..case(name, sent, expected) }
}

/// The same, and closes.
fn closing(case: Case) -> Case {
    Case { lie: case.lie.map(|lie| Lie { closes: true, ..lie }), ..case }
}

fn ask() -> String {
    get("").replace("GET /", "GET /kept")
}

/// An answer to a plain request that the client must not see.
fn bad(name: impl Into<String>, text: impl Into<Vec<u8>>, reason: &'static str) -> Case {
    answer(name, ask(), text, Expected::Refused { status: 502, reason })
}

/// An answer with these field lines.
fn with(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n")
}

/// An answer of which the client gets `received`; what the backend sent behind it must stay where it is.
fn passes(name: &str, text: &str, received: &str) -> Case {
    answer(name, ask(), text, Expected::Passed { received: received.into(), kept: false })
}

/// The head of an answer as the client gets it.
fn head(status: &str, fields: &str) -> String {
    format!("HTTP/1.1 {status}\r\nDate: D\r\n{fields}Connection: keep-alive\r\n\r\n")
}

fn an_answer_begins_with_a_status_line() -> Vec<Case> {
    let bad = |name: &str, line: &str| bad(name, format!("{line}\r\nContent-Length: 0\r\n\r\n"), "upstream_not_http");
    vec![
        bad("`hello`", "hello"),
        bad("`HTTP/2.0 200 OK`", "HTTP/2.0 200 OK"),
        bad("`HTTP/1.1 20 OK`", "HTTP/1.1 20 OK"),
        bad("`HTTP/1.1 2000 OK`", "HTTP/1.1 2000 OK"),
        bad("`HTTP/1.1 099 OK`", "HTTP/1.1 099 OK"),
        bad("`HTTP/1.1 +20 OK`", "HTTP/1.1 +20 OK"),
        bad("`HTTP/1.1  200 OK`", "HTTP/1.1  200 OK"),
        bad("`HTTP/1.1 200` and a NUL", "HTTP/1.1 200 O\0K"),
        bad("`HTTP/1.1 200` and a bare CR", "HTTP/1.1 200 O\rK"),
        bad("an empty line first", "\r\nHTTP/1.1 200 OK"),
        bad("a body without a head, as in HTTP/0.9", "<html>"),
    ]
}

fn the_head_of_an_answer_is_bounded() -> Vec<Case> {
    let fields: String = (0..250).map(|number| format!("X-{number}: 1\r\n")).collect();
    vec![
        bad(
            "a field without an end",
            format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(40_000)),
            "upstream_head_too_large",
        ),
        bad("a status line without an end", format!("HTTP/1.1 200 {}", "a".repeat(40_000)), "upstream_head_too_large"),
        bad("250 fields", with(&fields), "upstream_too_many_fields"),
    ]
}

fn the_fields_of_an_answer_are_fields() -> Vec<Case> {
    let bad = |name: &str, field: &str, reason| bad(name, with(&format!("{field}\r\nContent-Length: 0\r\n")), reason);
    vec![
        bad("a folded line", "X: 1\r\n 2", "obs_fold"),
        bad("a control byte", "X: a\x01b", "bad_field_value"),
        bad("NUL", "X: a\0b", "nul_in_field"),
        bad("a bare CR", "X: a\rSet-Cookie: b", "bare_cr"),
        bad("a space before the colon", "Content-Length : 5", "bad_field_name"),
        bad("an empty name", ": 1", "bad_field_name"),
        bad("no colon", "nothing", "bad_field_name"),
    ]
}

fn an_answer_is_framed_in_one_way() -> Vec<Case> {
    let bad = |name: &str, fields: &str, reason| bad(name, with(fields) + "5\r\nhello\r\n0\r\n\r\n", reason);
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    vec![
        bad("length and chunked", both, "length_and_transfer_encoding"),
        bad("two lengths that differ", "Content-Length: 1\r\nContent-Length: 2\r\n", "two_content_lengths"),
        bad("the same length twice", "Content-Length: 5\r\nContent-Length: 5\r\n", "two_content_lengths"),
        bad("`Content-Length: 5, 5`", "Content-Length: 5, 5\r\n", "bad_content_length"),
        bad("`Content-Length: -1`", "Content-Length: -1\r\n", "bad_content_length"),
        bad("`Content-Length: 0x5`", "Content-Length: 0x5\r\n", "bad_content_length"),
        bad("a length over 64 bits", "Content-Length: 18446744073709551621\r\n", "bad_content_length"),
        bad("`gzip, chunked`", "Transfer-Encoding: gzip, chunked\r\n", "unknown_transfer_coding"),
        bad("`chunked, identity`", "Transfer-Encoding: chunked, identity\r\n", "unknown_transfer_coding"),
        bad("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "two_transfer_encodings"),
        answer(
            "chunked in HTTP/1.0",
            ask(),
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            Expected::Refused { status: 502, reason: "transfer_encoding_in_http_10" },
        ),
        answer(
            "a 100 with length and chunked",
            ask(),
            format!("HTTP/1.1 100 Continue\r\n{both}\r\n{}", with("Content-Length: 0\r\n")),
            Expected::Refused { status: 502, reason: "length_and_transfer_encoding" },
        ),
    ]
}

fn an_answer_that_breaks_off_is_none() -> Vec<Case> {
    let cut = |name: &str, text: &str, received: String| {
        closing(answer(name, ask(), text, Expected::Cut { received, reason: "upstream_closed_early" }))
    };
    let chunked = head("200 OK", "Transfer-Encoding: chunked\r\n");
    vec![
        closing(bad("nothing", "", "upstream_closed_early")),
        closing(bad("half a head", "HTTP/1.1 200 OK\r\nContent-", "upstream_closed_early")),
        closing(bad(
            "a head without its empty line",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
            "upstream_closed_early",
        )),
        cut(
            "3 of 5 bytes",
            &(with("Date: D\r\nContent-Length: 5\r\n") + "hel"),
            head("200 OK", "Content-Length: 5\r\n") + "hel",
        ),
        // One byte: nothing that a cut could make two chunks of.
        cut(
            "chunks without the last",
            &(with("Date: D\r\nTransfer-Encoding: chunked\r\n") + "1\r\nh\r\n"),
            chunked + "1\r\nh\r\n",
        ),
    ]
}

fn chunks_of_an_answer_are_read_by_the_letter() -> Vec<Case> {
    let bad = |name: &str, chunks: &str| {
        let received = head("200 OK", "Transfer-Encoding: chunked\r\n");
        let text = with("Date: D\r\nTransfer-Encoding: chunked\r\n") + chunks;
        answer(name, ask(), text, Expected::Cut { received, reason: "upstream_malformed_chunk" })
    };
    vec![
        bad("no size", "hello\r\n0\r\n\r\n"),
        bad("`0x5`", "0x5\r\nhello\r\n0\r\n\r\n"),
        bad("a bare LF behind the size", "5\nhello\r\n0\r\n\r\n"),
        bad("a size over 64 bits", "10000000000000005\r\nhello\r\n"),
        bad("a bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        bad("an answer as the trailer", "0\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]
}

fn what_is_behind_an_answer_goes_nowhere() -> Vec<Case> {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let length = "Date: D\r\nContent-Length: 5\r\n";
    let to_head = |case: Case| Case { sent: ask().replace("GET", "HEAD").into(), ..case };
    vec![
        passes(
            "an answer behind its length",
            &(with(length) + "hello" + EVIL),
            &(head("200 OK", "Content-Length: 5\r\n") + "hello"),
        ),
        passes(
            "an answer behind the last chunk",
            &(with("Date: D\r\nTransfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n" + EVIL),
            &(head("200 OK", "Transfer-Encoding: chunked\r\n") + "hello"),
        ),
        passes(
            "a body behind a 204",
            &format!("HTTP/1.1 204 No Content\r\n{length}\r\nhello"),
            &head("204 No Content", ""),
        ),
        passes(
            "an answer behind a 204",
            &format!("HTTP/1.1 204 No Content\r\nDate: D\r\n\r\n{EVIL}"),
            &head("204 No Content", ""),
        ),
        passes(
            "chunks behind a 204",
            "HTTP/1.1 204 No Content\r\nDate: D\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            &head("204 No Content", ""),
        ),
        passes(
            "a body behind a 304",
            &format!("HTTP/1.1 304 Not Modified\r\n{length}\r\nhello"),
            &head("304 Not Modified", "Content-Length: 5\r\n"),
        ),
        to_head(passes(
            "a body behind the answer to HEAD",
            &(with(length) + "hello"),
            &head("200 OK", "Content-Length: 5\r\n"),
        )),
    ]
}

fn hop_by_hop_fields_of_an_answer_end_here() -> Vec<Case> {
    let plain = head("200 OK", "Content-Length: 5\r\n") + "hello";
    let end = |name: &str, fields: &str| {
        let text = with(&format!("Date: D\r\n{fields}Content-Length: 5\r\n")) + "hello";
        answer(name, ask(), text, Expected::Passed { received: plain.clone(), kept: true })
    };
    vec![
        end("`Connection: X-Hop`", "Connection: X-Hop\r\nX-Hop: 1\r\n"),
        end("`Connection: Upgrade`, `Upgrade: h2c`", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        end("`Keep-Alive` and `Proxy-Connection`", "Keep-Alive: timeout=9\r\nProxy-Connection: close\r\n"),
        answer(
            "bare LF for every line's end",
            ask(),
            "HTTP/1.1 200 OK\nDate: D\nContent-Length: 5\n\nhello",
            Expected::Passed { received: plain.clone(), kept: true },
        ),
    ]
}

fn interim_answers_pass_and_are_counted() -> Vec<Case> {
    let end = with("Date: D\r\nContent-Length: 2\r\n") + "ok";
    let ended = head("200 OK", "Content-Length: 2\r\n") + "ok";
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let pass = |name: &str, interim: &str| {
        let expected = Expected::Passed { received: interim.to_owned() + &ended, kept: true };
        answer(name, ask(), interim.to_owned() + &end, expected)
    };
    let flood = Expected::Refused { status: 502, reason: "upstream_interim" };
    vec![
        pass("a 103", early),
        pass("a 100 and two 103s", &format!("HTTP/1.1 100 Continue\r\n\r\n{early}{early}")),
        answer("17 times 100", ask(), "HTTP/1.1 100 Continue\r\n\r\n".repeat(17), flood),
    ]
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\n";

fn nobody_is_switched_who_did_not_ask() -> Vec<Case> {
    let unasked = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let text = format!(
        "{SWITCH}{unasked}Sec-WebSocket-Accept: {ACCEPT}\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"
    );
    vec![
        bad("101 to a GET", text, "upstream_unasked_101"),
        bad("101 without any field", format!("{SWITCH}\r\n"), "upstream_unasked_101"),
    ]
}

fn a_tunnel_needs_a_101_in_every_detail() -> Vec<Case> {
    let accept = format!("Sec-WebSocket-Accept: {ACCEPT}\r\n");
    let usual = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let bad = |name: &str, fields: &str, reason| {
        let expected = Expected::Refused { status: 502, reason };
        answer(name, frames::request("/ws", "x"), format!("{SWITCH}{fields}\r\nsmuggled"), expected)
    };
    vec![
        bad(
            "a wrong Accept",
            &format!("{usual}Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"),
            "upstream_wrong_accept",
        ),
        bad("no Accept", usual, "upstream_wrong_accept"),
        bad("two Accepts", &format!("{usual}{accept}{accept}"), "upstream_wrong_accept"),
        bad("Accept in capitals", &format!("{usual}{}", accept.to_ascii_uppercase()), "upstream_wrong_accept"),
        bad("no Upgrade", &format!("Connection: Upgrade\r\n{accept}"), "upstream_wrong_upgrade"),
        bad("two Upgrades", &format!("{usual}Upgrade: websocket\r\n{accept}"), "upstream_wrong_upgrade"),
        bad("`Upgrade: h2c`", &format!("Upgrade: h2c\r\nConnection: Upgrade\r\n{accept}"), "upstream_wrong_upgrade"),
        bad(
            "`Upgrade: websocket, h2c`",
            &format!("Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n{accept}"),
            "upstream_wrong_upgrade",
        ),
        bad("no Connection", &format!("Upgrade: websocket\r\n{accept}"), "upstream_bad_101"),
        bad("`Connection: close`", &format!("Upgrade: websocket\r\nConnection: close\r\n{accept}"), "upstream_bad_101"),
        bad(
            "a subprotocol nobody offered",
            &format!("{usual}{accept}Sec-WebSocket-Protocol: chat\r\n"),
            "upstream_wrong_subprotocol",
        ),
        bad(
            "an extension nobody offered",
            &format!("{usual}{accept}Sec-WebSocket-Extensions: permessage-deflate\r\n"),
            "upstream_wrong_extension",
        ),
        bad(
            "a length and chunked",
            &format!("{usual}{accept}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            "length_and_transfer_encoding",
        ),
        bad("a folded Accept", &format!("{usual}Sec-WebSocket-Accept:\r\n {ACCEPT}\r\n"), "obs_fold"),
        answer(
            "101 in HTTP/1.0",
            frames::request("/ws", "x"),
            format!("HTTP/1.0 101 Switching Protocols\r\n{usual}{accept}\r\n"),
            Expected::Refused { status: 502, reason: "upstream_bad_101" },
        ),
    ]
}

fn anything_but_101_is_plain_http() -> Vec<Case> {
    let declined = |name: &str, text: &str, received: String| {
        let received = received.replace("keep-alive", "close");
        answer(name, frames::request("/ws", "x"), text, Expected::Passed { received, kept: true })
    };
    let length = "Date: D\r\nContent-Length: 5\r\n";
    vec![
        declined(
            "200 and bytes behind it",
            &(with(length) + "hello\x01\x05hello"),
            head("200 OK", "Content-Length: 5\r\n") + "hello",
        ),
        declined(
            "426",
            &format!("HTTP/1.1 426 Upgrade Required\r\n{length}Sec-WebSocket-Version: 13\r\n\r\nhello"),
            head("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\nContent-Length: 5\r\n") + "hello",
        ),
        declined("204", "HTTP/1.1 204 No Content\r\nDate: D\r\n\r\n", head("204 No Content", "")),
    ]
}
