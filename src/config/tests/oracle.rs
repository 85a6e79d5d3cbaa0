//! `nginx -t` as the judge: what it takes we take, what it refuses we refuse.

use std::{env, fs, path::Path, process::Command};

use super::*;

const NGINX: &str = "/usr/sbin/nginx";

/// The insides of a server, in files that both read.
const INSIDES: &[&str] = &[
    // values
    "proxy_read_timeout 60;",
    "proxy_read_timeout 1h 30m;",
    "proxy_read_timeout \"1h 30m\";",
    "proxy_read_timeout 1m1h;",
    "proxy_read_timeout 500ms;",
    "proxy_read_timeout 1M;",
    "proxy_read_timeout -1;",
    "proxy_read_timeout 1.5s;",
    "client_max_body_size 1g;",
    "client_max_body_size 1t;",
    "proxy_buffer_size 1g;",
    "proxy_buffer_size 16k; proxy_busy_buffers_size 16k;",
    "keepalive_timeout 65;",
    "keepalive_timeout 75s 60s;",
    "keepalive_timeout 1 2 3;",
    "keepalive_timeout a;",
    "keepalive_requests 10;",
    "keepalive_requests x;",
    "sendfile on;",
    "sendfile yes;",
    "sendfile On;",
    "large_client_header_buffers 4 16k;",
    "large_client_header_buffers 0 16k;",
    "large_client_header_buffers 4;",
    "large_client_header_buffers 4 100;",
    // syntax
    "return 200 'a;b{';",
    "return 200 \"a\\\"b\";",
    "return 200 \"a\"b;",
    "return 200 a\"b;",
    "return 200 'a",
    "return 200",
    "}",
    "{ }",
    ";",
    "location / { return 200; }}",
    "return 200 ${host}x;",
    "return 200 ${hostx;",
    "return 200 a$;",
    "return 200 $;",
    "gadget;",
    "sendfile on; gadget on;",
    "return 200 a}b;",
    "# return\nreturn 200;",
    // variables
    "return 200 $host$1;",
    "return 200 $nothing;",
    "set $x 1; return 200 $x;",
    "return 200 $x; set $x 1;",
    "set x 1;",
    "set $host 1;",
    "set $args a=b;",
    "return 200 $HOST;",
    "return 200 $http_x_y$arg_z$cookie_q$sent_http_a$upstream_http_b;",
    "return 200 $0;",
    "set $x; ",
    "set $ 1;",
    // rewrite
    "return;",
    "return 200;",
    "return 1000;",
    "return abc;",
    "return http://x/;",
    "return $scheme://x/;",
    "return 301 /x;",
    "return 200 a b;",
    "rewrite ^/a /b last;",
    "rewrite ^/a /b first;",
    "rewrite ^/a;",
    "rewrite ( /b;",
    "rewrite ^/(?<n>.*)$ /$n;",
    "break;",
    "break 1;",
    "if ($host) { return 403; }",
    "if ($host = a) { return 403; }",
    "if ( $host = a ) { return 403; }",
    "if ($host == a) { return 403; }",
    "if ($host=a) { return 403; }",
    "if $host { return 403; }",
    "if (host) { return 403; }",
    "if ($host ~ a) { return 403; }",
    "if ($host !~* \"a b\") { return 403; }",
    "if ($host ~ () { return 403; }",
    "if ($host = ) { return 403; }",
    "if () { return 403; }",
    "if ($host) { proxy_pass http://127.0.0.1; }",
    "if ($host) { return 403; } else { return 404; }",
    "if ($host = \"\") { return 403; }",
    "if ($host) { if ($args) { return 403; } }",
    "if ($nothing) { return 403; }",
    "location / { if ($host) { if ($args) { return 403; } } }",
    "location / { if ($host) { location /a { } } }",
    "location / { if ($host) { add_header A b; error_page 404 /x; access_log off; set $y 1; } }",
    // location
    "location /a { } location /a { }",
    "location = /a { } location /a { }",
    "location ^~ /a { } location /a { }",
    "location ~ a { } location ~ a { }",
    "location ! /a { }",
    "location /a /b { }",
    "location ~ ( { }",
    "location ~ ^/a{2}$ { }",
    "location ~ \"^/a{2}$\" { }",
    "location =/a { }",
    "location /a { location /a/b { } }",
    "location /a { location /b { } }",
    "location = /a { location /a/b { } }",
    "location /a { location ~ b { } }",
    "location ~ ^/a { location ~ b { } }",
    "location ~ ^/a { location /a { } }",
    "location /a { location @b { } }",
    "location @a { } location @a { }",
    "location { }",
    "location /a;",
    "location / { internal; internal; }",
    // proxy
    "location / { proxy_pass http://127.0.0.1:1; }",
    "location / { proxy_pass http://127.0.0.1:1/x; }",
    "location ~ x { proxy_pass http://127.0.0.1:1/x; }",
    "location ~ x { proxy_pass http://127.0.0.1:1/x$is_args; }",
    "location @x { proxy_pass http://127.0.0.1:1/; }",
    "location / { proxy_pass 127.0.0.1:1; }",
    "location / { proxy_pass http://; }",
    "location / { proxy_pass http://127.0.0.1:x; }",
    "location / { proxy_pass http://127.0.0.1:70000; }",
    "location / { proxy_pass http://[::1]:80; }",
    "location / { proxy_pass http://[::z]:80; }",
    "location / { proxy_pass http://unix:/run/x; }",
    "location / { proxy_pass http://unix:/run/x:/uri; }",
    "location / { proxy_pass http://unix:; }",
    "location / { proxy_pass http://$host; }",
    "location / { proxy_pass http://127.0.0.1; proxy_pass http://127.0.0.1; }",
    "proxy_pass http://127.0.0.1;",
    "location / { if ($args) { proxy_pass http://127.0.0.1/x; } }",
    "location / { if ($args) { proxy_set_header A b; } }",
    "location / { proxy_pass http://group; }",
    "location / { proxy_pass http://group:81; }",
    "location / { proxy_pass https://GROUP/x; }",
    "location / { proxy_pass http://127.0.0.1:1; proxy_redirect default; }",
    "location / { proxy_pass http://127.0.0.1:1; proxy_redirect x; }",
    "proxy_redirect off;",
    "proxy_redirect ~( /;",
    "proxy_redirect http://a/ /;",
    "proxy_set_header A;",
    "proxy_set_header A '';",
    "proxy_set_header A $nothing;",
    "proxy_http_version 1.0;",
    "proxy_http_version 2.0;",
    "proxy_http_version 1.1; proxy_http_version 1.1;",
    "proxy_next_upstream error http_502;",
    "proxy_next_upstream http_501;",
    "proxy_next_upstream off;",
    "proxy_next_upstream_tries 3;",
    "proxy_next_upstream_tries x;",
    "proxy_hide_header;",
    "add_header A b;",
    "add_header A b always;",
    "add_header A b never;",
    "add_header A;",
    "proxy_intercept_errors maybe;",
    // error pages, try_files, logs
    "error_page 404 /x;",
    "error_page 404 =200 /x;",
    "error_page 404 = /x;",
    "error_page 404 =abc /x;",
    "error_page 200 /x;",
    "error_page 600 /x;",
    "error_page 499 /x;",
    "error_page /x;",
    "error_page 404 =200;",
    "try_files $uri =404;",
    "try_files $uri;",
    "try_files $uri =abc;",
    "access_log off;",
    "access_log DIR/a.log;",
    "access_log DIR/a.log f;",
    "access_log DIR/a.log gadget;",
    "access_log DIR/a.log f if=$args;",
    "access_log DIR/a.log f buffer=x;",
    "access_log DIR/a.log f buffer=4k flush=5s;",
    "access_log DIR/a.log f gadget=1;",
    "access_log;",
    "error_log DIR/e.log warn;",
    "error_log DIR/e.log loud;",
    "error_log stderr;",
    "error_log;",
    // listen and names
    "listen unix:DIR/t default_server;",
    "listen unix:DIR/s;",
    "listen unix:DIR/t gadget;",
    "listen unix:DIR/t backlog=0;",
    "listen unix:DIR/t backlog=5;",
    "listen 127.0.0.1:0;",
    "listen 127.0.0.1:70000;",
    "listen 127.0.0.1:61001 ipv6only=on;",
    "listen 127.0.0.1:61002 so_keepalive=30m::10;",
    "listen 127.0.0.1:61003 so_keepalive=::;",
    "listen 127.0.0.1:61004 so_keepalive=maybe;",
    "listen [::1]:61005 ipv6only=on;",
    "listen;",
    "listen 127.0.0.1:61006 ssl;",
    "listen 127.0.0.1:61007 reuseport deferred rcvbuf=8k sndbuf=8k fastopen=3;",
    "listen 127.0.0.1:61008 backlog=x;",
    "server_name a b;",
    "server_name;",
    "server_name *.a;",
    "server_name a.*;",
    "server_name .a;",
    "server_name \"\";",
    "server_name ~^(?<x>.+)$;",
    "server_name ~;",
    "server_name ~(;",
    "server_name _;",
    "server_name $hostname;",
    "server_name *a.b;",
    "client_header_timeout 5; location / { client_header_timeout 5; }",
    "underscores_in_headers on;",
    "merge_slashes off;",
    "ignore_invalid_headers off;",
    "default_type text/html;",
    "server_tokens off;",
    "server_tokens maybe;",
    "reset_timedout_connection on;",
    "internal;",
    // tls
    "ssl_protocols TLSv1.2 TLSv1.3;",
    "ssl_protocols TLSv9;",
    "ssl_session_cache shared:A:1m;",
    "ssl_session_cache shared:A;",
    "ssl_session_cache none;",
    "ssl_session_cache gadget;",
    "ssl_session_timeout 5m;",
    "ssl_session_timeout 500ms;",
    "ssl_session_tickets off;",
    "ssl_reject_handshake on;",
    "listen 127.0.0.1:61009 ssl; ssl_certificate DIR/server.crt; ssl_certificate_key DIR/server.key;",
    "listen 127.0.0.1:61010 ssl; ssl_certificate DIR/server.crt;",
    "listen 127.0.0.1:61011 ssl; ssl_certificate DIR/none; ssl_certificate_key DIR/none;",
    "listen 127.0.0.1:61012 ssl; ssl_reject_handshake on;",
    "proxy_ssl_verify off;",
    "proxy_ssl_protocols TLSv1.2;",
    "proxy_ssl_server_name on;",
];

