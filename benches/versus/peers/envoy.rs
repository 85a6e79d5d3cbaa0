//! Envoy's file: two listeners, one route, limits out of the way.

use std::path::Path;

use super::Site;

pub fn config(site: &Site) -> String {
    let Site { plain, tls, certificate, .. } = site;
    let (chain, key) = (certificate.chain.display(), certificate.key.display());
    let secure = format!(
        "
      transport_socket:
        name: tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_params: {{tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}}
            tls_certificates:
            - certificate_chain: {{filename: {chain}}}
              private_key: {{filename: {key}}}"
    );
    let endpoints: String = site.backends().filter_map(|address| Some(endpoint(address.split_once(':')?))).collect();
    format!(
        "static_resources:
  listeners:{}{}
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 60s
    lb_policy: ROUND_ROBIN
    circuit_breakers:
      thresholds:
      - {{max_connections: 1000000, max_pending_requests: 1000000, max_requests: 1000000}}
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:{endpoints}
",
        listener("plain", *plain, ""),
        listener("tls", *tls, &secure)
    )
}

fn listener(name: &str, port: u16, transport: &str) -> String {
    format!(
        "
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    enable_reuse_port: true
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          codec_type: HTTP1
          generate_request_id: false
          use_remote_address: true
          stream_idle_timeout: 3600s
          common_http_protocol_options: {{idle_timeout: 3600s}}
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: backend, timeout: 0s}}}}]
          http_filters:
          - name: router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true{transport}"
    )
}

fn endpoint((address, port): (&str, &str)) -> String {
    format!("\n        - endpoint: {{address: {{socket_address: {{address: {address}, port_value: {port}}}}}}}")
}

/// In the foreground, one worker thread, quiet.
pub fn arguments(file: &Path, site: &Site) -> Vec<String> {
    let (file, workers) = (file.display().to_string(), site.workers.to_string());
    ["-c", &file, "--concurrency", &workers, "--disable-hot-restart", "-l", "error"].map(String::from).into()
}
