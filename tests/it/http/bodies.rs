//! Bodies in both directions: whole, bounded, cut short, and never the next request.

use std::{
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{before, fixed, with};
use crate::util::{
    Backend, Driver, Proxy, Wire, beyond_nginx, checksum, eventually, on_both_drivers, pattern, ports::Refusing,
};

on_both_drivers![
    request_bodies_arrive_whole,
    response_bodies_arrive_whole,
    uploads_and_downloads_run_at_once,
    a_request_cut_short_does_not_reach_the_backend_as_whole,
];

fn request_bodies_arrive_whole(driver: Driver) {
    let backend = Backend::mirror();
    let proxy = with("client_max_body_size 64m;", &backend, driver);
    for size in [0, 1, 1000, 70_000, 20 << 20] {
        let body = pattern(size, 11);
        let (length, sum) = (size.to_string(), format!("{:x}", checksum(&body)));
        let check = |response: crate::util::Response, how: &str| {
            assert_eq!(response.get("x-body-length"), Some(length.as_str()), "{how}");
            assert_eq!(response.get("x-body-sum"), Some(sum.as_str()), "{how}, {size} bytes");
        };
        let mut client = proxy.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"));
        client.send_in_pieces(&body, 50_021);
        check(client.response(), "by length");
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(30_011) {
            client.send(format!("{:x};ext=\"a\"\r\n", chunk.len())).send(chunk).send("\r\n");
        }
        client.send("0\r\nTrailer: dropped\r\n\r\n");
        check(client.response(), "chunked");
    }
}

fn response_bodies_arrive_whole(driver: Driver) {
    const SIZE: usize = 20 << 20;
    let body = pattern(SIZE, 12);
    let sum = checksum(&body);
    let backend = Backend::serve(move |mut wire, _| {
        while let Some(head) = wire.try_head() {
            let sent = match head.target() {
                "/length" => wire
                    .try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))
                    .and_then(|()| wire.try_send(&body)),
                "/chunked" => {
                    let _ = wire.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    for chunk in body.chunks(40_013) {
                        wire.send(format!("{:X}\r\n", chunk.len())).send(chunk).send("\r\n");
                    }
                    wire.try_send("0\r\n\r\n")
                }
                _ => {
                    wire.send("HTTP/1.1 200 OK\r\n\r\n").send(&body).finish();
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    });
    let proxy = before(&backend, driver);
    let mut client = proxy.connect();
    for target in ["/length", "/chunked", "/length", "/close"] {
        let response = client.get(target);
        assert_eq!((response.body.len(), checksum(&response.body)), (SIZE, sum), "{target}");
    }
}

#[test]
fn a_client_that_expects_100_is_told_to_go_on() {
    // Who says it is the proxy's choice: RFC 9110 section 10.1.1 lets it ask the backend.
    let backend = Backend::serve(|mut wire, _| {
        while let Some(head) = wire.try_head() {
            if head.get("expect").is_some() {
                wire.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            let length = wire.body(&head).len();
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Body-Length: {length}\r\n\r\n"));
        }
    });
    let proxy = before(&backend, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status(), 100, "before the body is sent");
    let response = client.ask("hello");
    assert_eq!((response.status(), response.get("x-body-length")), (200, Some("5")));
}

#[test]
fn an_expectation_refused_gets_its_answer_without_a_100() {
    let backend = Backend::mirror();
    let proxy = with("client_max_body_size 3;", &backend, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status(), 413);
    assert_eq!(backend.connections(), 0);
}

fn uploads_and_downloads_run_at_once(driver: Driver) {
    beyond_nginx!(); // which holds a request's body back, or an answer that comes before its end
    const CHUNKS: usize = 40;
    let backend = Backend::serve(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut up = wire.writer();
        // What comes in chunked goes out chunked, as it stands.
        let mut bytes = [0; 8192];
        loop {
            match wire.read_some(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    up.send(&bytes[..length]);
                    if bytes[..length].ends_with(b"0\r\n\r\n") {
                        drop(wire.ending());
                        return;
                    }
                }
            }
        }
    });
    let proxy = before(&backend, driver);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.send("5\r\nfirst\r\n").head().status(), 200, "the answer begins before the request ends");
    let mut back = Vec::new();
    for round in 0..CHUNKS {
        let chunk = pattern(10_000, round as u64);
        client.send(format!("{:x}\r\n", chunk.len())).send(&chunk).send("\r\n");
        back.extend(chunk);
    }
    client.send("0\r\n\r\n");
    let echoed = client.try_chunks().expect("the whole body");
    assert!(echoed == [b"first".to_vec(), back].concat(), "{} bytes came back", echoed.len());
}