/// In http, beside a server.
const BESIDES: &[&str] = &[
    "map $host $m { default 1; a 2; }",
    "map $host $m { a; }",
    "map $host $m { a 1; a 2; }",
    "map $host $m { default 1; default 2; }",
    "map $host $m { hostnames; *.a 1; b.* 2; .c 3; }",
    "map $host $m { ~^(?<z>a)b$ $z; ~*C 1; volatile; }",
    "map $host $m { ~( 1; }",
    "map $host m { a 1; }",
    "map $host $m { a $nothing; }",
    "map $host $host { a 1; }",
    "map $host $m;",
    "map $host { a 1; }",
    "map $nothing $m { a 1; }",
    "map a$host-b $m { '' x; \\default y; }",
    "map $host $m { a b c; }",
    "upstream u { server 127.0.0.1; }",
    "upstream u { }",
    "upstream u { server 127.0.0.1 weight=0; }",
    "upstream u { server 127.0.0.1 weight=2 max_fails=0 fail_timeout=1m max_conns=5; }",
    "upstream u { server 127.0.0.1 max_conns=; }",
    "upstream u { server 127.0.0.1 gadget; }",
    "upstream u { server 127.0.0.1 backup; server 127.0.0.1:1; }",
    "upstream u { server 127.0.0.1 backup; }",
    "upstream u { server 127.0.0.1 down; }",
    "upstream u { server http://127.0.0.1; }",
    "upstream u { server 127.0.0.1:x; }",
    "upstream u { server; }",
    "upstream { server 127.0.0.1; }",
    "upstream group { server 127.0.0.1; }",
    "upstream u { server unix:/run/x; keepalive 4; }",
    "upstream u { listen 80; }",
    "log_format g '$host';",
    "log_format g;",
    "log_format f 'x';",
    "log_format g escape=json '$host';",
    "log_format g escape=xml '$host';",
    "log_format g '$nothing';",
    "server { listen unix:DIR/s; }",
    "server { listen unix:DIR/s default_server; } server { listen unix:DIR/s default_server; }",
    "server { listen unix:DIR/s backlog=5; } server { listen unix:DIR/s backlog=5; }",
    "server { listen unix:DIR/q server_name a; }",
    "server name { }",
    "listen 80;",
    "location / { }",
    "types { text/html html; }",
    "include DIR/none*;",
    "include DIR/none;",
    "include DIR/inc;",
    "proxy_pass http://a;",
    "root /x; index a b;",
    // limits
    "limit_conn_zone $binary_remote_addr zone=a:1m; limit_conn a 5; limit_conn_status 429; limit_conn_log_level info;",
    "limit_conn a 5; limit_conn_zone $uri$host zone=a:32k;",
    "limit_conn_zone $uri zone=a:31k;",
    "limit_conn_zone $uri zone=a;",
    "limit_conn_zone $uri zone=:1m;",
    "limit_conn_zone $uri a:1m;",
    "limit_conn_zone $uri zone=a:1m rate=1r/s;",
    "limit_conn_zone $nothing zone=a:1m;",
    "limit_conn_zone $uri zone=a:1m; limit_conn_zone $host zone=a:1m;",
    "limit_conn_zone $uri zone=a:1m; limit_req_zone $host zone=a:1m rate=1r/s;",
    "limit_conn_zone $uri zone=a:1m; limit_conn a 0;",
    "limit_conn_zone $uri zone=a:1m; limit_conn a 65535; limit_conn_dry_run on;",
    "limit_conn_zone $uri zone=a:1m; limit_conn a 1; limit_conn a 2;",
    "limit_conn_zone $uri zone=a:1m; limit_conn a;",
    "limit_conn a 1;",
    "limit_conn_status 399;",
    "limit_conn_log_level crit;",
    "limit_conn_dry_run yes;",
    "limit_req_zone $uri zone=a:1m rate=1r/s; limit_req zone=a burst=5 nodelay; limit_req_status 599;",
    "limit_req_zone $uri zone=a:1m rate=30r/m; limit_req zone=a burst=5 delay=3; limit_req_log_level warn;",
    "limit_req_zone $uri rate=5 zone=a:1m; limit_req burst=5 zone=a;",
    "limit_req_zone rate=5 zone=a:1m $uri;",
    "limit_req_zone $uri zone=a:1m;",
    "limit_req_zone $uri zone=a:1m rate=0r/s;",
    "limit_req_zone $uri zone=a:1m rate=1r/h;",
    "limit_req_zone $uri zone=a:1m rate=1r/s; limit_req zone=a burst=0;",
    "limit_req_zone $uri zone=a:1m rate=1r/s; limit_req zone=a burst=-5;",
    "limit_req_zone $uri zone=a:1m rate=1r/s; limit_req zone=a delay=0;",
    "limit_req_zone $uri zone=a:1m rate=1r/s; limit_req zone=a fast;",
    "limit_req_zone $uri zone=a:1m rate=1r/s; limit_req burst=5;",
    "limit_req_zone $uri zone=a:1m rate=1r/s; limit_req zone=a; limit_req zone=a burst=1;",
    "limit_req zone=a;",
    "limit_req_status 600;",
    "gzip on; gzip_types a/b; gzip_min_length 1k;",
    "server_names_hash_bucket_size 64; variables_hash_max_size 2048;",
    "open_file_cache max=10; lingering_close on; lingering_time 5s;",
    "tcp_nodelay on; tcp_nopush on; types_hash_max_size 2048;",
];

