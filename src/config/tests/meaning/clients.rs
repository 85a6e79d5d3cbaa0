//! Of addresses, certificates, and who clients are and may be.

use super::*;
use crate::route::{
    access::{self, Whom},
    real_ip::{RealIp, RealIpHeader},
};

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

fn config_of_real_ip(directives: &str) -> RealIp {
    server(directives).servers[0].settings.real_ip.clone().expect("somebody")
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
