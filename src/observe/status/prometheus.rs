//! `metrics`: a status as text for Prometheus.
//!
//! The official client library writes OpenMetrics; its own counters are not used, since ours cost a worker a plain store. Whoever does
//! not ask for OpenMetrics gets the older text format, which differs in the names of a counter's head lines and in the last line.

use std::{collections::HashSet, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet, text,
    },
    metrics::MetricType,
    registry::Registry,
};

use super::{State, Status, UpstreamServer, UpstreamState};

/// A text for Prometheus.
#[derive(Debug)]
pub struct Exposition {
    /// Its Content-Type.
    pub content_type: &'static str,
    /// It.
    pub text: String,
}

/// Every counter and gauge of a status. `openmetrics`: whoever asks accepts `application/openmetrics-text`.
pub fn metrics(status: Status, openmetrics: bool) -> Exposition {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(status)));
    let mut text = String::new();
    // A String takes whatever is written to it.
    let _ = text::encode(&mut text, &registry);
    if openmetrics {
        Exposition { content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8", text }
    } else {
        Exposition { content_type: "text/plain; version=0.0.4; charset=utf-8", text: classic(&text) }
    }
}

/// OpenMetrics in the text format 0.0.4: there a counter's HELP and TYPE have the name of its samples, and there is no EOF.
fn classic(openmetrics: &str) -> String {
    let counter = |line| str::strip_suffix(str::strip_prefix(line, "# TYPE ")?, " counter");
    let counters: HashSet<&str> = openmetrics.lines().filter_map(counter).collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(keyword), Some(name), Some(rest)) if counters.contains(name) => {
                text.extend(["# ", keyword, " ", name, "_total ", rest, "\n"]);
            }
            _ => text.extend([line, "\n"]),
        }
    }
    text
}

#[derive(Debug)]
struct Scrape(Status);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (mut families, status) = (Families(encoder), &self.0);
        families.process(status)?;
        families.clients(status)?;
        families.tunnels(status)?;
        families.workers(status)?;
        families.servers(status)?;
        families.upstreams(status)?;
        families.zones(status)?;
        families.config(status)
    }
}

