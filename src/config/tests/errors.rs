//! What is refused, and in which words.

use super::*;

fn server_error(inner: &str, expected: &str) {
    let text = errors(&format!("server {{ listen 127.0.0.1:8080; {inner} }}"));
    assert!(text.contains(expected), "{expected} for {inner}, not\n{text}");
}

#[test]
fn values_out_of_form_are_named_with_the_form() {
    server_error("proxy_read_timeout abc;", "invalid value \"abc\" in \"proxy_read_timeout\" directive");
    server_error("proxy_read_timeout abc;", "a time is written like 30s");
    server_error("client_max_body_size 1kb;", "a size is written like");
    server_error("keepalive_requests -1;", "a number, 0 or more");
    server_error("proxy_http_version 2;", "`1.0` or `1.1`");
    server_error("error_log /x loud;", "invalid log level \"loud\"");
    server_error("access_log /x fancy;", "unknown log format \"fancy\"");
    server_error("access_log /x combined events=opened;", "takes open, interval and close");
    let kept =
        |inner: &str| errors(&format!("upstream a {{ server 127.0.0.1:1; {inner} }} server {{ listen 127.0.0.1:1; }}"));
    assert!(kept("keepalive many;").contains("invalid value \"many\" in \"keepalive\""));
    assert!(kept("keepalive 1000000;").contains("so many connections are not kept"));
    assert!(kept("keepalive 4 global;").contains("invalid parameter \"global\""));
    assert!(kept("keepalive_timeout soon;").contains("a time is written like 30s"));
    server_error("access_log_interval 500ms;", "more than once a second");
    server_error("access_log_interval often;", "a time is written like 30s");
    server_error("access_log /x combined flush=1m;", "no buffer is defined for access_log \"/x\"");
    server_error("access_log /x combined buffer=0;", "invalid buffer size in \"buffer=0\"");
    server_error("access_log /x combined buffer=1k flush=0;", "invalid flush time in \"flush=0\"");
    server_error(
        "access_log /x combined buffer=1k; location / { access_log /x combined buffer=2k; }",
        "access_log \"/x\" already defined with conflicting parameters",
    );
    server_error("return hello;", "invalid return code \"hello\"");
    server_error("return 1000;", "invalid return code");
    server_error("rewrite ^ /x final;", "invalid parameter \"final\"");
    server_error("error_page 200 /x;", "must be between 300 and 599");
    server_error("add_header X y allways;", "invalid parameter \"allways\"");
    server_error("proxy_set_header \"X Y\" z;", "cannot be the name of a header field");
    server_error("proxy_next_upstream errror;", "did you mean `error`?");
    server_error("server_name $host;", "server name \"$host\" is invalid");
    server_error("websocket_max_lifetime 1d jitter=10;", "invalid parameter \"jitter=10\"");
    server_error("websocket_max_lifetime 1d jitter=101%;", "0% to 100%");
    server_error("websocket_max_lifetime soon;", "a time is written like 30s");
    server_error("upgrade_protocols h2c;", "h2c is never let through");
    server_error("websocket_origin https://a/b;", "is no origin");
    server_error("ssl_protocols TLSv1 TLSv1.1;", "no version of TLS is left");
    server_error("ssl_protocols TLSv1.4;", "invalid value \"TLSv1.4\"");
    server_error("large_client_header_buffers 4 100;", "512 bytes or more");
}

#[test]
fn an_error_in_http_is_one_error_however_many_inherit_it() {
    let loaded = load_text(
        "proxy_read_timeout abc; server { listen 127.0.0.1:1; location /a {} location /b {} } server { listen 127.0.0.1:2; }",
        Path::new("/nowhere"),
    );
    assert_eq!(loaded.report.errors(), 1, "{}", loaded.report.render(false, false));
    assert_eq!(load_text("proxy_read_timeout abc;", Path::new("/nowhere")).report.errors(), 1);
}

#[test]
fn variables_have_their_own_place() {
    let text = errors("server { listen 127.0.0.1:1; return 200 \"a $hots b\"; }");
    assert!(text.contains("unknown \"hots\" variable"), "{text}");
    assert!(text.contains("nginx.conf:1:44"), "{text}");
    assert!(text.contains("did you mean `host`?"), "{text}");
    server_error("return 200 $ssl_client_s_dn;", "\"ssl_client_s_dn\" is not supported yet");
}

