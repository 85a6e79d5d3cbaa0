//! Connections to backends that are kept for other requests: `keepalive` in `upstream`.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::util::{Backend, Driver, PATIENCE, Proxy, Wire, beyond_nginx, eventually, frames, on_both_drivers, tls};

on_both_drivers![
    a_connection_is_used_again,
    responses_without_a_body_leave_it_fit_for_another,
    a_websocket_takes_a_kept_one_and_keeps_it,
    everybody_gets_their_own_answer,
];

/// A proxy before one server whose connections are kept, as `upstream` and `location` say. One worker: each has a pool of its own.
fn pooled(backend: &Backend, upstream: &str, location: &str, driver: Driver) -> Proxy {
    Proxy::config(&format!(
        "upstream app {{ server %backend%; {upstream} }}
         server {{ listen %http%; location / {{ proxy_pass http://app; proxy_http_version 1.1; {location} }} }}"
    ))
    .main("worker_processes 1;")
    .set("backend", backend.address())
    .on(driver)
    .start()
}

const CLEARED: &str = "proxy_set_header Connection \"\";";

/// A backend that answers the request with this number on a connection (from 0), or closes where there is no answer.
fn scripted(answer: impl Fn(usize, &str) -> Option<String> + Send + Sync + 'static) -> Backend {
    Backend::serve(move |mut wire, _| {
        for number in 0.. {
            let Some(head) = wire.try_head() else { return };
            wire.body(&head);
            let Some(answer) = answer(number, head.target()) else { return };
            if wire.try_send(answer).is_err() {
                return;
            }
        }
    })
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn a_connection_is_used_again(driver: Driver) {
    let backend = Backend::mirror();
    let proxy = pooled(&backend, "keepalive 4;", CLEARED, driver);
    for number in 0..20 {
        let head = proxy.get(&format!("/{number}")).mirrored();
        assert_eq!((head.target(), head.get("connection")), (format!("/{number}").as_str(), None));
        let posted = proxy.connect().ask("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(posted.get("x-body-length"), Some("5"));
        let chunked = proxy.connect().ask(
            "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        );
        assert_eq!(chunked.get("x-body-length"), Some("5"));
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn nothing_is_kept_unless_it_is_asked_for() {
    let backend = Backend::mirror();
    for upstream in ["", "keepalive_timeout 60s; keepalive_requests 100;"] {
        let proxy = pooled(&backend, upstream, "", Driver::Epoll);
        let before = backend.connections();
        for _ in 0..3 {
            assert_eq!(proxy.get("/").mirrored().get("connection"), Some("close"));
        }
        assert_eq!(backend.connections() - before, 3);
    }
}

#[test]
fn a_file_that_says_close_gets_it() {
    let backend = Backend::mirror();
    for location in ["proxy_set_header Connection close;", "proxy_http_version 1.0;"] {
        let proxy = Proxy::config(&format!(
            "upstream app {{ server %backend%; keepalive 4; }} server {{ listen %http%; location / {{ proxy_pass http://app; {location} }} }}"
        ));
        let proxy = proxy.main("worker_processes 1;").set("backend", backend.address()).start();
        let before = backend.connections();
        for _ in 0..3 {
            assert_eq!(proxy.get("/").mirrored().get("connection"), Some("close"), "{location}");
        }
        assert_eq!(backend.connections() - before, 3, "{location}");
    }
}

fn responses_without_a_body_leave_it_fit_for_another(driver: Driver) {
    let backend = Backend::serve(|mut wire, _| {
        while let Some(head) = wire.try_head() {
            let answer: &str = match head.target() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n",
                "/100" => "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                "/trailers" => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"
                }
                _ if head.method() == "HEAD" => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            if wire.try_send(answer).is_err() {
                return;
            }
        }
    });
    let proxy = pooled(&backend, "keepalive 4;", CLEARED, driver);
    for _ in 0..3 {
        assert_eq!(proxy.get("/204").status(), 204);
        assert_eq!(proxy.get("/304").status(), 304);
        let mut client = proxy.connect();
        client.send("HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response_to_head().get("content-length"), Some("1000"));
        assert_eq!(proxy.get("/100").text(), "ok");
        assert_eq!(proxy.get("/trailers").text(), "ok");
        assert_eq!(proxy.get("/").text(), "ok");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn one_that_the_backend_will_close_is_not_used_again() {
    // Each answers as it should; none may be followed by a second request.
    let cases: [(&str, &str, usize); 6] = [
        ("Connection: close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 3),
        ("1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 3),
        ("until close", "HTTP/1.1 200 OK\r\n\r\nok", 3),
        ("a byte too many", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", 3),
        (
            "a second answer",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            3,
        ),
        ("1.0 that is kept", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", 1),
    ];
    for (name, answer, connections) in cases {
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&requests);
        let backend = Backend::serve(move |mut wire, _| {
            while wire.try_head().is_some() {
                seen.fetch_add(1, Ordering::Relaxed);
                if wire.try_send(answer).is_err() || name == "until close" {
                    return;
                }
            }
        });
        let proxy = pooled(&backend, "keepalive 4;", CLEARED, Driver::Epoll);
        for _ in 0..3 {
            assert_eq!(proxy.get("/").text(), "ok", "{name}");
        }
        assert_eq!((requests.load(Ordering::Relaxed), backend.connections()), (3, connections), "{name}");
    }
}

#[test]
fn what_comes_late_is_nobodys_answer() {
    // A second answer that comes once the connection waits for its next request.
    let (late, said) = mpsc::channel::<()>();
    let said = std::sync::Mutex::new(said);
    let backend = Backend::serve(move |mut wire, number| {
        while let Some(head) = wire.try_head() {
            let _ = wire.try_send(ok(head.target()));
            if number == 0 {
                let _ = said.lock().unwrap().recv_timeout(PATIENCE);
                let _ = wire.try_send(ok("evil"));
            }
        }
    });
    let proxy = pooled(&backend, "keepalive 4;", CLEARED, Driver::Epoll);
    assert_eq!(proxy.get("/first").text(), "/first");
    late.send(()).expect("the backend waits");
    // Its bytes have come before the next request leaves, or the test shows nothing.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(proxy.get("/second").text(), "/second");
    assert_eq!(proxy.get("/third").text(), "/third");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn an_early_answer_leaves_a_connection_unfit() {
    let backend = Backend::serve(|mut wire, _| {
        while let Some(head) = wire.try_head() {
            // Answered before its body has come.
            let _ = wire.try_send(ok(head.target()));
            if head.method() == "POST" {
                let _ = wire.ending();
                return;
            }
        }
    });
    let proxy = pooled(&backend, "keepalive 4;", CLEARED, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nbegun");
    assert_eq!(client.response().text(), "/upload");
    assert_eq!(proxy.get("/next").text(), "/next");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn one_that_somebody_logged_in_on_is_nobody_elses() {
    let backend = Backend::mirror();
    let proxy = pooled(&backend, "keepalive 4;", CLEARED, Driver::Epoll);
    for scheme in ["NTLM TlRM", "Negotiate YII"] {
        let before = backend.connections();
        let ask = format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {scheme}\r\n\r\n");
        assert_eq!(proxy.connect().ask(ask).mirrored().get("connection"), Some("close"));
        proxy.get("/");
        assert_eq!(backend.connections() - before, 2, "{scheme}");
        // It may take one that waits, and does not give it back.
        proxy.connect().ask("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: NTLM x\r\n\r\n");
    }
    let basic = "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\n\r\n";
    proxy.connect().ask(basic);
    let before = backend.connections();
    proxy.connect().ask(basic);
    assert_eq!(backend.connections(), before);
}

/// A backend that counts the connections that were closed on it.
fn counting() -> (Backend, Arc<AtomicUsize>) {
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    let backend = Backend::serve(move |mut wire, _| {
        wire.patience(Duration::from_secs(60));
        while let Some(head) = wire.try_head() {
            thread::sleep(Duration::from_millis(if head.target() == "/slow" { 500 } else { 0 }));
            if wire.try_send(ok(head.target())).is_err() {
                break;
            }
        }
        count.fetch_add(1, Ordering::Relaxed);
    });
    (backend, closed)
}

#[test]
fn so_many_wait_and_no_more() {
    let (backend, closed) = counting();
    let proxy = pooled(&backend, "keepalive 2;", CLEARED, Driver::Epoll);
    let clients: Vec<Wire> = (0..5)
        .map(|_| {
            let mut client = proxy.connect();
            client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
            client
        })
        .collect();
    for mut client in clients {
        assert_eq!(client.response().text(), "/slow");
    }
    assert!(eventually(|| closed.load(Ordering::Relaxed) == 3), "{}", closed.load(Ordering::Relaxed));
    assert_eq!(backend.connections(), 5);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(closed.load(Ordering::Relaxed), 3, "two wait");
    proxy.get("/");
    assert_eq!(backend.connections(), 5, "and one is used");
}

#[test]
fn those_that_wait_give_way_to_clients() {
    beyond_nginx!();
    let (backend, closed) = counting();
    let text = "upstream app { server %backend%; keepalive 4; } server { listen %http%; location / { proxy_pass http://app; } }";
    let main = "worker_processes 1; events { worker_connections 12; }";
    let proxy = Proxy::config(text).main(main).set("backend", backend.address()).start();
    let ask = |target: &str| -> Vec<Wire> {
        let open = |_| {
            let mut client = proxy.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
            client
        };
        (0..4).map(open).collect()
    };
    ask("/slow").into_iter().for_each(|mut client| assert_eq!(client.response().status(), 200));
    thread::sleep(Duration::from_millis(200));
    assert_eq!(closed.load(Ordering::Relaxed), 0, "four wait");
    // Five clients and the four make more than twelve.
    let clients: Vec<Wire> = (0..5).map(|_| proxy.connect()).collect();
    assert!(eventually(|| closed.load(Ordering::Relaxed) == 4), "{}", closed.load(Ordering::Relaxed));
    for mut client in clients {
        assert_eq!(client.get("/").status(), 200);
    }
}

#[test]
fn one_waits_so_long_and_carries_so_many() {
    let (backend, closed) = counting();
    let proxy = pooled(&backend, "keepalive 2; keepalive_timeout 1s; keepalive_requests 3;", CLEARED, Driver::Epoll);
    for _ in 0..6 {
        proxy.get("/");
    }
    assert_eq!(backend.connections(), 2, "three requests each");
    assert!(eventually(|| closed.load(Ordering::Relaxed) == 2));
    let start = Instant::now();
    proxy.get("/");
    assert!(eventually(|| closed.load(Ordering::Relaxed) == 3));
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
}

#[test]
fn one_that_the_backend_closed_as_it_waited_is_not_used() {
    let backend = scripted(|number, target| (number == 0).then(|| ok(target)));
    // It closes at the next head it reads: never, since its answer is followed by its end.
    let closing = Backend::serve(|mut wire, _| {
        if let Some(head) = wire.try_head() {
            let _ = wire.try_send(ok(head.target()));
        }
    });
    drop(backend);
    let proxy = pooled(&closing, "keepalive 4;", CLEARED, Driver::Epoll);
    for number in 0..10 {
        let post = format!("POST /{number} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
        let response = proxy.connect().ask(post);
        assert_eq!((response.status(), response.text()), (200, format!("/{number}")), "not even a POST is lost");
        thread::sleep(Duration::from_millis(30));
    }
    let descriptors = proxy.descriptors();
    assert!(eventually(|| proxy.descriptors() <= descriptors), "and its descriptor is given back");
}

#[test]
fn a_request_is_asked_again_where_its_connection_had_ended() {
    beyond_nginx!();
    let text = "log_format tries '$request_method $status $upstream_addr $upstream_status';
        upstream app { server %backend%; keepalive 4; }
        server { listen %http%; access_log %dir%/tries.log tries;
          location / { proxy_pass http://app; }
          location /again { proxy_pass http://app; proxy_next_upstream error non_idempotent; }
          location /off { proxy_pass http://app; proxy_next_upstream off; } }";
    // Good for one request; the second one is read, and answered with FIN.
    let backend = scripted(|number, target| (number == 0).then(|| ok(target)));
    let proxy = Proxy::config(text).main("worker_processes 1;").set("backend", backend.address()).start();
    let asked = |method: &str, target: &str| {
        let body = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        proxy.connect().ask(format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{body}\r\n")).status()
    };
    assert_eq!(asked("GET", "/1"), 200);
    assert_eq!((asked("GET", "/2"), backend.connections()), (200, 2), "the first had ended");
    assert_eq!((asked("DELETE", "/off"), backend.connections()), (200, 3), "no other server is needed for that");
    assert_eq!((asked("POST", "/3"), backend.connections()), (502, 3), "it may have been acted upon");
    assert_eq!((asked("GET", "/4"), backend.connections()), (200, 4));
    assert_eq!((asked("POST", "/again"), backend.connections()), (200, 5), "the file says so");
    let mut client = proxy.connect();
    client.send("PUT /5 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response().status(), 502, "its body is gone");
    let (address, line) = (backend.address(), proxy.written("tries.log", &["DELETE"]));
    assert_eq!(line, format!("DELETE 200 {address}, {address} 502, 200"));
    assert!(!proxy.log().contains("temporarily disabled"));
}

fn a_websocket_takes_a_kept_one_and_keeps_it(driver: Driver) {
    let backend = Backend::echo();
    let proxy = pooled(
        &backend,
        "keepalive 4;",
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;",
        driver,
    );
    assert_eq!(proxy.get("/").status(), 200);
    let mut tunnel = proxy.tunnel("/ws");
    tunnel.echoes("by a connection that was there");
    assert_eq!(backend.connections(), 1);
    assert_eq!(proxy.get("/").status(), 200);
    assert_eq!(backend.connections(), 2, "that one is taken");
    tunnel.echoes("still");
    tunnel.send(frames::client(frames::CLOSE, [3, 232]));
    let _ = tunnel.ending();
    assert_eq!(proxy.get("/").status(), 200);
    assert_eq!(backend.connections(), 2, "and not given back");
}

fn everybody_gets_their_own_answer(driver: Driver) {
    let backend = Backend::http(|head, body| {
        let answer = format!("{} {}", head.target(), String::from_utf8_lossy(body));
        if answer.len() % 3 == 0 {
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{answer}\r\n0\r\n\r\n", answer.len())
                .into()
        } else {
            ok(&answer).into()
        }
    });
    let proxy = Arc::new(pooled(&backend, "keepalive 3;", CLEARED, driver));
    let clients: Vec<_> = (0..12)
        .map(|client| {
            let proxy = Arc::clone(&proxy);
            thread::spawn(move || {
                let mut wire = proxy.connect();
                for number in 0..60 {
                    let body = "b".repeat(number * 7 % 50);
                    let response = wire.ask(format!(
                        "POST /{client}/{number} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    ));
                    assert_eq!(response.text(), format!("/{client}/{number} {body}"));
                    if number % 20 == 19 {
                        wire = proxy.connect();
                    }
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("their own answers"));
    assert!(backend.connections() < 400, "{} for 720 requests", backend.connections());
}

#[test]
fn names_of_tls_backends_are_kept_apart() {
    let server = Arc::new(tls::Server::new(&["a.example", "b.example"]));
    let names = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&names);
    let backend = Backend::serve(move |wire, _| {
        let socket: TcpStream = wire.tcp().try_clone().expect("a second handle");
        let Ok((mut wire, name)) = server.accept(socket) else { return };
        seen.lock().unwrap().push(name.unwrap_or_default());
        while let Some(head) = wire.try_head() {
            if wire.try_send(ok(head.target())).is_err() {
                return;
            }
        }
    });
    let text = "upstream app { server %backend%; keepalive 4; }
        server { listen %http%; proxy_ssl_server_name on;
          location /a { proxy_pass https://app; proxy_ssl_name a.example; }
          location /b { proxy_pass https://app; proxy_ssl_name b.example; } }";
    let proxy = Proxy::config(text).main("worker_processes 1;").set("backend", backend.address()).start();
    for _ in 0..5 {
        assert_eq!(proxy.get("/a").text(), "/a");
        assert_eq!(proxy.get("/b").text(), "/b");
    }
    assert_eq!(*names.lock().unwrap(), ["a.example", "b.example"]);
}

#[test]
fn those_that_wait_do_not_hold_up_the_end() {
    let (backend, closed) = counting();
    let mut proxy = pooled(&backend, "keepalive 2;", CLEARED, Driver::Epoll);
    let mut tunnel = proxy.connect();
    assert_eq!(tunnel.get("/slow").text(), "/slow");
    let start = Instant::now();
    proxy.running().signal(Signal::SIGQUIT);
    assert!(proxy.running().wait().success());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(eventually(|| closed.load(Ordering::Relaxed) == 1));
}

#[test]
fn those_of_the_file_before_a_reload_are_closed() {
    let (backend, closed) = counting();
    let mut proxy = pooled(&backend, "keepalive 2;", CLEARED, Driver::Epoll);
    assert_eq!(proxy.get("/").text(), "/");
    assert_eq!(closed.load(Ordering::Relaxed), 0);
    proxy.running().signal(Signal::SIGHUP);
    assert!(eventually(|| closed.load(Ordering::Relaxed) == 1));
    assert_eq!(proxy.get("/").text(), "/");
    assert_eq!(proxy.get("/").text(), "/");
    assert_eq!((backend.connections(), closed.load(Ordering::Relaxed)), (2, 1));
}
