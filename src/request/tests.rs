//! Requests and configurations made by hand.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::*;
use crate::{
    config::{
        BackendAddress, Content, Driver, Level, LimitConn, LimitReq, ListenAddress, ListenOptions, Main, NextUpstream,
        ProxyPass, ProxyTarget, Sandbox, Upstream, UpstreamServer,
    },
    http::head::HeadLimits,
    route::{location::Locations, map::Map, rewrite::Script, server_name::ServerNames},
    tls::{BackendTls, BackendTlsOptions},
    websocket::handshake::Protocols,
};

/// nginx's defaults.
pub(crate) fn settings() -> Settings {
    let minute = Duration::from_secs(60);
    let backend_tls = BackendTlsOptions { tls12: true, tls13: true, ..BackendTlsOptions::default() };
    Settings {
        set_headers: Vec::new(),
        proxy_http_10: false,
        proxy_protocol: None,
        connect_timeout: minute,
        read_timeout: minute,
        send_timeout: minute,
        tunnel_timeout: minute,
        max_lifetime: Duration::ZERO,
        lifetime_jitter: 0,
        ping: Duration::ZERO,
        client_send_timeout: minute,
        body_timeout: minute,
        keepalive_timeout: minute,
        keepalive_header: None,
        keepalive_requests: 1000,
        max_body_bytes: 1 << 20,
        add_headers: Vec::new(),
        hide_headers: Vec::new(),
        pass_headers: Vec::new(),
        redirects: Vec::new(),
        method: None,
        response_head_bytes: 16 << 10,
        error_pages: Vec::new(),
        intercept_errors: false,
        next_upstream: NextUpstream {
            error: true,
            timeout: true,
            invalid_header: false,
            non_idempotent: false,
            statuses: Vec::new(),
            tries: 0,
            timeout_total: Duration::ZERO,
        },
        access_logs: Vec::new(),
        access_log_interval: Duration::ZERO,
        error_logs: Vec::new(),
        protocols: Protocols::Any,
        origins: None,
        backend_tls: Arc::new(BackendTls::build(&backend_tls).unwrap()),
        backend_tls_name: None,
        server_tokens: true,
        default_type: "text/plain".into(),
        bind: None,
        backend_keepalive: false,
        user_timeout: Duration::ZERO,
        reset_timedout: false,
        access: Vec::new(),
        limit_conn: LimitConn { limits: Vec::new(), status: 503, level: Level::Error, dry_run: false },
        limit_req: LimitReq {
            limits: Vec::new(),
            status: 503,
            level: Level::Error,
            delay_level: Level::Warn,
            dry_run: false,
        },
        real_ip: None,
    }
}

pub(crate) fn server(name: &str) -> Server {
    Server {
        name: name.into(),
        place: "test:1".into(),
        head: HeadLimits {
            line_bytes: 8 << 10,
            head_bytes: 32 << 10,
            fields: 100,
            underscores: false,
            merge_slashes: true,
        },
        header_timeout: Duration::from_secs(60),
        tls: None,
        script: Script::default(),
        routes: Locations::default(),
        locations: Vec::new(),
        settings: Arc::new(settings()),
    }
}

pub(crate) fn location(name: &str) -> Location {
    Location {
        name: name.into(),
        internal: false,
        script: Script::default(),
        content: proxy(),
        settings: Arc::new(settings()),
    }
}

pub(crate) fn proxy() -> Content {
    Content::Proxy(ProxyPass { target: ProxyTarget::Upstream(0, "backend".into()), tls: false, uri: None, prefix: 0 })
}