#[test]
fn conditions_are_held_to_nginx_s_forms() {
    server_error("if $host { return 403; }", "a condition stands in parentheses");
    server_error("if ($host=x) { return 403; }", "spaces are missing around the operator");
    server_error("if ($host == x) { return 403; }", "unexpected \"==\" in condition");
    server_error("if (-f /maintenance) { return 503; }", "the test \"-f\" is not supported");
    server_error("if (host) { return 403; }", "a condition begins with a variable");
    server_error("if ($host ~ \"(\") { return 403; }", "error");
    server_error("if ($host) { proxy_read_timeout 1s; }", "\"proxy_read_timeout\" directive is not allowed here");
}

#[test]
fn proxy_pass_is_held_to_nginx_s_rules() {
    let uri = "cannot have URI part";
    server_error("location ~ x { proxy_pass http://127.0.0.1:1/x; }", uri);
    server_error("location @x { proxy_pass http://127.0.0.1:1/; }", uri);
    server_error("location / { if ($args) { proxy_pass http://127.0.0.1:1/; } }", uri);
    server_error("location / { proxy_pass 127.0.0.1:1; }", "invalid URL prefix");
    server_error("location / { proxy_pass http://; }", "no host in upstream");
    server_error("location / { proxy_pass http://a:x; }", "invalid port in upstream");
    server_error("proxy_pass http://a;", "\"proxy_pass\" directive is not allowed here");
    let text = errors("upstream a { server 127.0.0.1; } server { location / { proxy_pass http://a:81; } }");
    assert!(text.contains("upstream \"a\" may not have port 81"), "{text}");
}

#[test]
fn upstreams_are_held_to_nginx_s_rules() {
    let upstream = |inner: &str, expected: &str| {
        let text = errors(&format!("upstream a {{ {inner} }} server {{ listen 127.0.0.1:1; }}"));
        assert!(text.contains(expected), "{expected} for {inner}, not\n{text}");
    };
    upstream("", "no servers are inside upstream \"a\"");
    upstream("server 127.0.0.1 backup;", "at least one server must not be `backup`");
    upstream("server 127.0.0.1 weight=0;", "invalid parameter \"weight=0\"");
    upstream("server 127.0.0.1 wieght=2;", "invalid parameter \"wieght=2\"");
    upstream("server 127.0.0.1 max_conns=many;", "invalid parameter \"max_conns=many\"");
    upstream("server 127.0.0.1 max_conns=-1;", "invalid parameter \"max_conns=-1\"");
    upstream("server 127.0.0.1 max_cons=1;", "did you mean `max_conns=`?");
    upstream("server http://127.0.0.1;", "leave out the scheme");
    upstream("least_conn; server 127.0.0.1;", "`least_conn` is not supported yet");
    let text =
        errors("upstream a { server 127.0.0.1; } upstream A { server 127.0.0.1; } server { listen 127.0.0.1:1; }");
    assert!(text.contains("duplicate upstream \"A\""), "{text}");
}

#[test]
fn whom_to_believe_is_held_to_nginx_s_rules() {
    server_error("set_real_ip_from no.such.invalid;", "host not found in set_real_ip_from \"no.such.invalid\"");
    server_error("set_real_ip_from 10.0.0.0/33;", "host not found in set_real_ip_from \"10.0.0.0/33\"");
    server_error("set_real_ip_from all;", "a network like `10.0.0.0/8`");
    server_error("real_ip_header \"X Real\";", "\"X Real\" cannot be the name of a header field");
    server_error("proxy_protocol v3;", "invalid value \"v3\" in \"proxy_protocol\" directive");
    server_error("real_ip_recursive yes;", "it must be \"on\" or \"off\"");
    server_error("real_ip_header A; real_ip_header B;", "\"real_ip_header\" directive is duplicate");
    let warned = report("set_real_ip_from 10.0.0.1/8; server { listen 127.0.0.1:1; location / { } }");
    assert_eq!(warned.matches("low address bits of 10.0.0.1/8 are meaningless").count(), 1, "{warned}");
}

