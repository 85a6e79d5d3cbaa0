//! The access log and the error log.

use std::{fs, time::Duration};

use crate::util::{Backend, Driver, Proxy, beyond_nginx, eventually, frames, on_both_drivers, ports::Refusing};

on_both_drivers![requests_and_tunnels_are_logged_when_they_end];

const FIELDS: &str = "log_format fields '$remote_addr|$request|$status|$body_bytes_sent|$bytes_sent|$request_time|$upstream_addr|$upstream_status|'
    '$host|$request_length|$http_x_a|$connection_requests|$upstream_response_time|$sent_http_x_b|$upstream_http_x_b|$uri|$server_protocol';";

fn requests_and_tunnels_are_logged_when_they_end(driver: Driver) {
    let backend = Backend::echo();
    let text = format!(
        "{FIELDS} server {{ listen %http%; access_log %dir%/fields.log fields; location / {{ proxy_pass http://%backend%; proxy_http_version 1.1;
           proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; add_header X-B b; }} }}"
    );
    let proxy = Proxy::config(&text).set("backend", backend.address()).on(driver).start();
    let mut client = proxy.connect();
    let response = client.ask("GET /a?b HTTP/1.1\r\nHost: site.example\r\nX-A: 1\r\n\r\n");
    let line = proxy.written("fields.log", &["GET /a?b"]);
    let fields: Vec<&str> = line.split('|').collect();
    let upstream = backend.address().to_string();
    assert_eq!(fields[..4], ["127.0.0.1", "GET /a?b HTTP/1.1", "200", &response.body.len().to_string()], "{line}");
    assert!(fields[4].parse::<usize>().expect("bytes") > response.body.len() + 50, "{line}");
    assert!(fields[5].parse::<f64>().is_ok_and(|time| time < 5.0) && fields[5].contains('.'), "{line}");
    assert_eq!(fields[6..9], [upstream.as_str(), "200", "site.example"], "{line}");
    assert_eq!(
        fields[9].parse::<usize>().expect("length"),
        "GET /a?b HTTP/1.1\r\nHost: site.example\r\nX-A: 1\r\n\r\n".len(),
        "{line}"
    );
    assert_eq!(fields[10..12], ["1", "1"], "{line}");
    assert!(fields[12].parse::<f64>().is_ok(), "{line}");
    assert_eq!(fields[13..], ["b", "-", "/a", "HTTP/1.1"], "{line}");

    let mut tunnel = proxy.tunnel("/chat");
    for _ in 0..10 {
        tunnel.echoes(&"x".repeat(1000));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        !fs::read_to_string(proxy.dir().join("fields.log")).unwrap_or_default().contains("/chat"),
        "not before it ends"
    );
    drop(tunnel);
    let line = proxy.written("fields.log", &["GET /chat"]);
    let fields: Vec<&str> = line.split('|').collect();
    assert_eq!(fields[2], "101", "{line}");
    assert!(fields[3].parse::<usize>().expect("bytes") >= 10 * 1004, "what went through the tunnel: {line}");
    assert!(fields[5].parse::<f64>().is_ok_and(|time| time >= 0.3), "the life of the tunnel: {line}");
    assert_eq!(fields[6..8], [upstream.as_str(), "101"], "{line}");
}

#[test]
fn combined_is_the_default_format() {
    let backend = Backend::named("0123456789");
    let proxy = Proxy::before(backend.address(), Driver::Epoll);
    proxy.connect().ask(
        "GET /c HTTP/1.1\r\nHost: x\r\nReferer: http://from/\r\nUser-Agent: \"quoted\"\\\u{1}\r\n\r\n"
            .replace('\u{1}', ""),
    );
    let line = proxy.written("access.log", &["GET /c"]);
    let shape = regex::Regex::new(
        r#"^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /c HTTP/1\.1" 200 10 "http://from/" "\\x22quoted\\x22\\x5C"$"#,
    )
    .expect("a pattern");
    assert!(shape.is_match(&line), "{line}");
}

#[test]
fn json_escapes_and_conditions_and_off() {
    let text = r#"
        log_format json escape=json '{"uri":"$uri","agent":"$http_user_agent","none":"$http_nothing"}';
        map $status $bad { ~^[45] 1; default 0; }
        server { listen %http%;
            access_log %dir%/json.log json; access_log %dir%/bad.log combined if=$bad;
            location / { return 200 ok; }
            location /404 { return 404; }
            location /quiet { access_log off; return 200 ok; }
        }"#;
    let proxy = Proxy::config(text).start();
    proxy.connect().ask("GET /j HTTP/1.1\r\nHost: x\r\nUser-Agent: a\"b\\c\td\r\n\r\n");
    proxy.get("/quiet");
    proxy.get("/404");
    let line = proxy.written("json.log", &["/j"]);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!((&value["agent"], &value["none"]), (&"a\"b\\c\td".into(), &"".into()));
    proxy.written("bad.log", &["/404", " 404 "]);
    let all = fs::read_to_string(proxy.dir().join("json.log")).expect("the log")
        + &fs::read_to_string(proxy.dir().join("bad.log")).expect("the log");
    assert!(!all.contains("/quiet"), "{all}");
    assert!(!fs::read_to_string(proxy.dir().join("bad.log")).expect("the log").contains("/j"), "if=$bad");
}