fn a_request_cut_short_does_not_reach_the_backend_as_whole(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = before(&backend, driver);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    drop(client);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello");
    drop(client);
    thread::sleep(Duration::from_millis(300));
    assert!(!backend.received_at_all().ends_with(b"0\r\n\r\n"), "a last chunk that the client never sent");
}

#[test]
fn bodies_over_client_max_body_size_are_413() {
    let backend = Backend::mirror();
    let proxy = with("client_max_body_size 10;", &backend, Driver::Epoll);
    let by_length = proxy.connect().ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world");
    assert_eq!(by_length.status(), 413);
    let chunked =
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n";
    assert_eq!(proxy.connect().ask(chunked).status(), 413);
    let fits = proxy.connect().ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhelloworld");
    assert_eq!(fits.status(), 200);
}

#[test]
fn a_413_is_read_by_a_client_that_is_still_sending() {
    let backend = Backend::mirror();
    let proxy = with("client_max_body_size 1k;", &backend, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 600000\r\n\r\n");
    let mut writer = client.writer();
    let sending = thread::spawn(move || drop(writer.try_send(vec![b'x'; 600_000])));
    assert_eq!(client.response().status(), 413);
    sending.join().expect("the sender");
}

#[test]
fn a_body_that_stops_coming_is_a_408() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = with("client_body_timeout 1s;", &backend, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello");
    assert_eq!(client.response().status(), 408);
    client.expect_gone();
}

#[test]
fn a_slow_reader_gets_all_of_a_large_body() {
    let body = pattern(8 << 20, 20);
    let answer =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes(), body.clone()].concat();
    let backend = fixed(answer);
    let proxy = before(&backend, Driver::Epoll);
    let mut client: Wire = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    thread::sleep(Duration::from_secs(1));
    assert!(client.response().body == body);
}