#[test]
fn source_addresses_are_addresses_and_not_too_many() {
    for (wrong, expected) in [
        ("10.0.0.1 transparent", "CAP_NET_RAW"),
        ("10.0.0.1:0", "no port can be given"),
        ("[::1]:80", "no port can be given"),
        ("10.0.0.256", "invalid address \"10.0.0.256\""),
        ("10.0.0.1 off", "invalid address \"off\""),
        ("10.0.0.1 $server_addr", "one text with variables"),
        ("app.internal", "invalid address"),
        ("10.0.0.0/21", "10.0.0.0/21 has more than 1024 addresses"),
        ("2001:db8::/64", "a longer prefix"),
        ("10.0.0.0/22 10.1.0.1", "1025 source addresses are too many"),
    ] {
        server_error(&format!("proxy_bind {wrong};"), expected);
    }
}

#[test]
fn listens_are_held_to_nginx_s_rules() {
    server_error("listen 127.0.0.1:8080;", "a duplicate listen 127.0.0.1:8080");
    server_error("listen 1 sssl;", "did you mean `ssl`?");
    server_error("listen 1 quic;", "HTTP/3 is not spoken here");
    server_error("listen 70000;", "invalid port in \"70000\"");
    server_error("listen 127.0.0.1:81 ssl;", "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive");
    let two =
        |first: &str, second: &str| errors(&format!("server {{ listen {first}; }} server {{ listen {second}; }}"));
    assert!(two("81 backlog=1", "81 backlog=2").contains("duplicate listen options for 0.0.0.0:81"));
    assert!(two("81 default_server", "*:81 default_server").contains("a duplicate default server for 0.0.0.0:81"));
}

#[test]
fn locations_are_held_to_nginx_s_rules() {
    server_error("location /a {} location /a {}", "duplicate location");
    server_error("location = /a { location /b {} }", "location");
    server_error("location ! /a {}", "invalid location modifier \"!\"");
    server_error("location ~ ( {}", "error");
    server_error("location /a { location @b {} }", "@b");
}

#[test]
fn maps_are_held_to_nginx_s_rules() {
    let map = |inner: &str, expected: &str| {
        let text = errors(&format!("map $host $x {{ {inner} }} server {{ listen 127.0.0.1:1; }}"));
        assert!(text.contains(expected), "{expected} for {inner}, not\n{text}");
    };
    map("a;", "invalid number of the map parameters");
    map("hostname;", "did you mean `hostnames`?");
    map("a 1; a 2;", "conflicting");
    map("a $nothing;", "unknown \"nothing\" variable");
    assert!(errors("map $host x { } server { listen 127.0.0.1:1; }").contains("invalid variable name \"x\""));
}

#[test]
fn a_bad_certificate_is_named_at_its_directive() {
    let text = errors("server { listen 127.0.0.1:1 ssl;\nssl_certificate /gone.crt;\nssl_certificate_key /gone.key; }");
    assert!(text.contains("nginx.conf:2:17") && text.contains("/gone.crt"), "{text}");
    let text = errors("server { listen 127.0.0.1:1 ssl; ssl_certificate /gone.crt; }");
    assert!(text.contains("no \"ssl_certificate_key\" is defined for certificate \"/gone.crt\""), "{text}");
}

#[test]
fn nothing_that_protects_is_ignored() {
    for directive in [
        "allow example.com;",
        "deny 10.0.0.0/33;",
        "auth_basic x;",
        "auth_request /a;",
        "limit_req zone=a;",
        "limit_conn a 1;",
        "satisfy any;",
        "secure_link $arg_a;",
        "valid_referers none;",
        "limit_rate 1k;",
        "modsecurity on;",
        "auth_jwt x;",
        "internal_gadget;",
        "proxy_cookie_flags ~ secure;",
        "if (-f /down) { return 503; }",
        "limit_except GET { deny all; }",
    ] {
        errors(&format!("server {{ listen 127.0.0.1:1; location / {{ {directive} return 200; }} }}"));
    }
    for directive in ["ssl_verify_client on;", "ssl_client_certificate /x;", "ssl_crl /x;", "ssl_ocsp on;"] {
        errors(&format!("server {{ listen 127.0.0.1:1; {directive} }}"));
    }
}

#[test]
fn a_location_has_one_answer() {
    let text = errors("server { listen 127.0.0.1:1; location / { proxy_pass http://127.0.0.1:2; status; } }");
    assert!(text.contains("`status` and `proxy_pass` cannot both answer"), "{text}");
    let text = errors("server { listen 127.0.0.1:1; location / { metrics; stub_status; } }");
    assert!(text.contains("`stub_status` and `metrics` cannot both answer"), "{text}");
}
