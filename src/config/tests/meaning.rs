//! What a right file means.

mod clients;
mod proxying;
mod script;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::*;
use crate::{
    config::{Content, Driver, LogBuffer, LogTarget, Origin, TunnelEvent},
    websocket::handshake::Protocols,
};

#[test]
fn lists_are_inherited_only_where_the_level_sets_none() {
    let config = server(
        "proxy_set_header A 1; proxy_set_header B 2; add_header X 1;
         location /a { add_header Y 2 always; location /a/b { proxy_set_header C 3; } }
         location /c {}",
    );
    let names = |path: &str| {
        let settings = &location(&config, path).settings;
        let set: String = settings.set_headers.iter().map(|(name, _)| &**name).collect();
        let add: String = settings.add_headers.iter().map(|header| &*header.name).collect();
        (set, add)
    };
    assert_eq!(names("/a"), ("AB".into(), "Y".into()));
    assert_eq!(names("/a/b"), ("C".into(), "Y".into()));
    assert_eq!(names("/c"), ("AB".into(), "X".into()));
}

#[test]
fn defaults_are_nginx_s_but_where_the_documents_say_otherwise() {
    let config = server("location / {}");
    let settings = &location(&config, "/").settings;
    assert_eq!(settings.connect_timeout, Duration::from_secs(60));
    assert_eq!(settings.keepalive_timeout, Duration::from_secs(75));
    assert_eq!(settings.keepalive_requests, 1000);
    assert_eq!(settings.max_body_bytes, 1 << 20);
    assert_eq!(settings.response_head_bytes, 16 << 10);
    assert_eq!(settings.tunnel_timeout, Duration::from_secs(3600));
    assert_eq!(&*settings.default_type, "text/plain");
    assert!(!settings.proxy_http_10 && settings.server_tokens);
    assert!(settings.next_upstream.error && settings.next_upstream.timeout && !settings.next_upstream.non_idempotent);
    assert_eq!(settings.protocols, Protocols::Only(vec!["websocket".into()]));
    assert!(settings.origins.is_none() && settings.access_logs.is_empty());
    let head = &config.servers[0].head;
    assert_eq!((head.line_bytes, head.head_bytes, head.fields), (8 << 10, 32 << 10, 100));
    assert!(head.merge_slashes && !head.underscores);
    assert_eq!(config.listeners[0].options.backlog, 511);
    assert!(config.listeners[0].options.ipv6only);
    assert_eq!((config.main.daemon, config.main.driver), (false, Driver::Epoll));
    assert_eq!(config.main.affinity.as_ref().map(Vec::len), Some(config.main.workers));
}

#[test]
fn the_tunnel_follows_websocket_timeout_then_proxy_read_timeout() {
    let seconds = |inner: &str| {
        let config = server(&format!("location / {{ {inner} }}"));
        location(&config, "/").settings.tunnel_timeout.as_secs()
    };
    assert_eq!(seconds(""), 3600);
    assert_eq!(seconds("proxy_read_timeout 5;"), 5);
    assert_eq!(seconds("proxy_read_timeout 5; websocket_timeout 2m;"), 120);
    assert_eq!(seconds("websocket_timeout off;"), 0);
}

#[test]
fn logs_have_formats_targets_and_conditions() {
    let config = config(
        "log_format f escape=json '$host ' \"$status\"; access_log /a; access_log logs/b f buffer=4k flush=1m if=$arg_log;
         server { listen 127.0.0.1:1; location /off { access_log off; } location /out { access_log /dev/stdout f; } }",
    );
    let logs = &config.servers[0].settings.access_logs;
    assert_eq!(&*logs[0].format.name, "combined");
    assert_eq!(logs[0].target, LogTarget::File("/a".into()));
    assert_eq!(logs[1].target, LogTarget::File("/nowhere/logs/b".into()));
    assert_eq!(written(&logs[1].format.template), "<Known(Host)> <Known(Status)>");
    assert!(logs[1].condition.is_some());
    let minute = Some(Duration::from_secs(60));
    assert_eq!((logs[0].buffer, logs[1].buffer), (None, Some(LogBuffer { bytes: 4096, flush: minute })));
    assert!(location(&config, "/off").settings.access_logs.is_empty());
    assert_eq!(location(&config, "/out").settings.access_logs[0].target, LogTarget::Stdout);
}

#[test]
fn ours_are_read() {
    let config = server(
        "websocket_origin same none Example.com *.x.y https://z:8443 ~^https://(a|b)$; upgrade_protocols WebSocket Foo;
         location /any { upgrade_protocols any; websocket_origin any; }",
    );
    let settings = &config.servers[0].settings;
    assert_eq!(settings.protocols, Protocols::Only(vec!["websocket".into(), "foo".into()]));
    let origins = settings.origins.as_deref().expect("some");
    assert!(matches!(
        origins,
        [Origin::Same, Origin::None, Origin::Text(_), Origin::Text(_), Origin::Text(_), Origin::Regex(_)]
    ));
    let any = &location(&config, "/any").settings;
    assert!(any.origins.is_none() && any.protocols == Protocols::Any);
}

#[test]
fn workers_and_their_cores_are_counted() {
    let main = config("worker_processes 3; worker_cpu_affinity 01 10; events { use epoll; worker_connections 99; busy_poll 50; } server { listen 127.0.0.1:1; }").main;
    assert_eq!(main.affinity, Some(vec![vec![0], vec![1], vec![1]]));
    assert_eq!((main.driver, main.worker_connections), (Driver::Epoll, Some(99)));
    assert_eq!(main.busy_poll, Duration::from_micros(50));
    for wrong in [
        "worker_processes 0;",
        "worker_processes 9999999;",
        "worker_cpu_affinity 012;",
        "events { use kqueue; }",
        "events { busy_poll 10001; }",
        "events { busy_poll 5ms; }",
    ] {
        errors(&format!("{wrong} server {{ listen 127.0.0.1:1; }}"));
    }
}

