//! What a right file means.

use std::time::Duration;

use super::*;
use crate::{
    config::{
        Bind, Content, Driver, Fallback, KeepIdle, LogBuffer, LogTarget, Origin, ProxyPass, ProxyTarget, Redirect,
        TunnelEvent,
    },
    proxy_protocol::Version,
    route::{
        access::{self, Whom},
        real_ip::{RealIp, RealIpHeader},
        rewrite::{Condition, Flag, Step},
    },
    websocket::handshake::Protocols,
};

fn pass<'a>(config: &'a Config, path: &str) -> &'a ProxyPass {
    match &location(config, path).content {
        Content::Proxy(pass) => pass,
        other => panic!("no proxy but {other:?}"),
    }
}

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
fn proxy_pass_replaces_the_prefix_only_with_a_uri() {
    let config = server(
        "location /a/ { proxy_pass http://127.0.0.1:1; }
         location /b/ { proxy_pass http://127.0.0.1:1/x/; }
         location /c/ { proxy_pass http://unix:/run/s.sock:/y; }
         location /d/ { proxy_pass https://Example.com; }
         location /e/ { proxy_pass http://app/p$is_args$args; }
         location /f/ { proxy_pass http://app$request_uri; }
         location /g/ { proxy_pass http://$arg_host:80/x; }
         location ~ ^/h { proxy_pass http://127.0.0.1:80; }
         location /i/ { proxy_pass http://[::1]:8080; }",
    );
    let uri = |path: &str| pass(&config, path).uri.as_ref().map(written);
    assert_eq!((uri("/a/"), pass(&config, "/a/").prefix), (None, 0));
    assert_eq!((uri("/b/").as_deref(), pass(&config, "/b/").prefix), (Some("/x/"), 3));
    assert_eq!((uri("/c/").as_deref(), pass(&config, "/c/").prefix), (Some("/y"), 3));
    assert_eq!(uri("/e/").as_deref(), Some("/p<Known(IsArgs)><Known(Args)>"));
    assert_eq!(uri("/f/").as_deref(), Some("<Known(RequestUri)>"));
    assert_eq!(pass(&config, "/f/").prefix, 0);
    let host = |path: &str| match &pass(&config, path).target {
        ProxyTarget::Upstream(group, host) => format!("{} {host}", config.upstreams[*group].name),
        ProxyTarget::Variable(template) => written(template),
    };
    assert_eq!(host("/a/"), "127.0.0.1:1 127.0.0.1:1");
    assert_eq!(host("/c/"), "unix:/run/s.sock localhost");
    assert_eq!(host("/d/"), "example.com:443 Example.com");
    assert_eq!(host("/f/"), "app:80 app");
    assert_eq!(host("/g/"), "http://<Argument(\"host\")>:80/x");
    assert_eq!(host("/h"), "127.0.0.1:80 127.0.0.1");
    assert_eq!(host("/i/"), "[::1]:8080 [::1]:8080");
    assert!(pass(&config, "/d/").tls);
    assert!(config.upstreams.iter().all(|upstream| !upstream.declared && upstream.servers.len() == 1));
    assert_eq!(config.upstreams.len(), 6, "one group for each distinct address");
}

#[test]
fn an_upstream_may_be_declared_behind_its_use() {
    let config = config(
        "server { listen 127.0.0.1:1; location / { proxy_pass http://App; } }
         upstream app { server a:1 weight=3 max_fails=0 fail_timeout=1m; server unix:/x backup max_conns=20; server b down; keepalive 16; }",
    );
    let app = &config.upstreams[0];
    assert!(app.declared && &*app.place == "nginx.conf:2:19");
    assert_eq!((app.servers[0].weight, app.servers[0].max_fails), (3, 0));
    assert_eq!(app.servers.iter().map(|server| server.max_conns).collect::<Vec<_>>(), [0, 20, 0]);
    assert_eq!(app.servers[0].fail_timeout, Duration::from_secs(60));
    assert!(app.servers[1].backup && app.servers[2].down);
    assert!(matches!(pass(&config, "/").target, ProxyTarget::Upstream(0, _)));
}

#[test]
fn source_addresses_are_inherited_and_replaced_as_a_whole() {
    let config = server(
        "proxy_bind 10.0.0.1 10.0.0.8/30 10.0.0.9 ::1;
         location /a/ { proxy_pass http://127.0.0.1:1; }
         location /b/ { proxy_pass http://127.0.0.1:1; proxy_bind 10.0.0.7; }
         location /c/ { proxy_pass http://127.0.0.1:1; proxy_bind off; }
         location /d/ { proxy_pass http://127.0.0.1:1; proxy_bind $server_addr; }",
    );
    let bound = |path: &str| match &location(&config, path).settings.bind {
        None => "the kernel's choice".to_owned(),
        Some(Bind::Variable(template)) => written(template),
        Some(Bind::Pool(sources)) => {
            sources.addresses().map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(bound("/a/"), "10.0.0.1 10.0.0.8 10.0.0.9 10.0.0.10 10.0.0.11 ::1");
    assert_eq!((&*bound("/b/"), &*bound("/c/")), ("10.0.0.7", "the kernel's choice"));
    assert_eq!(bound("/d/"), "<Known(ServerAddr)>");
}

#[test]
fn proxy_pass_is_inherited_by_if_and_not_by_nested_locations() {
    let config = server(
        "location /a/ { proxy_pass http://127.0.0.1:1/x/; if ($args) { add_header X 1; } if ($host) { set $y 1; }
           location /a/b { } }",
    );
    assert!(matches!(location(&config, "/a/b").content, Content::NotFound));
    let outer = location(&config, "/a/");
    let Step::If { location: Some(inner), condition: Condition::Value(_), .. } = &outer.script.steps[0] else {
        panic!("an if with settings: {:?}", outer.script)
    };
    let Step::If { location: None, then, .. } = &outer.script.steps[1] else { panic!("an if without settings") };
    assert!(matches!(then.steps[..], [Step::Set(..)]));
    let inner = &config.servers[0].locations[*inner];
    let Content::Proxy(pass) = &inner.content else { panic!("inherited") };
    assert_eq!((pass.uri.as_ref().map(written).as_deref(), pass.prefix), (Some("/x/"), 3));
    assert_eq!(inner.settings.add_headers.len(), 1);
    assert_eq!(outer.settings.add_headers.len(), 0);
    assert_eq!(inner.settings.redirects.len(), 1);
}

#[test]
fn redirects_default_to_the_backend_s_url_and_the_location_s_prefix() {
    let config = server(
        "location /a/ { proxy_pass http://127.0.0.1:1; }
         location /b/ { proxy_pass http://127.0.0.1:1/x/; }
         location /c/ { proxy_pass http://127.0.0.1:1; proxy_redirect off; }
         location /d/ { proxy_pass http://127.0.0.1:1/; proxy_redirect default; proxy_redirect ~^http://x/(.*)$ /y/$1; proxy_redirect http://z/ /; }
         location /e/ { proxy_pass http://127.0.0.1:1/$args; }",
    );
    let shown = |path: &str| -> Vec<String> {
        let redirects = &location(&config, path).settings.redirects;
        let show = |redirect: &Redirect| match redirect {
            Redirect::Prefix(from, to) => format!("{} -> {}", written(from), written(to)),
            Redirect::Regex(_, to) => format!("~ -> {}", written(to)),
        };
        redirects.iter().map(show).collect()
    };
    assert_eq!(shown("/a/"), ["http://127.0.0.1:1/ -> /"]);
    assert_eq!(shown("/b/"), ["http://127.0.0.1:1/x/ -> /b/"]);
    assert_eq!(shown("/c/"), [""; 0]);
    assert_eq!(shown("/d/"), ["http://127.0.0.1:1/ -> /d/", "~ -> /y/<Capture(1)>", "http://z/ -> /"]);
    assert_eq!(shown("/e/"), [""; 0]);
}

#[test]
fn rewrites_keep_their_order_and_flags() {
    let config = server(
        "set $a b; set $args x=1; rewrite ^/(.*)$ /new/$1 last; rewrite ^ https://x/ permanent; rewrite ^ $scheme://y/;
         rewrite ^ /z; break; if ($a !~* ^b$) { return 403 \"no $a\"; } return 301 /x;",
    );
    let steps = &config.servers[0].script.steps;
    let flags: Vec<_> = steps
        .iter()
        .filter_map(|step| if let Step::Rewrite { flag, .. } = step { Some(*flag) } else { None })
        .collect();
    assert_eq!(flags, [Flag::Last, Flag::Permanent, Flag::Redirect, Flag::None]);
    assert!(matches!(steps[1], Step::SetArgs(_)));
    assert!(matches!(steps[6], Step::Break));
    assert!(matches!(&steps[7], Step::If { condition: Condition::Match { negated: true, .. }, location: None, .. }));
    assert!(matches!(&steps[8], Step::Return(answer) if answer.status == 301));
}

#[test]
fn conditions_may_have_spaces_within_their_parentheses() {
    for condition in ["($host = x)", "( $host = x )", "($host = \"x\")", "($host = 'x' )", "(${host} = x)"] {
        let config = server(&format!("if {condition} {{ return 403; }}"));
        let Step::If { condition: Condition::Equal { left, right, negated: false }, .. } =
            &config.servers[0].script.steps[0]
        else {
            panic!("{condition}")
        };
        assert_eq!((written(left).as_str(), written(right).as_str()), ("<Known(Host)>", "x"), "{condition}");
    }
    let config = server("if ($host = \"\") { return 403; }");
    assert!(
        matches!(&config.servers[0].script.steps[0], Step::If { condition: Condition::Equal { right, .. }, .. } if right.parts.is_empty())
    );
}

#[test]
fn error_pages_and_fallbacks_know_their_targets() {
    let config = server(
        "error_page 404 /404.html; error_page 500 502 =200 @down; error_page 403 = https://x/;
         location / { try_files $uri $uri/ @app; } location /s { try_files $uri =503; } location /u { try_files $uri /index.html?a; }
         location @app { return 200; } location @down { return 200; }",
    );
    let pages = &location(&config, "/").settings.error_pages;
    assert_eq!(pages[0].statuses, [404]);
    assert!(matches!(&pages[0].target, Fallback::Uri(uri) if written(uri) == "/404.html"));
    assert_eq!((pages[1].statuses.as_slice(), pages[1].status), ([500, 502].as_slice(), Some(200)));
    assert!(matches!(&pages[1].target, Fallback::Named(name) if &**name == "down"));
    assert_eq!(pages[2].status, Some(0));
    let fallback = |path: &str| match &location(&config, path).content {
        Content::Fallback(fallback) => fallback.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(fallback("/x"), Fallback::Named(name) if &*name == "app"));
    assert!(config.servers[0].routes.named("app").is_some());
    assert!(matches!(fallback("/s"), Fallback::Status(503)));
    assert!(matches!(fallback("/u"), Fallback::Uri(_)));
}

#[test]
fn try_files_of_a_server_is_for_what_no_location_takes() {
    let config = server("try_files $uri @app; location /x { return 204; } location @app { return 200; }");
    assert!(matches!(&location(&config, "/any").content, Content::Fallback(Fallback::Named(_))));
    assert!(matches!(&location(&config, "/x").content, Content::NotFound));
}

#[test]
fn who_is_believed_where_and_how_are_inherited_each_by_itself() {
    let config = config(
        "set_real_ip_from 10.0.0.0/8; set_real_ip_from ::1; real_ip_header X-Forwarded-For;
         server { listen 127.0.0.1:1;
             location /all { real_ip_recursive on; }
             location /unix { set_real_ip_from unix:; real_ip_header X-Client; }
             location /proxied { real_ip_header proxy_protocol; set_real_ip_from 10.0.0.1/8; } }",
    );
    let of = |path: &str| {
        let real_ip = location(&config, path).settings.real_ip.clone().expect("somebody");
        (real_ip.from.len(), real_ip.header, real_ip.recursive)
    };
    let client = RealIpHeader::Field("X-Client".into());
    assert_eq!(of("/all"), (2, RealIpHeader::ForwardedFor, true));
    assert_eq!(of("/unix"), (1, client, false));
    assert_eq!(of("/proxied"), (1, RealIpHeader::ProxyProtocol, false));
    let server = server("real_ip_header X-Forwarded-For; location / { }");
    assert!(server.servers[0].settings.real_ip.is_none(), "nobody is believed unasked");
    let default = config_of_real_ip("set_real_ip_from localhost;");
    assert_eq!(default.header, RealIpHeader::Field("X-Real-IP".into()));
    assert!(default.from.contains(&Whom::Net("127.0.0.1/32".parse().expect("a network"))), "{:?}", default.from);
}

#[test]
fn backends_are_told_who_the_client_is_where_the_file_says_so() {
    let config = server(
        "proxy_protocol on; location /a { } location /b { proxy_protocol v2; location /b/c { proxy_protocol off; } }
         location /d { proxy_protocol v1; }",
    );
    let of = |path: &str| location(&config, path).settings.proxy_protocol;
    assert_eq!(
        (of("/a"), of("/b"), of("/b/c"), of("/d")),
        (Some(Version::V1), Some(Version::V2), None, Some(Version::V1))
    );
}

fn config_of_real_ip(directives: &str) -> RealIp {
    server(directives).servers[0].settings.real_ip.clone().expect("somebody")
}

#[test]
fn proxy_protocol_holds_for_every_server_of_an_address() {
    let loaded = load_text(
        "server { listen 127.0.0.1:81 proxy_protocol; listen 127.0.0.1:82; } server { listen 127.0.0.1:81 proxy_protocol; }
         server { listen 127.0.0.1:83; } server { listen 127.0.0.1:83 proxy_protocol backlog=9; }",
        Path::new("/nowhere"),
    );
    let text = loaded.report.render(false, false);
    assert_eq!(text.matches("protocol options redefined").count(), 1, "{text}");
    assert!(
        text.contains("protocol options redefined for 127.0.0.1:83") && text.contains("`proxy_protocol` holds"),
        "{text}"
    );
    let config = loaded.config.expect("right");
    let wanted: Vec<_> = config.listeners.iter().map(|listener| listener.proxy_protocol).collect();
    assert_eq!(wanted, [true, false, true]);
}

#[test]
fn addresses_are_shared_and_names_belong_to_them() {
    let loaded = load_text(
        "server { listen 127.0.0.1:81; listen [::1]:81; server_name a *.b ~^(?<sub>x)\\.c$; }
         server { listen 127.0.0.1:81 default_server backlog=9 so_keepalive=1m::3; server_name .d A; }
         server { listen 127.0.0.1:81; } server { listen unix:/run/x; }",
        Path::new("/nowhere"),
    );
    let text = loaded.report.render(false, false);
    assert!(text.contains("conflicting server name \"a\" on 127.0.0.1:81, ignored"), "{text}");
    let config = loaded.config.expect("right");
    assert_eq!(config.listeners.len(), 3);
    let listener = &config.listeners[0];
    assert_eq!((listener.default, listener.servers.as_slice(), listener.options.backlog), (1, [0, 1, 2].as_slice(), 9));
    let server_of = |name: &str| listener.names.find(name.as_bytes()).map(|found| found.server);
    assert_eq!(
        (server_of("a"), server_of("x.b"), server_of("x.c"), server_of("d"), server_of("y.d")),
        (Some(0), Some(0), Some(0), Some(1), Some(1))
    );
    assert_eq!((server_of(""), server_of("zzz")), (Some(2), None));
    assert_eq!(&*config.servers[1].name, "d");
    assert!(config.slots.iter().any(|slot| &**slot == "sub"));
}

#[test]
fn a_server_without_certificate_takes_the_default_server_s() {
    let directory = with_certificate();
    let certificate = "ssl_certificate server.crt; ssl_certificate_key server.key;";
    let text = format!("server {{ listen 1 ssl; {certificate} }} server {{ listen 1 ssl; server_name b; }}");
    let config = load_text(&text, directory.path()).config.expect("right");
    let [first, second] = config.servers.as_slice() else { panic!("two servers") };
    assert!(first.tls.is_some() && second.tls.is_some());
    let text = "server { listen 1 ssl; ssl_reject_handshake on; }";
    assert!(load_text(text, directory.path()).config.expect("right").servers[0].tls.is_some());
    let text = format!(
        "server {{ listen 1 ssl; ssl_reject_handshake on; }} server {{ listen 1 ssl; {certificate} server_name b; }}"
    );
    assert!(load_text(&text, directory.path()).config.is_some());
    let text = "server { listen 1 ssl; ssl_reject_handshake on; } server { listen 1 ssl; server_name b; }";
    assert!(load_text(text, directory.path()).config.is_none());
    let text = format!("server {{ listen 1; {certificate} }}");
    assert!(load_text(&text, directory.path()).report.render(false, false).contains("this certificate is not used"));
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
fn a_long_file_is_read_in_reasonable_time() {
    let locations: String = (0..20)
        .map(|number| format!("location /{number} {{ proxy_pass http://127.0.0.1:{}; }}\n", number + 1))
        .collect();
    let servers: String = (0..500)
        .map(|number| format!("server {{ listen 127.0.0.1:80; server_name s{number}; {locations} }}\n"))
        .collect();
    let begun = std::time::Instant::now();
    assert_eq!(config(&servers).servers.len(), 500);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn connections_to_backends_are_kept_where_the_file_says_how_many() {
    let of = |inner: &str| {
        let server = "server { listen 127.0.0.1:1; location / { proxy_pass http://app; } }";
        config(&format!("upstream app {{ server 127.0.0.1:2; {inner} }} {server}")).upstreams[0].keepalive
    };
    let seconds = Duration::from_secs;
    let default = KeepIdle { connections: 16, requests: 1000, timeout: seconds(60), lifetime: seconds(3600) };
    assert_eq!((of(""), of("keepalive_timeout 5s;"), of("keepalive 0;")), (None, None, None));
    assert_eq!((of("keepalive 16;"), of("keepalive 16 local;")), (Some(default), Some(default)));
    let set = of("keepalive 16; keepalive_requests 5; keepalive_timeout 2m; keepalive_time 1d;");
    assert_eq!(set, Some(KeepIdle { requests: 5, timeout: seconds(120), lifetime: seconds(86_400), ..default }));
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
fn allow_and_deny_are_one_list_in_the_order_of_the_file() {
    let config = config(
        "deny 192.0.2.66; allow 192.0.2.0/24; allow 2001:db8::/32; allow unix:; deny all;
         server { listen 127.0.0.1:8080;
             location / {}
             location /open { allow all; location /open/x {} }
         }",
    );
    let permits = |path: &str, client: &str| {
        access::permits(&location(&config, path).settings.access, client.parse::<std::net::IpAddr>().ok())
    };
    assert!(permits("/", "192.0.2.1") && permits("/", "2001:db8::7") && permits("/", "unix:"));
    assert!(!permits("/", "192.0.2.66") && !permits("/", "198.51.100.1"));
    assert!(permits("/open", "192.0.2.66") && permits("/open/x", "198.51.100.1"), "one of its own hides all others");
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

#[test]
fn vanished_peers_are_noticed_by_default() {
    let of = |http: &str, listen: &str| {
        let config = config(&format!("{http} server {{ listen 127.0.0.1:81 {listen}; location / {{}} }}"));
        let settings = &location(&config, "/").settings;
        let options = &config.listeners[0].options;
        (options.keepalive, options.user_timeout.as_secs(), settings.backend_keepalive, settings.user_timeout.as_secs())
    };
    let ours = Some(crate::config::KeepAlive::OURS);
    assert_eq!(of("", ""), (ours, 120, true, 120));
    assert_eq!(of("tcp_user_timeout 30s; proxy_socket_keepalive off;", "so_keepalive=off"), (None, 30, false, 30));
    assert_eq!(of("tcp_user_timeout 0;", "so_keepalive=on"), (Some(Default::default()), 0, true, 0));
}