/// Metric families being written, one after the other.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn process(&mut self, status: &Status) -> fmt::Result {
        let build = [("version", status.version.as_str())];
        self.gauges("longsplice_build_info", "The version that runs.", [(build, 1u64)])?;
        let states = [("serving", State::Serving), ("draining", State::Draining), ("stopping", State::Stopping)];
        let states = states.map(|(name, state)| ([("state", name)], u64::from(status.state == state)));
        self.gauges("longsplice_state", "1 for the state the process is in.", states)?;
        let process = &status.process;
        self.counter("process_cpu_seconds", "CPU time of all threads.", process.cpu_s)?;
        let started = status.started_ms as f64 / 1000.0;
        self.gauge("process_start_time_seconds", "When the process started, as Unix time.", started)?;
        self.gauge("process_open_fds", "File descriptors in use.", status.limits.descriptors.used)?;
        self.gauge("process_max_fds", "File descriptors there are.", status.limits.descriptors.max)?;
        self.gauge("process_resident_memory_bytes", "Memory in RAM.", process.resident_bytes)?;
        self.gauge("process_virtual_memory_bytes", "Address space.", process.virtual_bytes)?;
        let lines = [([("result", "written")], status.log.written), ([("result", "lost")], status.log.lost)];
        self.counters("longsplice_log_lines", "Log lines by whether they were written.", lines)
    }

    fn clients(&mut self, status: &Status) -> fmt::Result {
        let connections = &status.connections;
        self.counter("longsplice_connections_accepted", "Connections accepted.", connections.accepted)?;
        let states = [
            ("reading", connections.reading),
            ("writing", connections.writing),
            ("waiting", connections.waiting),
            ("tunnel", status.tunnels.open),
        ];
        let states = states.map(|(state, count)| ([("state", state)], count));
        self.gauges("longsplice_connections", "Connections of clients by what they are at.", states)?;
        if let Some(limit) = &status.limits.worker_connections {
            let help = "worker_connections of all workers; a tunnel takes two.";
            self.gauge("longsplice_connections_max", help, limit.max)?;
        }
        self.counter("longsplice_accept_errors", "accept4(2) failed: no descriptor, no memory.", status.errors.accept)?;
        let help = "Calls that failed because the host had no descriptor or memory.";
        self.counter("longsplice_shortages", help, status.errors.shortages)?;
        self.counter("longsplice_requests", "Requests answered that became no tunnel.", status.requests)?;
        let reasons = status.refusals.iter().map(|(reason, count)| ([("reason", reason.as_str())], *count));
        self.counters("longsplice_refusals", "Requests refused.", reasons)?;
        let versions = [("TLSv1.2", status.tls.v1_2), ("TLSv1.3", status.tls.v1_3)];
        let versions = versions.map(|(version, count)| ([("version", version)], count));
        self.counters("longsplice_tls_handshakes", "TLS handshakes with clients.", versions)?;
        self.counter("longsplice_tls_resumptions", "Of these, resumed sessions.", status.tls.resumed)?;
        self.counter("longsplice_tls_failures", "TLS handshakes with clients that failed.", status.tls.failed)
    }

    fn tunnels(&mut self, status: &Status) -> fmt::Result {
        let handshakes = &status.handshakes;
        let outcomes = [
            ("upgraded", handshakes.upgraded),
            ("declined", handshakes.declined),
            ("refused", handshakes.refused),
            ("failed", handshakes.failed),
        ];
        let outcomes = outcomes.map(|(outcome, count)| ([("outcome", outcome)], count));
        let help =
            "Upgrade requests: a tunnel, declined by the backend, refused by us, or failed for want of an answer.";
        self.counters("longsplice_handshakes", help, outcomes)?;
        self.handshake_duration(status)?;
        self.gauge("longsplice_tunnels", "Tunnels open.", status.tunnels.open)?;
        self.counter("longsplice_tunnels_opened", "Tunnels opened.", status.tunnels.opened)?;
        let reasons = status.closes.iter().map(|(reason, count)| ([("reason", reason.as_str())], *count));
        self.counters("longsplice_tunnels_closed", "Tunnels that ended.", reasons)?;
        let ways = |of: &super::BothWays| {
            [("from_client", of.from_client), ("from_upstream", of.from_upstream)]
                .map(|(way, count)| ([("direction", way)], count))
        };
        self.counters("longsplice_tunnel_bytes", "Bytes through tunnels, TLS left out.", ways(&status.bytes))?;
        self.counters("longsplice_tunnel_frames", "WebSocket frames through tunnels.", ways(&status.frames))?;
        self.counter("longsplice_panics", "Sessions that ended in a panic: please report it.", status.errors.panics)
    }

    fn handshake_duration(&mut self, status: &Status) -> fmt::Result {
        let latency = &status.handshake_ms;
        let bounds = latency.buckets.iter().map(|bucket| bucket.le.map_or(f64::INFINITY, |le| le / 1000.0));
        let buckets: Vec<_> = bounds.zip(latency.buckets.iter().map(|bucket| bucket.count)).collect();
        let name = "longsplice_handshake_duration_seconds";
        let help = "From an upgrade request's first byte to its 101.";
        self.0.encode_descriptor(name, help, None, MetricType::Histogram)?.encode_histogram::<NoLabelSet>(
            latency.sum / 1000.0,
            latency.count,
            &buckets,
            None,
        )
    }

    fn workers(&mut self, status: &Status) -> fmt::Result {
        let ids: Vec<String> = status.workers.iter().map(|worker| worker.id.to_string()).collect();
        let each = |value: fn(&super::Worker) -> u64| {
            let values: Vec<_> = status.workers.iter().map(value).collect();
            ids.iter().map(|id| [("worker", id.as_str())]).zip(values)
        };
        let cpu = ids.iter().map(|id| [("worker", id.as_str())]).zip(status.workers.iter().map(|worker| worker.cpu_s));
        self.counters("longsplice_worker_cpu_seconds", "CPU time of a worker.", cpu)?;
        self.gauges("longsplice_worker_connections", "Connections of clients.", each(|worker| worker.connections))?;
        self.gauges("longsplice_worker_tunnels", "Tunnels open.", each(|worker| worker.tunnels))?;
        self.counters("longsplice_worker_tunnels_opened", "Tunnels opened.", each(|worker| worker.opened))?;
        self.counters(
            "longsplice_worker_connections_accepted",
            "Connections accepted.",
            each(|worker| worker.accepted),
        )?;
        self.counters("longsplice_worker_requests", "Requests answered.", each(|worker| worker.requests))?;
        let bytes = |worker: &super::Worker| worker.bytes_from_client + worker.bytes_from_upstream;
        self.counters("longsplice_worker_tunnel_bytes", "Bytes through tunnels, both ways.", each(bytes))?;
        let frames = |worker: &super::Worker| worker.frames_from_client + worker.frames_from_upstream;
        self.counters("longsplice_worker_tunnel_frames", "Frames through tunnels, both ways.", each(frames))?;
        let help = "Connections handed to a worker with fewer.";
        self.counters("longsplice_worker_handed_over", help, each(|worker| worker.handed_over))?;
        self.gauges("longsplice_worker_pipes", "Pipes for bulk data, in use or kept.", each(|worker| worker.pipes))?;
        let help = "Of these, pipes in use.";
        self.gauges("longsplice_worker_pipes_in_use", help, each(|worker| worker.pipes_in_use))?;
        let help = "Memory that holds what readers of tunnels have not taken.";
        self.gauges("longsplice_worker_held_bytes", help, each(|worker| worker.held_bytes))?;
        self.gauges("longsplice_worker_timers", "Deadlines on the wheel.", each(|worker| worker.timers))?;
        let help = "Entries of the table of tunnels.";
        self.gauges("longsplice_worker_tunnel_slots", help, each(|worker| worker.tunnel_slots))?;
        let help = "Upgrade requests under way.";
        self.gauges("longsplice_worker_handshakes_pending", help, each(|worker| worker.handshakes_pending))?;
        let help = "Sockets that handshakes, requests and listeners wait for.";
        self.gauges("longsplice_worker_sockets", help, each(|worker| worker.sockets))?;
        let help = "Connections to backends that wait for another request.";
        self.gauges("longsplice_worker_upstream_idle", help, each(|worker| worker.upstream_idle))?;
        let help = "Connections of clients as the other workers count them.";
        self.gauges("longsplice_worker_load", help, each(|worker| worker.load))
    }

    fn servers(&mut self, status: &Status) -> fmt::Result {
        let each = |value: fn(&super::Server) -> u64| {
            status.servers.iter().map(move |server| ([("server", server.name.as_str())], value(server)))
        };
        self.gauges("longsplice_server_tunnels", "Tunnels open.", each(|server| server.tunnels_open))?;
        self.counters("longsplice_server_tunnels_opened", "Tunnels opened.", each(|server| server.tunnels))?;
        self.counters("longsplice_server_requests", "Requests answered.", each(|server| server.requests))
    }

    fn upstreams(&mut self, status: &Status) -> fmt::Result {
        let servers = || {
            status.upstreams.iter().flat_map(|group| {
                group.servers.iter().map(|server| {
                    let labels = [
                        ("upstream", group.name.as_str()),
                        ("server", server.name.as_str()),
                        ("address", server.address.as_str()),
                    ];
                    (labels, server)
                })
            })
        };
        let each = |value: fn(&UpstreamServer) -> u64| servers().map(move |(labels, server)| (labels, value(server)));
        self.gauges("longsplice_upstream_tunnels", "Tunnels open.", each(|server| server.tunnels_open))?;
        self.counters("longsplice_upstream_tunnels_opened", "Tunnels opened.", each(|server| server.tunnels))?;
        let help = "Requests and tunnels that are at it.";
        self.gauges("longsplice_upstream_connections", help, each(|server| server.connections))?;
        let limited = servers().filter(|(_, server)| server.max_conns > 0);
        let limits = limited.map(|(labels, server)| (labels, server.max_conns));
        self.gauges("longsplice_upstream_connections_max", "Its max_conns, where it has one.", limits)?;
        self.counters("longsplice_upstream_requests", "Requests it was asked.", each(|server| server.requests))?;
        self.counters("longsplice_upstream_failures", "Requests it failed.", each(|server| server.fails))?;
        let help = "Connections to it that came to nothing.";
        self.counters("longsplice_upstream_connect_errors", help, each(|server| server.connect_errors))?;
        self.counters("longsplice_upstream_connects", "Connections made to it.", each(|server| server.connects))?;
        let seconds = servers().map(|(labels, server)| (labels, server.connect_s));
        self.counters("longsplice_upstream_connect_seconds", "Time these took, TLS included.", seconds)?;
        let states = [
            ("up", UpstreamState::Up),
            ("down", UpstreamState::Down),
            ("drain", UpstreamState::Drain),
            ("failed", UpstreamState::Failed),
        ];
        let states = servers().flat_map(|([upstream, name, address], server)| {
            states.map(|(label, state)| ([upstream, name, address, ("state", label)], u64::from(server.state == state)))
        });
        self.gauges("longsplice_upstream_state", "1 for the state the server is in.", states)?;
        let ports = &status.limits.ports;
        let pairs = || {
            ports.pairs.iter().map(|pair| {
                let source = pair.source.as_deref().unwrap_or_default();
                ([("source", source), ("address", pair.address.as_str())], pair)
            })
        };
        let help =
            "Connections from an address of proxy_bind (none: the kernel's choice) to a backend's, each a local port.";
        self.gauges("longsplice_upstream_ports_used", help, pairs().map(|(labels, pair)| (labels, pair.used)))?;
        let help = "Local ports there are for them.";
        self.gauges("longsplice_upstream_ports_max", help, pairs().map(|(labels, pair)| (labels, pair.max)))?;
        let help = "Connections between the two addresses that have the most.";
        self.gauge("longsplice_local_ports_used", help, ports.used)?;
        self.gauge("longsplice_local_ports_max", "Local ports there are for any two addresses.", ports.max)
    }

    fn zones(&mut self, status: &Status) -> fmt::Result {
        let each = |value: fn(&super::Zone) -> u64| {
            status.zones.iter().map(move |zone| ([("zone", zone.name.as_str())], value(zone)))
        };
        self.gauges("longsplice_limit_zone_keys", "Keys a zone holds.", each(|zone| zone.keys))?;
        self.gauges("longsplice_limit_zone_keys_max", "Keys a zone can hold.", each(|zone| zone.keys_max))?;
        let connections =
            status.zones.iter().filter_map(|zone| Some(([("zone", zone.name.as_str())], zone.connections?)));
        let help = "Requests and tunnels that have a place in a zone of limit_conn.";
        self.gauges("longsplice_limit_connections", help, connections)?;
        let results = status.zones.iter().flat_map(|zone| {
            [
                ("passed", zone.passed),
                ("rejected", zone.rejected),
                ("delayed", zone.delayed),
                ("rejected_dry_run", zone.rejected_dry_run),
                ("delayed_dry_run", zone.delayed_dry_run),
            ]
            .map(|(result, count)| ([("zone", zone.name.as_str()), ("result", result)], count))
        });
        self.counters("longsplice_limit_zone_requests", "Requests by what a zone made of them.", results)
    }

    fn config(&mut self, status: &Status) -> fmt::Result {
        let config = &status.config;
        self.gauge("longsplice_config_generation", "Number of the present configuration.", config.generation)?;
        let help = "When it was loaded, as Unix time.";
        self.gauge("longsplice_config_loaded_timestamp_seconds", help, config.loaded_ms as f64 / 1000.0)?;
        let help = "Configurations that something is still served by.";
        self.gauge("longsplice_config_generations_alive", help, config.alive.len() as u64)?;
        let results = [([("result", "ok")], config.reloads), ([("result", "failed")], config.reloads_failed)];
        self.counters("longsplice_config_reloads", "Reloads.", results)?;
        let good = u64::from(config.last_error.is_none());
        self.gauge("longsplice_config_last_reload_successful", "0 after a reload that failed.", good)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        self.family((name, help, MetricType::Counter), samples, |mut metric, value| {
            metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        self.family((name, help, MetricType::Gauge), samples, |mut metric, value| metric.encode_gauge(&value))
    }

    /// A family with labels; nothing of it where it has no samples.
    fn family<L: EncodeLabelSet, V>(
        &mut self,
        (name, help, kind): (&str, &str, MetricType),
        samples: impl IntoIterator<Item = (L, V)>,
        encode: impl Fn(MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        samples.try_for_each(|(labels, value)| encode(family.encode_family(&labels)?, value))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    fn status() -> Status {
        let server = UpstreamServer {
            name: "a\"b\\c\nd".into(),
            address: "10.0.0.1:80".into(),
            state: UpstreamState::Failed,
            requests: 7,
            connections: 3,
            max_conns: 5,
            ..UpstreamServer::default()
        };
        let bucket = |le, count| Bucket { le, count };
        Status {
            version: "1.2.3".into(),
            requests: 11,
            closes: [("idle_timeout".to_owned(), 5)].into(),
            workers: vec![super::super::Worker { id: 3, cpu_s: 1.5, ..Default::default() }],
            upstreams: vec![Upstream { name: "app".into(), servers: vec![server] }],
            handshake_ms: Latency::of(vec![bucket(Some(2.5), 3), bucket(None, 1)], 9000.0),
            ..Status::default()
        }
    }

    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn openmetrics_where_it_is_asked_for() {
        let Exposition { content_type, text } = metrics(status(), true);
        assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"), "{content_type}");
        has(
            &text,
            &[
                "# TYPE longsplice_requests counter",
                "longsplice_requests_total 11",
                "longsplice_build_info{version=\"1.2.3\"} 1",
                "longsplice_worker_cpu_seconds_total{worker=\"3\"} 1.5",
                "longsplice_tunnels_closed_total{reason=\"idle_timeout\"} 5",
                "longsplice_handshake_duration_seconds_bucket{le=\"0.0025\"} 3",
                "longsplice_handshake_duration_seconds_bucket{le=\"+Inf\"} 4",
                "longsplice_handshake_duration_seconds_sum 9.0",
            ],
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_older_format_names_a_counter_as_its_samples() {
        let Exposition { content_type, text } = metrics(status(), false);
        assert!(content_type.starts_with("text/plain; version=0.0.4"), "{content_type}");
        has(
            &text,
            &[
                "# HELP longsplice_requests_total Requests answered that became no tunnel.",
                "# TYPE longsplice_requests_total counter",
                "longsplice_requests_total 11",
                "# TYPE longsplice_tunnels gauge",
                "# TYPE longsplice_handshake_duration_seconds histogram",
                "longsplice_upstream_connections_max{upstream=\"app\",server=\"a\\\"b\\\\c\\nd\",address=\"10.0.0.1:80\"} 5",
                "longsplice_upstream_requests_total{upstream=\"app\",server=\"a\\\"b\\\\c\\nd\",address=\"10.0.0.1:80\"} 7",
            ],
        );
        assert!(!text.contains("EOF"), "{text}");
    }

    #[test]
    fn a_family_without_samples_is_not_named() {
        assert!(!metrics(Status::default(), true).text.contains("longsplice_refusals"));
    }
}
