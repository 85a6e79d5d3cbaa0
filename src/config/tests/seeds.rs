//! The two documents whose files must run, and both distributions' own.

use std::{fs, time::Duration};

use super::*;
use crate::config::{Content, ListenAddress, ProxyTarget};

const WEBSOCKET_CONF: &str = "map $http_upgrade $connection_upgrade {
default upgrade;
'' close;
}
server {
listen 80;
server_name ws.example.com;
location /ws/ {
proxy_pass http://127.0.0.1:3000;
proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $connection_upgrade;
proxy_set_header Host $host;
proxy_set_header X-Real-IP $remote_addr;
proxy_cache_bypass $http_upgrade;
TIMEOUTS
}
}
";

const WEBSOCKET_SSL_CONF: &str = "server {
listen 443 ssl;
server_name ws.example.com;
ssl_certificate DIR/server.crt;
ssl_certificate_key DIR/server.key;
ssl_protocols TLSv1.2 TLSv1.3;
location /ws/ {
proxy_pass http://127.0.0.1:3000;
proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection \"upgrade\";
proxy_set_header Host $host;
proxy_read_timeout 3600s;
proxy_send_timeout 3600s;
}
}
";

const BALANCED: &str = "http {
    map $http_upgrade $connection_upgrade {
        default upgrade;
        ''      close;
    }
    upstream websocket {
        server 192.168.100.10:8010;
        server 192.168.100.11:8010;
        server 192.168.100.12:8010;
    }
    server {
        listen 80;
        server_name api.example.com;
        location / {
            proxy_pass http://websocket;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $host;
        }
    }
}
";

const WSS: &str = "server {
    listen 443 ssl;
    server_name api.example.com;

    ssl_certificate DIR/server.crt;
    ssl_certificate_key DIR/server.key;
    ssl_session_timeout 5m;
    ssl_session_cache shared:SSL:50m;
    ssl_protocols TLSv1 TLSv1.1 TLSv1.2;
    ssl_ciphers HIGH:!aNULL:!MD5;

    location /wss {
        proxy_pass http://127.0.0.1:8282;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection \"Upgrade\";
        proxy_set_header X-Real-IP $remote_addr;
    }
}
";

/// The shape of RHEL's file.
const RHEL: &str = r#"# For more information on configuration, see the official documentation.
user nginx;
worker_processes auto;
error_log /var/log/nginx/error.log;
pid /run/nginx.pid;