struct Oracle {
    directory: tempfile::TempDir,
}

impl Oracle {
    /// None where nginx is not installed.
    fn new() -> Option<Self> {
        if !Path::new(NGINX).exists() {
            assert!(env::var_os("CI").is_none(), "nginx is missing: install it, CI compares with it");
            eprintln!("skipped: {NGINX} is not installed");
            return None;
        }
        let directory = with_certificate();
        fs::write(directory.path().join("inc"), format!("server {{ listen unix:{}/i; }}", directory.path().display()))
            .expect("written");
        Some(Self { directory })
    }

    /// What both say of a file: whether they take it, and their words.
    fn ask(&self, server: &str, beside: &str) -> [(bool, String); 2] {
        let path = self.directory.path().display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path DIR/{kind};\n"))
            .concat();
        let text = format!(
            "daemon off; pid DIR/pid; error_log DIR/error.log;\nevents {{}}\nhttp {{ access_log off;\n{temporary}\
             log_format f '$host';\nupstream group {{ server 127.0.0.1:9; }}\nserver {{ listen unix:DIR/s; {server}\n}}\n{beside}\n}}\n"
        );
        let file = self.directory.path().join("nginx.conf");
        fs::write(&file, text.replace("DIR", &path)).expect("written");
        let output = Command::new(NGINX)
            .args(["-t", "-p", &path, "-e", &format!("{path}/error.log"), "-c"])
            .arg(&file)
            .output()
            .expect("nginx runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let ours = load_file(file, self.directory.path());
        [(output.status.success(), said), (ours.config.is_some(), ours.report.render(false, false))]
    }
}

#[test]
fn nginx_and_we_take_and_refuse_the_same_files() {
    let Some(oracle) = Oracle::new() else { return };
    let insides = INSIDES.iter().map(|inside| (*inside, ""));
    let besides = BESIDES.iter().map(|beside| ("", *beside));
    let mut differ = String::new();
    for (inside, beside) in insides.chain(besides) {
        let [(theirs, said), (ours, report)] = oracle.ask(inside, beside);
        if theirs != ours {
            differ.push_str(&format!("== {inside}{beside}\nnginx: {theirs}: {said}\nwe: {ours}: {report}\n"));
        }
    }
    assert!(differ.is_empty(), "{differ}");
}