pub(crate) fn config(servers: Vec<Server>, maps: Vec<Map>) -> Config {
    Config {
        main: Main {
            workers: 1,
            affinity: None,
            nofile: None,
            busy_poll: Duration::ZERO,
            worker_connections: None,
            user: None,
            pid: None,
            drain: crate::config::Drain {
                delay: Duration::ZERO,
                window: Duration::ZERO,
                timeout: Duration::ZERO,
                code: 1001,
                on_reload: false,
            },
            daemon: false,
            upgrade_timeout: Duration::from_secs(60),
            driver: Driver::Epoll,
            sandbox: Sandbox::Off,
            error_logs: Vec::new(),
            prefix: PathBuf::new(),
        },
        listeners: Vec::new(),
        servers,
        upstreams: Vec::new(),
        maps,
        slots: (0..4).map(|slot| format!("s{slot}").into()).collect(),
        connection_zones: Vec::new(),
        request_zones: Vec::new(),
        upgrade_rate: None,
        bytes: 0,
    }
}

pub(crate) fn client() -> ClientConnection {
    ClientConnection {
        serial: 7,
        remote: Address::Tcp("192.0.2.1:40000".parse().unwrap()),
        local: Address::Tcp("198.51.100.2:8080".parse().unwrap()),
        proxied: None,
        tls: None,
        accepted: Instant::now(),
    }
}

/// A GET for `target` with these fields, Host first.
pub(crate) fn head(target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let host = fields.iter().find(|(name, _)| *name == "Host").map_or("", |(_, value)| *value);
    RequestHead {
        method: "GET".into(),
        target: target.as_bytes().into(),
        version: Version::Http11,
        fields: Fields::from_pairs(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))),
        host: host.split(':').next().unwrap().to_lowercase().into_bytes().into(),
        authority: host.as_bytes().into(),
        path: path.as_bytes().to_vec(),
        query: query.map(|query| query.as_bytes().into()),
        body: Framing::None,
        keep_alive: true,
        expects_continue: false,
    }
}

pub(crate) fn request(config: Config, head: RequestHead) -> Request {
    let line = [head.method.as_bytes(), b" ", &head.target, b" HTTP/1.1"].concat();
    Request::new(Arc::new(config), Arc::new(client()), 1, 0, head, line, Instant::now())
}

#[test]
fn the_server_is_chosen_by_host_and_stays_where_none_matches() {
    let mut names = ServerNames::default();
    names.insert("~^(?<room>\\w+)\\.chat\\.example$", 1, &mut |_| 2).unwrap();
    let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
    let listener = Listener {
        address: ListenAddress::Tcp(address),
        options: ListenOptions {
            backlog: 511,
            rcvbuf: None,
            sndbuf: None,
            keepalive: None,
            user_timeout: Duration::ZERO,
            ipv6only: true,
            fastopen: None,
            deferred: false,
        },
        ssl: false,
        proxy_protocol: false,
        default: 0,
        names,
        servers: vec![0, 1],
    };
    let two = || config(vec![server("one"), server("two")], Vec::new());
    let mut known = request(two(), head("/", &[("Host", "Blue.chat.example:8080")]));
    known.choose_server(&listener);
    assert_eq!(&*known.server().name, "two");
    assert_eq!(known.captures, [b"blue".to_vec()]);
    assert_eq!(known.slots[2].as_deref(), Some(b"blue".as_slice()));
    let mut unknown = request(two(), head("/", &[("Host", "other.example")]));
    unknown.choose_server(&listener);
    assert_eq!(&*unknown.server().name, "one");
}

#[test]
fn settings_are_the_servers_until_a_location_is_chosen() {
    let mut server = server("x");
    server.locations.push(location("/"));
    let mut request = request(config(vec![server], Vec::new()), head("/", &[]));
    assert!(Arc::ptr_eq(request.settings(), &request.server().settings));
    request.location = Some(0);
    assert!(Arc::ptr_eq(request.settings(), &request.server().locations[0].settings));
}

/// A group of these addresses.
pub(crate) fn upstream(addresses: &[&str]) -> Upstream {
    let server = |address: &&str| UpstreamServer::new(BackendAddress::Ip(address.parse().unwrap()), address);
    Upstream {
        name: "backend".into(),
        place: "test:1:1".into(),
        servers: addresses.iter().map(server).collect(),
        keepalive: None,
        declared: true,
    }
}