# Load dynamic modules.
include DIR/modules/*.conf;

events {
    worker_connections 1024;
}

http {
    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '$status $body_bytes_sent "$http_referer" '
                      '"$http_user_agent" "$http_x_forwarded_for"';

    access_log  /var/log/nginx/access.log  main;

    sendfile            on;
    tcp_nopush          on;
    tcp_nodelay         on;
    keepalive_timeout   65;
    types_hash_max_size 2048;

    include             DIR/mime.types;
    default_type        application/octet-stream;

    include DIR/conf.d/*.conf;

    server {
        listen       80 default_server;
        listen       [::]:80 default_server;
        server_name  _;
        root         /usr/share/nginx/html;

        include DIR/default.d/*.conf;

        location / {
        }

        error_page 404 /404.html;
            location = /40x.html {
        }

        error_page 500 502 503 504 /50x.html;
            location = /50x.html {
        }
    }
}
"#;

#[test]
fn the_first_seed_runs_as_written() {
    let config = config(&WEBSOCKET_CONF.replace("TIMEOUTS", ""));
    assert_eq!(config.servers.len(), 1);
    assert_eq!(&*config.servers[0].name, "ws.example.com");
    assert_eq!(config.listeners[0].address, ListenAddress::Tcp(([0, 0, 0, 0], 80).into()));
    let settings = &location(&config, "/ws/chat").settings;
    let headers: Vec<_> =
        settings.set_headers.iter().map(|(name, value)| format!("{name}={}", written(value))).collect();
    assert_eq!(
        headers,
        [
            "Upgrade=<RequestField(\"upgrade\")>",
            "Connection=<Map(0)>",
            "Host=<Known(Host)>",
            "X-Real-IP=<Known(RemoteAddr)>"
        ]
    );
    assert_eq!(settings.tunnel_timeout, Duration::from_secs(3600), "no timeout in the file: an hour");
    let value = config.maps[0].find(b"websocket").expect("a value").value;
    assert_eq!(value.constant(), Some(b"upgrade".as_slice()));
    assert_eq!(config.maps[0].find(b"").expect("a value").value.constant(), Some(b"close".as_slice()));
}

#[test]
fn the_first_seed_runs_with_its_timeouts_inserted() {
    let timeouts = "proxy_read_timeout 3600s;\nproxy_send_timeout 3600s;\nkeepalive_timeout 3600s;";
    let config = config(&WEBSOCKET_CONF.replace("TIMEOUTS", timeouts));
    let settings = &location(&config, "/ws/").settings;
    assert_eq!(settings.read_timeout, Duration::from_secs(3600));
    assert_eq!(settings.send_timeout, Duration::from_secs(3600));
}

#[test]
fn the_line_the_first_seed_s_sed_glues_is_an_error_that_says_so() {
    let text = errors(&WEBSOCKET_CONF.replace("TIMEOUTS", "proxy_read_timeout 3600s;n proxy_send_timeout 3600s;"));
    assert!(text.contains("unknown directive \"n\""), "{text}");
    assert!(text.contains("write instead: `proxy_send_timeout 3600s;`"), "{text}");
    assert!(text.contains("nginx.conf:16:26"), "{text}");
}

#[test]
fn both_tls_servers_of_the_seeds_run_as_written() {
    let directory = with_certificate();
    for text in [WEBSOCKET_SSL_CONF, WSS] {
        let loaded = load_text(&text.replace("DIR/", ""), directory.path());
        let report = loaded.report.render(false, false);
        let config = loaded.config.unwrap_or_else(|| panic!("{report}"));
        assert!(config.listeners[0].ssl);
        assert!(config.servers[0].tls.is_some());
        let absolute = text.replace("DIR", &directory.path().display().to_string());
        assert!(load_text(&absolute, Path::new("/nowhere")).config.is_some());
    }
}

#[test]
fn the_balanced_seed_has_three_servers_behind_one_name() {
    let config = config(BALANCED);
    assert_eq!(config.upstreams.len(), 1);
    assert_eq!(config.upstreams[0].servers.len(), 3);
    let Content::Proxy(pass) = &location(&config, "/any").content else { panic!("a proxy") };
    assert!(matches!(&pass.target, ProxyTarget::Upstream(0, host) if &**host == "websocket"));
}

#[test]
fn the_seeds_together_are_a_conf_d_of_rhel_s_file() {
    let directory = with_certificate();
    let path = directory.path();
    let dir = path.display().to_string();
    for sub in ["conf.d", "default.d", "modules"] {
        fs::create_dir(path.join(sub)).expect("a directory");
    }
    fs::write(path.join("mime.types"), "types {\n  text/html html htm;\n  image/png png;\n}\n").expect("written");
    fs::write(path.join("conf.d/websocket.conf"), WEBSOCKET_CONF.replace("TIMEOUTS", "")).expect("written");
    fs::write(path.join("conf.d/websocket-ssl.conf"), WEBSOCKET_SSL_CONF.replace("DIR", &dir)).expect("written");
    fs::write(path.join("nginx.conf"), RHEL.replace("DIR", &dir)).expect("written");
    let loaded = load_file(path.join("nginx.conf"), path);
    let report = loaded.report.render(false, true);
    let config = loaded.config.unwrap_or_else(|| panic!("{report}"));
    assert_eq!(config.servers.len(), 3);
    assert_eq!(config.listeners.len(), 3, "80, [::]:80 and 443");
    let port_80 = config.listeners.iter().find(|listener| listener.servers.len() == 2).expect("a shared address");
    assert_eq!(port_80.default, 2, "default_server wins over the first");
    assert_eq!(config.main.worker_connections, Some(1024));
    assert_eq!(loaded.files.len(), 4);
    assert!(report.contains("`types` has no effect"), "{report}");
    assert!(report.contains("`sendfile` has no effect"), "{report}");
}

#[test]
fn debian_s_file_loads_where_it_is_installed() {
    let file = PathBuf::from("/etc/nginx/nginx.conf");
    if !file.exists() {
        assert!(std::env::var_os("CI").is_none(), "nginx is missing: install it, CI reads its file");
        eprintln!("skipped: {} is not there", file.display());
        return;
    }
    let loaded = load_file(file, Path::new("/usr/share/nginx"));
    let report = loaded.report.render(false, true);
    assert!(loaded.config.is_some(), "{report}");
    assert!(loaded.files.len() >= 3, "mime.types and sites-enabled are read");
}
