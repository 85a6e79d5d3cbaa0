//! `set_real_ip_from` and its like, held against nginx.

use crate::{
    nginx::compare,
    util::{Backend, Proxy, beyond_nginx, frames},
};

/// What a client is taken to be, as a location sees it and as a backend is told.
const SEEN: &str =
    "location = /who { return 200 \"$remote_addr $port $realip_remote_addr $proxy_add_x_forwarded_for\"; }
    location /pass { proxy_pass http://%backend%; proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }";

/// A port that is not the connection's own, which differs each time.
const PORT: &str = "map $remote_addr $port { 127.0.0.1 own; default $remote_port; }";

/// A request for `/who` with these lines of fields.
fn asking(path: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
}

/// Lists that proxies and liars write. (Brackets without a port are none of an address in nginx 1.22; they are in 1.28.)
fn lists() -> Vec<String> {
    let lines: [&[&str]; 21] = [
        &[],
        &["X-Forwarded-For: 192.0.2.1"],
        &["X-Forwarded-For: 203.0.113.9, 192.0.2.1"],
        &["X-Forwarded-For: 203.0.113.9, 127.0.0.2, 127.0.0.3"],
        &["X-Forwarded-For: 203.0.113.9,192.0.2.1,127.0.0.3"],
        &["X-Forwarded-For: 127.0.0.4, 127.0.0.3"],
        &["X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 192.0.2.1, 127.0.0.2", "X-Forwarded-For: 127.0.0.3"],
        &["X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: junk", "X-Forwarded-For: 127.0.0.3"],
        &["X-Forwarded-For: 203.0.113.9, junk, 127.0.0.3"],
        &["X-Forwarded-For: junk"],
        &["X-Forwarded-For: 192.0.2.1:4711"],
        &["X-Forwarded-For: 2001:db8::1"],
        &["X-Forwarded-For: [2001:db8::1]:4711, 127.0.0.3"],
        &["X-Forwarded-For: 192.0.2.1:0"],
        &["X-Forwarded-For: 192.0.2.1:99999"],
        &["X-Forwarded-For: 192.0.2.1, "],
        &["X-Forwarded-For: 192.0.2.300"],
        &["X-Forwarded-For: ::ffff:192.0.2.1"],
        &["X-Forwarded-For:"],
        &["X-Real-IP: 192.0.2.1", "X-Real-IP: 192.0.2.2", "X-Forwarded-For: 203.0.113.9"],
        &["X-Client: 203.0.113.9, 127.0.0.2", "X-Client: 192.0.2.2"],
    ];
    lines.iter().flat_map(|lines| [asking("/who", lines), asking("/pass", lines)]).collect()
}

#[test]
fn whoever_is_believed_names_the_client_as_in_nginx() {
    let lists = lists();
    let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
    for believed in [
        "set_real_ip_from 127.0.0.0/8; real_ip_header X-Forwarded-For;",
        "set_real_ip_from 127.0.0.0/8; real_ip_header X-Forwarded-For; real_ip_recursive on;",
        "set_real_ip_from 127.0.0.0/8;",
        "set_real_ip_from localhost; real_ip_header X-Client; real_ip_recursive on;",
        // Nobody who connects: what is written changes nothing.
        "set_real_ip_from 10.0.0.0/8; set_real_ip_from unix:; real_ip_header X-Forwarded-For; real_ip_recursive on;",
        "real_ip_header X-Forwarded-For;",
    ] {
        compare(&format!("{PORT} server {{ listen %http%; {believed} {SEEN} }}"), &lists);
    }
}

#[test]
fn each_level_believes_whom_it_says_at_nginx_s_time() {
    let by_server = asking("/server", &["X-Forwarded-For: 192.0.2.1"]);
    let location = |path: &str| asking(path, &["X-Forwarded-For: 192.0.2.1", "X-Client: 192.0.2.2"]);
    let named = "GET /who HTTP/1.1\r\nHost: named\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    compare(
        "real_ip_header X-Forwarded-For;
         server { listen %http%; server_name x;
             location /server { return 200 \"$remote_addr\"; }
             location /early { set_real_ip_from 127.0.0.1; return 200 \"$remote_addr\"; }
             location /late { set_real_ip_from 127.0.0.1; try_files /none /late_told; }
             location /late_told { return 200 \"$remote_addr\"; }
             location /other { set_real_ip_from 127.0.0.1; real_ip_header X-Client; proxy_pass http://%backend%;
                 proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Own $realip_remote_addr; }
             location /denied { set_real_ip_from 127.0.0.1; allow 127.0.0.1; deny all; proxy_pass http://%backend%; }
             location /allowed { set_real_ip_from 127.0.0.1; allow 192.0.2.1; deny all; proxy_pass http://%backend%; }
             location /page { set_real_ip_from 127.0.0.1; deny 192.0.2.1; error_page 403 =200 /page_told; }
             location /page_told { return 200 \"$remote_addr\"; }
         }
         server { listen %http%; server_name named; set_real_ip_from 127.0.0.1;
             if ($remote_addr = 192.0.2.1) { set $seen yes; }
             location /who { real_ip_header X-Client; return 200 \"$remote_addr $seen\"; } }",
        &[
            &by_server,
            &location("/early"),
            &location("/late"),
            &location("/other"),
            &location("/denied"),
            &location("/allowed"),
            &location("/page"),
            named,
        ],
    );
}

#[test]
fn proxy_protocol_names_the_client_as_in_nginx() {
    let believing = |from: &str| {
        format!(
            "{PORT} set_real_ip_from {from}; real_ip_header proxy_protocol; real_ip_recursive on;
             server {{ listen %http% proxy_protocol; {SEEN}
                 location = /all {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port\"; }} }}"
        )
    };
    let headed = |header: &str, path: &str| header.to_owned() + &asking(path, &["X-Forwarded-For: 203.0.113.9"]);
    let headers = [
        "PROXY TCP4 192.0.2.1 198.51.100.2 4097 443\r\n",
        "PROXY TCP6 2001:db8::1 2001:db8::2 4097 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 0 0\r\n",
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN 2001:db8::1 2001:db8::2 4097 443\r\n",
    ];
    let requests: Vec<String> =
        headers.iter().flat_map(|header| ["/who", "/pass", "/all"].map(|path| headed(header, path))).collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    compare(&believing("127.0.0.1"), &requests);
    compare(&believing("10.0.0.1"), &requests);
}

#[test]
fn a_tunnel_is_its_real_client_s_in_logs_and_on_the_status_page() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = Proxy::config(
        "log_format who '$remote_addr $realip_remote_addr $tunnel_event'; access_log %dir%/who.log who events=open,close;
         server { listen %http%; location = /status { status; }
             location / { set_real_ip_from 127.0.0.1; proxy_pass http://%backend%; proxy_http_version 1.1;
                 proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; } }",
    )
    .set("backend", backend.address())
    .start();
    let mut client = proxy.connect();
    let request = frames::request("/ws", "x").replacen("\r\n", "\r\nX-Real-IP: 192.0.2.1\r\n", 1);
    client.send(request);
    assert_eq!(client.head().status(), 101);
    client.echoes("hello");
    proxy.written("who.log", &["192.0.2.1 127.0.0.1 open"]);
    let told = proxy.connect().ask("GET /status?json HTTP/1.1\r\nHost: x\r\n\r\n").text();
    assert!(told.contains("192.0.2.1"), "{told}");
    client.finish();
    proxy.written("who.log", &["192.0.2.1 127.0.0.1 close"]);
    proxy.logged(&["tunnel closed", "client: 192.0.2.1"]);
}

#[test]
fn an_administrator_is_of_this_host_by_every_account() {
    beyond_nginx!();
    let proxy = Proxy::config(
        "server { listen %http%; set_real_ip_from 127.0.0.1; location = /status { status; status_admin on; } }",
    )
    .start();
    let drain = |fields: &str| {
        let request = format!(
            "POST /status?drain=127.0.0.1:1 HTTP/1.1\r\nHost: localhost\r\nX-Longsplice-Admin: 1\r\n{fields}\r\n"
        );
        proxy.connect().ask(request).status()
    };
    assert_eq!(drain("X-Real-IP: 192.0.2.1\r\n"), 403);
    assert_ne!(drain(""), 403);
}

#[test]
fn limits_count_by_the_real_client() {
    let proxy = Proxy::config(
        "limit_req_zone $binary_remote_addr zone=each:1m rate=1r/m;
         server { listen %http%; set_real_ip_from 127.0.0.1; location / { limit_req zone=each; proxy_pass http://127.0.0.1:1; } }",
    )
    .start();
    let of = |client: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Real-IP: {client}\r\n\r\n");
        proxy.connect().ask(request).status()
    };
    assert_eq!((of("192.0.2.1"), of("192.0.2.2"), of("192.0.2.1")), (502, 502, 503));
}
