//! nginx's file, which is longsplice's too.

use std::path::Path;

use super::Site;

/// An upgraded connection uses one buffer of `proxy_buffer_size` each way; the other two must follow it.
pub const BUFFERS_64K: &str = "
            proxy_buffer_size 64k;
            proxy_buffers 4 64k;
            proxy_busy_buffers_size 64k;";

/// The file; `more` goes into its location.
pub fn config(site: &Site, more: &str) -> String {
    let Site { dir, plain, tls, certificate, core, workers, descriptors, .. } = site;
    let (dir, chain, key) = (dir.display(), certificate.chain.display(), certificate.key.display());
    let mask = format!("1{}", "0".repeat(*core));
    // Each connection of a tunnel counts; a few descriptors are for listeners, logs and the poller.
    let connections = descriptors.saturating_sub(100);
    let servers: String = site.backends().map(|address| format!("        server {address};\n")).collect();
    format!(
        "daemon off;
worker_processes {workers};
worker_cpu_affinity {mask};
worker_rlimit_nofile {descriptors};
pid {dir}/pid;
error_log {dir}/error.log crit;

events {{
    worker_connections {connections};
    accept_mutex off;
    multi_accept on;
}}

http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {dir}/client_body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;

    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ''      '';
    }}

    upstream backend {{
{servers}        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }}

    server {{
        listen 127.0.0.1:{plain} reuseport backlog=4096;
        listen 127.0.0.1:{tls} ssl reuseport backlog=4096;
        server_name localhost;

        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:10m;

        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;{more}
        }}
    }}
}}
"
    )
}

/// nginx's command line.
pub fn arguments(file: &Path, site: &Site) -> Vec<String> {
    ["-c".into(), file.display().to_string(), "-p".into(), site.dir.display().to_string()].into()
}