#[test]
fn a_file_four_times_as_long_takes_no_more_than_some_four_times_as_long() {
    let location = |number: usize| format!("location /{number} {{ proxy_pass http://127.0.0.1:{}; }}\n", number + 1);
    let twenty: String = (0..20).map(location).collect();
    let servers = |number: usize| format!("server {{ listen 127.0.0.1:80; server_name s{number}; {twenty} }}\n");
    let sites = |number: usize| {
        format!(
            "upstream app{number} {{ server 127.0.0.1:1; server 127.0.0.1:2; }} map $host $m{number} {{ default 1; }}
             limit_req_zone $host zone=z{number}:32k rate=1r/s;
             server {{ listen 127.0.0.1:80; server_name s{number} *.s{number}; location ~ ^/x{number} {{ return 204; }}
                 location / {{ proxy_pass http://app{number}; proxy_set_header X $m{number}; limit_req zone=z{number}; }} }}\n"
        )
    };
    // Of this thread, so that it does not matter what else the machine does.
    let cpu = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let taken = |text: String| {
        let begun = cpu();
        config(&text);
        cpu() - begun
    };
    let not_squared = |short: Duration, long: Duration| assert!(long < short * 8, "{short:?}, {long:?}");
    not_squared(taken((0..125).map(servers).collect()), taken((0..500).map(servers).collect()));
    not_squared(taken((0..250).map(sites).collect()), taken((0..1000).map(sites).collect()));
    let alone = |count| format!("server {{ listen 127.0.0.1:80; {} }}", (0..count).map(location).collect::<String>());
    not_squared(taken(alone(2_000)), taken(alone(8_000)));
}

#[test]
fn lines_of_open_tunnels_are_asked_for() {
    let of = |inner: &str| {
        let config = server(&format!("location / {{ access_log /x {inner} }}"));
        let settings = &location(&config, "/").settings;
        let events = TunnelEvent::ALL.map(|event| settings.access_logs[0].events.has(event));
        (events, settings.access_log_interval.as_secs(), settings.access_logs[0].format.name.clone())
    };
    assert_eq!(of(";"), ([false, false, true], 0, "combined".into()));
    let asked = of("json events=open,interval,close; access_log_interval 1m;");
    assert_eq!(asked, ([true; 3], 60, "json".into()));
    assert_eq!(of("json events=open; access_log_interval off;"), ([true, false, false], 0, "json".into()));
    let warned = report("server { listen 127.0.0.1:1; access_log /x json events=interval; }");
    assert!(warned.contains("no line is written for `events=interval` without an interval"), "{warned}");
}

#[test]
fn a_json_format_of_the_file_s_own_holds() {
    let config = config("log_format json '$host'; access_log /x json; server { listen 127.0.0.1:1; }");
    assert_eq!(written(&config.servers[0].settings.access_logs[0].format.template), "<Known(Host)>");
}

#[test]
fn a_location_or_a_server_may_tell_of_the_program() {
    let config = config(
        "server { listen 127.0.0.1:8080;
             location = /status { status; status_admin on; }
             location = /metrics { metrics; if ($arg_x) { add_header X 1; } }
             location = /stub { stub_status on; }
         }
         server { listen 127.0.0.1:9145; metrics; status_admin on; location /s { status; } }",
    );
    assert!(matches!(location(&config, "/status").content, Content::Status { admin: true }));
    assert!(matches!(location(&config, "/metrics").content, Content::Metrics));
    assert!(matches!(location(&config, "/stub").content, Content::StubStatus));
    let in_if = config.servers[0].locations.iter().find(|location| location.name.contains("(if"));
    assert!(in_if.is_some_and(|location| matches!(location.content, Content::Metrics)));
    let other = &config.servers[1];
    assert!(matches!(other.locations[found(other, "/")].content, Content::Metrics));
    assert!(matches!(other.locations[found(other, "/s")].content, Content::Status { admin: true }), "inherited");
}

#[test]
fn a_tunnel_s_age_and_pings_are_off_unless_the_file_sets_them() {
    let of = |inner: &str| {
        let config = server(&format!("location / {{ {inner} }}"));
        let settings = &location(&config, "/").settings;
        (settings.max_lifetime.as_secs(), settings.lifetime_jitter, settings.ping.as_secs())
    };
    assert_eq!(of(""), (0, 10, 0));
    assert_eq!(of("websocket_max_lifetime off; websocket_ping off;"), (0, 10, 0));
    assert_eq!(of("websocket_max_lifetime 12h; websocket_ping 30s;"), (43_200, 10, 30));
    assert_eq!(of("websocket_max_lifetime 1d jitter=25%;"), (86_400, 25, 0));
}

#[test]
fn a_drain_is_bounded_unless_the_file_says_otherwise() {
    let of = |main: &str| {
        load_text(&format!("{main} events {{}} http {{ server {{ listen 127.0.0.1:8080; }} }}"), Path::new("/nowhere"))
            .config
            .unwrap()
            .main
            .drain
    };
    let seconds = |drain: crate::config::Drain| {
        (drain.delay.as_secs(), drain.window.as_secs(), drain.timeout.as_secs(), drain.code)
    };
    assert_eq!(seconds(of("")), (0, 30, 60, 1001));
    let all = "drain_delay 5s; drain_timeout 2m; worker_shutdown_timeout 10m; drain_close_code 1012;";
    assert_eq!(seconds(of(all)), (5, 120, 600, 1012));
}