#[test]
fn a_body_that_was_partly_taken_is_not_promised_to_an_error_page() {
    beyond_nginx!(); // which keeps the body
    let closing = Backend::serve(|mut wire, _| {
        wire.head();
        wire.exactly(1000);
    });
    let sorry = Backend::mirror();
    let proxy = Proxy::config(
        "server { listen %http%; error_page 502 =200 @sorry; location / { proxy_pass http://%closing%; }
           location @sorry { proxy_pass http://%sorry%; proxy_set_header X-Length $content_length; } }",
    )
    .set("closing", closing.address())
    .set("sorry", sorry.address())
    .start();
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 600000\r\n\r\n").send(vec![b'x'; 100_000]);
    let response = client.response();
    let head = response.mirrored();
    assert_eq!((head.get("content-length"), head.get("transfer-encoding")), (None, None), "{}", head.raw);
    assert_eq!(head.get("x-length"), Some("600000"), "what the client said is still known");
    assert_eq!(response.get("connection"), Some("close"), "the rest of the body is no request");
    let _ = client.try_send("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
    client.expect_gone();
}

#[test]
fn an_error_page_by_a_backend_gets_a_body_that_nobody_took() {
    let dead = Refusing::new();
    let sorry = Backend::mirror();
    let proxy = Proxy::config(
        "server { listen %http%; error_page 502 =200 @sorry; location / { proxy_pass http://%dead%; }
           location @sorry { proxy_pass http://%sorry%; } }",
    )
    .set("dead", dead.address())
    .set("sorry", sorry.address())
    .start();
    let mut client = proxy.connect();
    let response = client.ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(response.get("x-body-length"), Some("5"));
    assert_eq!(client.get("/again").status(), 200, "the connection is still in step");
}

/// The backend answers and goes while the proxy does not look; when it does, it finds the upload broken before it has seen the
/// answer. What is left of the body must not become the next request.
#[test]
fn what_is_left_of_a_body_is_never_the_next_request() {
    beyond_nginx!();
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let backend = Backend::serve(move |mut wire, number| {
        wire.head();
        if number == 0 {
            let _ = gone.lock().expect("one user").recv();
        }
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let mut proxy =
        Proxy::config("client_max_body_size 8m; server { listen %http%; location / { proxy_pass http://%backend%; } }")
            .set("backend", backend.address())
            .main("worker_processes 1;")
            .start();
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n");
    backend.wait_received(0, 10);
    proxy.running().signal(Signal::SIGSTOP);
    go.send(()).expect("the backend waits");
    let mut writer = client.writer();
    let sending = thread::spawn(move || {
        let _ = writer.try_send("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20_000));
    });
    thread::sleep(Duration::from_millis(500));
    proxy.running().signal(Signal::SIGCONT);
    let response = client.response();
    assert_eq!((response.status(), response.get("connection")), (200, Some("close")));
    client.expect_gone();
    sending.join().expect("the sender");
    assert_eq!(backend.connections(), 1, "a part of the body was taken for a request");
}

#[test]
fn an_answer_before_the_bodys_end_is_read_by_a_client_that_is_still_sending() {
    let backend = Backend::serve(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
        wire.finish();
        drop(wire.ending());
    });
    let proxy = with("client_max_body_size 0; proxy_request_buffering off;", &backend, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nsome");
    let response = client.response();
    assert_eq!((response.text().as_str(), response.get("connection")), ("early", Some("close")));
    let mut writer = client.writer();
    let sending = thread::spawn(move || drop(writer.try_send(vec![b'x'; 500_000])));
    client.expect_gone();
    sending.join().expect("the sender");
}

#[test]
fn a_413_ends_a_chunked_body_before_the_backend_has_seen_its_end() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = with("client_max_body_size 10;", &backend, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n");
    assert!(eventually(|| backend.received_at_all().ends_with(b"hello \r\n")), "the first chunk goes up at once");
    let response = client.ask("5\r\nworld\r\n0\r\n\r\n");
    assert_eq!((response.status(), response.get("connection")), (413, Some("close")));
    client.expect_gone();
    let received = backend.received_at_all();
    assert!(!received.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&received));
}

#[test]
fn a_backend_may_go_on_saying_100() {
    beyond_nginx!();
    let backend = Backend::serve(|mut wire, _| {
        let head = wire.head();
        wire.send("HTTP/1.1 100 Continue\r\n\r\n");
        wire.body(&head);
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        drop(wire.ending());
    });
    let proxy = before(&backend, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    assert_eq!(client.ask("hello").status(), 200);
    let mut old = proxy.connect();
    old.send("POST / HTTP/1.0\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    assert_eq!(old.head().status(), 200, "a 1.0 client knows no 100");
}

#[test]
fn an_upload_that_breaks_off_ends_the_answer_that_had_begun() {
    beyond_nginx!();
    let backend = Backend::serve(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun");
        drop(wire.ending());
    });
    let proxy = before(&backend, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.exactly(5), b"begun");
    client.send("no size\r\n").patience(Duration::from_secs(5)).expect_gone();
    proxy.logged(&["chunk", "POST / HTTP/1.1"]);
}

#[test]
fn a_body_that_stops_coming_has_no_error_page() {
    beyond_nginx!();
    let page = Backend::named("page");
    let backend = Backend::silent();
    let proxy = Proxy::config(
        "server { listen %http%; error_page 408 = @page; location / { proxy_pass http://%backend%; client_body_timeout 1s; }
           location @page { proxy_pass http://%page%; } }",
    )
    .set("backend", backend.address())
    .set("page", page.address())
    .start();
    let mut client = proxy.connect();
    assert_eq!(client.ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello").status(), 408);
    client.expect_gone();
    assert_eq!(page.connections(), 0, "a connection that is to be closed is not kept waiting for a page");
}
