//! How a request's body is framed.

use super::{Case, Expected, arrives, case, forwarded, refused, request, rules};

rules![
    content_length_is_one_number,
    transfer_encoding_is_chunked,
    length_and_coding_exclude_each_other,
    there_is_no_coding_in_1_0,
    a_body_goes_on_as_it_was_framed,
    chunks_are_read_by_the_letter,
];

const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";

fn post(fields: &str, body: &str) -> String {
    request("POST / HTTP/1.1", fields) + body
}

fn content_length_is_one_number() -> Vec<Case> {
    let bad = |value: &str| {
        let fields = format!("Content-Length: {value}\r\n");
        refused(format!("`Content-Length: {value}`"), post(&fields, "hello"), 400, "bad_content_length")
    };
    let two = |name: &str, fields: &str| refused(name, post(fields, "hello"), 400, "two_content_lengths");
    vec![
        two("lengths 5 and 6", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        two("length 5 twice", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        two("length 5 and an empty one (CVE-2023-40225)", "Content-Length: 5\r\nContent-Length:\r\n"),
        bad(""),
        bad("5, 5"),
        bad("5, 6"),
        bad("+5"),
        bad("-5"),
        bad("0x5"),
        bad("5 5"),
        bad("5."),
        bad("5;"),
        bad("5e1"),
        bad("\"5\""),
        bad("\u{ff15}"),
        bad("18446744073709551617"),
        bad("18446744073709551616"),
        forwarded(
            "`Content-Length: 0005`",
            post("Content-Length: 0005\r\n", "hello"),
            arrives("POST / HTTP/1.1", "Content-Length: 5\r\n", "") + "hello",
        ),
    ]
}

fn transfer_encoding_is_chunked() -> Vec<Case> {
    let bad = |value: &str, status, reason| {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        refused(format!("`{}`", fields.trim_end()), post(&fields, CHUNKS), status, reason)
    };
    let other = |value: &str| bad(value, 501, "unknown_transfer_coding");
    let twice = |name: &str, fields: &str| refused(name, post(fields, CHUNKS), 400, "two_transfer_encodings");
    vec![
        bad("", 400, "bad_transfer_encoding"),
        bad("chunked, chunked", 400, "bad_transfer_encoding"),
        bad("chunked,", 400, "bad_transfer_encoding"),
        bad(", chunked", 400, "bad_transfer_encoding"),
        refused("chunked behind a VT", post("Transfer-Encoding: \x0bchunked\r\n", CHUNKS), 400, "bad_field_value"),
        twice("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        twice("chunked and identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        twice("chunked and an empty one", "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n"),
        other("gzip"),
        other("gzip, chunked"),
        other("chunked, gzip"),
        other("identity"),
        other("chunked, identity"),
        other("xchunked"),
        other("chunkedx"),
        other("chunked;q=1"),
        other("\"chunked\""),
        other("chunk"),
        other("chun\u{212a}ed"),
        forwarded(
            "`Transfer-Encoding: CHUNKED`",
            post("Transfer-Encoding: CHUNKED\r\n", CHUNKS),
            arrives("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n", "") + "hello",
        ),
    ]
}

fn length_and_coding_exclude_each_other() -> Vec<Case> {
    let both = |name: &str, fields: &str| refused(name, post(fields, CHUNKS), 400, "length_and_transfer_encoding");
    vec![
        both("length before chunked", "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n"),
        both("chunked before length", "Transfer-Encoding: chunked\r\nContent-Length: 15\r\n"),
        both("length 0 and chunked", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        both("length and `gzip, chunked`", "Content-Length: 15\r\nTransfer-Encoding: gzip, chunked\r\n"),
        both("length and `xchunked`", "Content-Length: 15\r\nTransfer-Encoding: xchunked\r\n"),
        both("length and an empty coding", "Content-Length: 15\r\nTransfer-Encoding:\r\n"),
    ]
}

fn there_is_no_coding_in_1_0() -> Vec<Case> {
    let old = |fields: &str| request("POST / HTTP/1.0", fields) + CHUNKS;
    let reason = "transfer_encoding_in_http_10";
    vec![
        refused("chunked", old("Transfer-Encoding: chunked\r\n"), 400, reason),
        refused("chunked and keep-alive", old("Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n"), 400, reason),
        refused("length and chunked", old("Content-Length: 15\r\nTransfer-Encoding: chunked\r\n"), 400, reason),
    ]
}

fn a_body_goes_on_as_it_was_framed() -> Vec<Case> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    vec![
        forwarded(
            "five bytes of a GET",
            request("GET / HTTP/1.1", "Content-Length: 5\r\n") + "hello",
            arrives("GET / HTTP/1.1", "Content-Length: 5\r\n", "") + "hello",
        ),
        forwarded(
            "a request as the body",
            post("Content-Length: 28\r\n", "GET /a HTTP/1.1\r\nHost: y\r\n\r\n"),
            arrives("POST / HTTP/1.1", "Content-Length: 28\r\n", "") + "GET /a HTTP/1.1\r\nHost: y\r\n\r\n",
        ),
        forwarded(
            "chunks, extensions and a trailer",
            post(chunked, "5;a=\"b\"\r\nhello\r\n0\r\nX-Real-IP: 6.6.6.6\r\n\r\n"),
            arrives("POST / HTTP/1.1", chunked, "") + "hello",
        ),
        forwarded("no body", post("", ""), arrives("POST / HTTP/1.1", "", "")),
    ]
}

fn chunks_are_read_by_the_letter() -> Vec<Case> {
    let bad = |name: &str, body: &str| {
        let sent = post("Transfer-Encoding: chunked\r\n", body);
        case(name, sent, Expected::Unfinished { status: 400, reason: "malformed_chunk" })
    };
    vec![
        bad("no size", "\r\nhello\r\n0\r\n\r\n"),
        bad("`0x5`", "0x5\r\nhello\r\n0\r\n\r\n"),
        bad("`+5`", "+5\r\nhello\r\n0\r\n\r\n"),
        bad("`-5`", "-5\r\nhello\r\n0\r\n\r\n"),
        bad("`5 5`", "5 5\r\nhello\r\n0\r\n\r\n"),
        bad("` 5`", " 5\r\nhello\r\n0\r\n\r\n"),
        bad("a size over 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad("a bare LF behind the size", "5\nhello\r\n0\r\n\r\n"),
        bad("a bare CR behind the size", "5\rhello\r\n0\r\n\r\n"),
        bad("a bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n"),
        bad("a bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        bad("NUL in an extension", "5;\0\r\nhello\r\n0\r\n\r\n"),
        bad("a bare LF behind the data", "5\r\nhello\n0\r\n\r\n"),
        bad("two bytes too many", "5\r\nhelloXX\r\n0\r\n\r\n"),
        bad("a request as the trailer", "0\r\nGET / HTTP/1.1\r\nHost: y\r\n\r\n"),
        bad("a folded trailer", "0\r\nX: 1\r\n 2\r\n\r\n"),
        bad("a chunk line of 5,000 bytes", &format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5000))),
    ]
}
