//! HAProxy's file: what nginx's does, in its words.

use std::path::Path;

use super::Site;

/// Bulk through pipes, as large as longsplice's.
pub const SPLICE: [&str; 2] =
    ["    tune.pipesize 1048576\n    maxpipes 256\n", "    option splice-request\n    option splice-response\n"];

/// The file; `more` has lines for `global` and for `defaults`.
pub fn config(site: &Site, more: [&str; 2]) -> String {
    let Site { plain, tls, certificate, core, workers, descriptors, .. } = site;
    let certificate = certificate.both.display();
    // Two descriptors a tunnel; HAProxy counts its own and those of all pipes, and does not start if they are too many.
    let tunnels = descriptors.saturating_sub(1000) / 2;
    let servers: String = site.backends().zip(1..).map(|(address, n)| format!("    server s{n} {address}\n")).collect();
    let [global, defaults] = more;
    format!(
        "global
    nbthread {workers}
    cpu-map 1/all {core}
    maxconn {tunnels}
    ulimit-n {descriptors}
{global}
defaults
    mode http
{defaults}    timeout connect 60s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    timeout http-request 60s
    timeout http-keep-alive 1h

frontend front
    bind 127.0.0.1:{plain} backlog 4096
    bind 127.0.0.1:{tls} backlog 4096 ssl crt {certificate} ssl-min-ver TLSv1.2
    maxconn {tunnels}
    option forwardfor
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
    http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
    default_backend back

backend back
    fullconn {tunnels}
    http-reuse aggressive
{servers}"
    )
}

/// In the foreground.
pub fn arguments(file: &Path, _: &Site) -> Vec<String> {
    ["-db".into(), "-f".into(), file.display().to_string()].into()
}