#[test]
fn a_refused_request_leaves_a_line_in_both_logs() {
    let backend = Backend::mirror();
    let proxy = Proxy::before(backend.address(), Driver::Epoll);
    let response = proxy.connect().ask("GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
    assert_eq!(response.status(), 400);
    proxy.logged(&["client: 127.0.0.1", "server: "]);
    proxy.written("access.log", &["\"GET / HTTP/1.1\" 400 "]);
}

#[test]
fn a_dead_backend_leaves_one_line_with_everything_one_needs() {
    let dead = Refusing::new();
    let proxy =
        Proxy::config("server { listen %http%; server_name site.example; location / { proxy_pass http://%dead%; } }")
            .set("dead", dead.address())
            .start();
    proxy.connect().ask("GET /x?y HTTP/1.1\r\nHost: site.example\r\n\r\n");
    let line = proxy.logged(&["[error]", "upstream"]);
    for part in [
        "(111: Connection refused)",
        "client: 127.0.0.1",
        "server: site.example",
        "request: \"GET /x?y HTTP/1.1\"",
        &format!("upstream: \"http://{}/x?y\"", dead.address()),
        "host: \"site.example\"",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    let shape = regex::Regex::new(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[error\] \d+#\d+: \*\d+ ").expect("a pattern");
    assert!(shape.is_match(&line), "nginx's beginning: {line}");
    assert_eq!(proxy.log().lines().filter(|line| line.contains("[error]")).count(), 1, "one event, one line");
}

#[test]
fn levels_below_the_files_are_not_written() {
    let backend = Backend::mirror();
    let proxy = Proxy::config(
        "server { listen %http%; error_log %dir%/crit.log crit; location / { proxy_pass http://127.0.0.1:1; } location /own { error_log %dir%/own.log; proxy_pass http://127.0.0.1:1; } }",
    )
    .set("backend", backend.address())
    .start();
    proxy.get("/");
    proxy.get("/own");
    proxy.written("own.log", &["[error]", "/own"]);
    assert_eq!(fs::read_to_string(proxy.dir().join("crit.log")).unwrap_or_default(), "");
}

#[test]
fn the_reason_of_a_tunnels_end_is_logged() {
    beyond_nginx!();
    let text = "log_format reason '$uri $close_reason';
        server { listen %http%; access_log %dir%/reason.log reason; location / { proxy_pass http://%backend%; } location /idle { websocket_timeout 1s; proxy_pass http://%backend%; } }";
    let backend = Backend::echo();
    let proxy = Proxy::config(text).set("backend", backend.address()).start();
    let _idle = proxy.tunnel("/idle");
    proxy.tunnel("/reset").reset();
    let mut bad = proxy.tunnel("/bad");
    bad.send(frames::raw(0x81, false, "unmasked"));
    let mut closing = proxy.tunnel("/closing");
    closing.send(frames::client(frames::CLOSE, [3, 232])).finish();
    assert_eq!(closing.frame().0, frames::CLOSE, "the backend's close comes back");
    for line in ["/idle idle_timeout", "/reset client_reset", "/bad protocol_error", "/closing client_closed"] {
        proxy.written("reason.log", &[line]);
    }
}

#[test]
fn nothing_a_client_sends_makes_a_line_of_its_own() {
    let backend = Backend::mirror();
    let proxy = Proxy::before(backend.address(), Driver::Epoll);
    proxy.connect().ask("GET /%0a127.0.0.1%20forged HTTP/1.1\r\nHost: x\r\nUser-Agent: a\u{9}b\r\n\r\n");
    let _ = proxy.connect().try_send("GET /\n127.0.0.1 - - forged HTTP/1.1\r\n\r\n");
    assert!(eventually(|| fs::read_to_string(proxy.dir().join("access.log")).unwrap_or_default().lines().count() >= 2));
    let log = fs::read_to_string(proxy.dir().join("access.log")).expect("the log");
    assert!(log.lines().all(|line| line.starts_with("127.0.0.1 - - [")), "{log}");
}

/// Also once workers may open no file.
#[test]
fn local_time_is_of_the_zone_that_the_program_was_started_in() {
    beyond_nginx!();
    let text = "log_format time '$time_local|$time_iso8601'; access_log %dir%/time.log time; server { listen %http%; return 204; }";
    let proxy = Proxy::config(text).main("error_log %dir%/error.log info;").env("TZ", "EST5").start();
    proxy.get("/");
    let line = proxy.written("time.log", &["|"]);
    assert!(line.contains(" -0500|") && line.ends_with("-05:00"), "{line}");
    // 22/Nov/2026:06:31:05 -0500, and 2026/11/22 06:31:05 in the error log.
    let hour = line.split(':').nth(1).expect("an hour");
    let ready = proxy.written("error.log", &[" ready: "]);
    let near = line[12..].split(' ').next().expect("a time");
    assert!(ready[11..].starts_with(hour) || near.contains(":00:"), "{ready}: {line}");
}

#[test]
fn a_request_begins_with_its_first_byte() {
    let proxy = Proxy::config(
        "log_format time '$uri $request_time'; server { listen %http%; access_log %dir%/time.log time;
           location / { return 200 ok; } location /slow { proxy_pass http://%backend%; } }",
    );
    let backend = Backend::http(|_, _| {
        std::thread::sleep(Duration::from_millis(1200));
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    let proxy = proxy.set("backend", backend.address()).start();
    let mut client = proxy.connect();
    std::thread::sleep(Duration::from_millis(1200));
    client.send("GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /behind HTTP/1.1\r\nHost: x\r\n\r\n");
    let seconds = |target: &str| -> f64 {
        let line = proxy.written("time.log", &[&format!("{target} ")]);
        line.rsplit(' ').next().and_then(|time| time.parse().ok()).unwrap_or_else(|| panic!("no time: {line}"))
    };
    assert!(seconds("/slow") >= 1.0);
    assert!(seconds("/first") < 1.0, "a connection made ahead of its request is not a slow one");
    assert!(seconds("/behind") < 1.0, "nor is a request that waited for the one before it");
}
