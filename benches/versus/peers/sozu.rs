//! sozu's file: one worker process.

use std::path::Path;

use super::Site;

pub fn config(site: &Site) -> String {
    let Site { dir, plain, tls, certificate, workers, descriptors, .. } = site;
    let (dir, chain, key) = (dir.display(), certificate.chain.display(), certificate.key.display());
    let backends: Vec<String> = site.backends().map(|address| format!("{{ address = \"{address}\" }}")).collect();
    let backends = backends.join(", ");
    let tunnels = descriptors.saturating_sub(1000) / 2;
    format!(
        "command_socket = \"{dir}/sock\"
log_level = \"error\"
log_target = \"stdout\"
worker_count = {workers}
worker_automatic_restart = false
max_connections = {tunnels}
max_buffers = {descriptors}
activate_listeners = true

[[listeners]]
protocol = \"http\"
address = \"127.0.0.1:{plain}\"

[[listeners]]
protocol = \"https\"
address = \"127.0.0.1:{tls}\"
tls_versions = [\"TLS_V12\", \"TLS_V13\"]
alpn_protocols = [\"http/1.1\"]
send_tls13_tickets = 2

[clusters.backend]
protocol = \"http\"
load_balancing = \"ROUND_ROBIN\"
frontends = [
  {{ address = \"127.0.0.1:{plain}\", hostname = \"localhost\" }},
  {{ address = \"127.0.0.1:{tls}\", hostname = \"localhost\", certificate = \"{chain}\", certificate_chain = \"{chain}\", key = \"{key}\" }},
]
backends = [{backends}]
"
    )
}

/// In the foreground.
pub fn arguments(file: &Path, _: &Site) -> Vec<String> {
    ["start".into(), "-c".into(), file.display().to_string()].into()
}
