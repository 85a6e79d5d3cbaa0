//! Caddy's file: nothing but the proxy, HTTP/1.1.

use std::path::Path;

use super::Site;

/// One thread for Go, as the others have one worker.
pub const ENVIRONMENT: &[(&str, &str)] = &[("GOMAXPROCS", "1")];

pub fn config(site: &Site) -> String {
    let Site { dir, plain, tls, certificate, .. } = site;
    let (dir, chain, key) = (dir.display(), certificate.chain.display(), certificate.key.display());
    let backends: Vec<String> = site.backends().collect();
    let backends = backends.join(" ");
    format!(
        "{{
    admin off
    persist_config off
    auto_https off
    storage file_system {dir}
    log {{
        level ERROR
    }}
    servers {{
        protocols h1
        timeouts {{
            read_header 60s
            idle 1h
        }}
    }}
}}

(proxy) {{
    bind 127.0.0.1
    reverse_proxy {backends} {{
        lb_policy round_robin
        transport http {{
            compression off
            dial_timeout 60s
            keepalive 1h
            keepalive_idle_conns 1024
            keepalive_idle_conns_per_host 256
        }}
    }}
}}

http://:{plain} {{
    import proxy
}}

https://:{tls} {{
    tls {chain} {key}
    import proxy
}}
"
    )
}

/// In the foreground.
pub fn arguments(file: &Path, _: &Site) -> Vec<String> {
    ["run", "--adapter", "caddyfile", "--config"]
        .map(String::from)
        .into_iter()
        .chain([file.display().to_string()])
        .collect()
}
