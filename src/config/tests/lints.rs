//! What `-t` says of a file that works.

use super::*;

#[test]
fn the_seed_s_surprises_are_all_named() {
    let directory = with_certificate();
    let text = "map $http_upgrade $connection_upgrade { default upgrade; '' close; }
        server {
            listen 443 ssl;
            ssl_certificate server.crt;
            ssl_certificate_key server.key;
            ssl_protocols TLSv1 TLSv1.1 TLSv1.2;
            location /wss {
                proxy_pass http://127.0.0.1:8282;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection \"Upgrade\";
                proxy_set_header X-Real-IP $remote_addr;
                keepalive_timeout 3600s;
            }
        }";
    let loaded = load_text(text, directory.path());
    assert!(loaded.config.is_some(), "warnings are no errors");
    let text = loaded.report.render(false, false);
    for expected in [
        "TLSv1 is not offered",
        "TLSv1.1 is not offered",
        "`'' close` closes the backend's connection",
        "no Host is set",
        "X-Real-IP without X-Forwarded-For",
        "a constant `Connection: upgrade`",
        "no timeout is set for this WebSocket",
        "Origin is not checked",
        "`location /wss` also takes /wssfoo",
        "`keepalive_timeout` is how long a connection waits",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}

#[test]
fn a_careful_file_has_no_warning() {
    let loaded = load_text(
        "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
         upstream app { server 127.0.0.1:3000; }
         server {
             listen 127.0.0.1:8080;
             location /ws/ {
                 proxy_pass http://app;
                 proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Connection $connection_upgrade;
                 proxy_set_header Host $host;
                 proxy_set_header X-Real-IP $remote_addr;
                 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                 proxy_read_timeout 1h;
                 websocket_origin same;
             }
         }",
        Path::new("/nowhere"),
    );
    assert_eq!(loaded.report.warnings(), 0, "{}", loaded.report.render(false, false));
}

#[test]
fn an_origin_check_by_hand_counts() {
    let of = |check: &str| {
        report(&format!(
            "server {{ listen 127.0.0.1:1; location /ws/ {{ {check} proxy_pass http://127.0.0.1:1; \
             proxy_set_header Upgrade $http_upgrade; }} }}"
        ))
    };
    assert!(of("").contains("Origin is not checked"));
    assert!(!of("if ($http_origin !~ ^https://a$) { return 403; }").contains("Origin is not checked"));
}

#[test]
fn a_named_location_that_is_not_there_is_missed() {
    let text = report(
        "server { listen 127.0.0.1:1; error_page 500 @dwon; location / { try_files $uri @app; } location @down {} location @app {} }",
    );
    assert!(text.contains("there is no `location @dwon`") && text.contains("did you mean `@down`?"), "{text}");
    assert!(!text.contains("there is no `location @app`"), "{text}");
}

#[test]
fn variables_and_tls_of_proxy_pass_are_looked_at() {
    let of = |inner: &str| report(&format!("server {{ listen 127.0.0.1:1; location / {{ {inner} }} }}"));
    assert!(of("proxy_pass http://$arg_x;").contains("without `resolver`"));
    assert!(!of("resolver 127.0.0.1; proxy_pass http://$arg_x;").contains("without `resolver`"));
    assert!(!of("proxy_pass http://127.0.0.1:1$request_uri;").contains("without `resolver`"));
    assert!(of("proxy_pass https://127.0.0.1:1;").contains("certificate is not verified"));
    assert!(!of("proxy_ssl_verify on; proxy_pass https://127.0.0.1:1;").contains("certificate is not verified"));
}

#[test]
fn rules_that_do_not_do_what_they_seem_to_are_named() {
    let of = |inner: &str| report(&format!("server {{ listen 127.0.0.1:1; location / {{ {inner} return 200; }} }}"));
    assert!(of("allow 10.0.0.0/8;").contains("keeps nobody out"));
    assert!(!of("allow 10.0.0.0/8; deny all;").contains("keeps nobody out"));
    let text = of("deny 10.0.0.1/8;");
    assert!(text.contains("low address bits of 10.0.0.1/8 are meaningless") && text.contains("10.0.0.0/8"), "{text}");
}

#[test]
fn figures_that_everybody_can_see_are_named() {
    let of = |listen: &str, inner: &str| {
        report(&format!("server {{ listen {listen}; location = /s {{ {inner} }} }}"))
            .contains("is shown to whoever asks")
    };
    assert!(of("8080", "status;") && of("0.0.0.0:8080", "metrics;") && of("[::]:80", "stub_status;"));
    assert!(!of("8080", "allow 127.0.0.1; deny all; status;"));
    assert!(!of("127.0.0.1:8080", "status;") && !of("unix:/run/x.sock", "metrics;") && !of("[::1]:80", "status;"));
    assert!(!of("8080", "return 200;"));
}

/// What `-t` says of directives around a server that listens so.
fn of_addresses(http: &str, listen: &str) -> String {
    report(&format!("{http} server {{ listen {listen}; location / {{ return 204; }} }}"))
}

#[test]
fn who_is_believed_is_neither_everybody_nor_nobody() {
    for everybody in ["0.0.0.0/0", "::/0"] {
        let text = of_addresses(&format!("set_real_ip_from {everybody};"), "127.0.0.1:1");
        assert!(text.contains("everybody is believed"), "{text}");
    }
    for directive in ["real_ip_header X-Forwarded-For;", "real_ip_recursive on;"] {
        let text = of_addresses(directive, "127.0.0.1:1");
        assert!(text.contains("without `set_real_ip_from` has no effect"), "{text}");
    }
    let below = report("real_ip_header X-Client; server { listen 1; location / { set_real_ip_from 10.0.0.1; } }");
    assert!(!below.contains("has no effect: nobody"), "{below}");
    let good = of_addresses("set_real_ip_from 10.0.0.0/8; real_ip_header X-Forwarded-For;", "127.0.0.1:1");
    assert!(!good.contains("believed"), "{good}");
}

#[test]
fn proxy_protocol_is_received_where_it_is_read_and_read_where_it_is_received() {
    let read = "set_real_ip_from 10.0.0.1; real_ip_header proxy_protocol;";
    let text = of_addresses(read, "127.0.0.1:1");
    assert!(text.contains("no `listen` of this file has `proxy_protocol`"), "{text}");
    let text = of_addresses("", "127.0.0.1:1 proxy_protocol");
    assert!(text.contains("nothing reads what the PROXY protocol header says"), "{text}");
    for reader in [read, "log_format a '$proxy_protocol_addr'; access_log /dev/stdout a;"] {
        let text = of_addresses(reader, "127.0.0.1:1 proxy_protocol");
        assert!(!text.contains("warning"), "{text}");
    }
}
