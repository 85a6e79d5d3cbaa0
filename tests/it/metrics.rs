//! What Prometheus reads, held against its own tools; the dashboard and the alerts against what there is to read.

use std::{
    collections::HashSet,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use regex::Regex;

use crate::util::{
    Backend, Driver, Proxy, Wire, beyond_nginx, eventually, external, on_both_drivers, ports::Refusing, python_module,
};

on_both_drivers![what_is_scraped_while_traffic_runs_is_well_formed];

const PASS: &str = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $http_connection; proxy_set_header Host $host;";
const OPENMETRICS: &str = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n";

/// A site with everything that is counted, and one of each behind it: tunnels, refusals, failures.
fn site(backend: &Backend, driver: Driver) -> Proxy {
    let gone = Refusing::new();
    let proxy = Proxy::config(&format!(
        "upstream app {{ server %backend%; }}
         limit_conn_zone $arg_few zone=few:1m; limit_req_zone $arg_slow zone=slow:1m rate=1r/m;
         server {{ listen %http%; listen %https% ssl; server_name \"site.example\";
             ssl_certificate %dir%/a.crt; ssl_certificate_key %dir%/a.key;
             location = /metrics {{ metrics; access_log off; }}
             location = /closed {{ deny all; }}
             location = /slow {{ limit_conn few 1; limit_req zone=slow; }}
             location = /gone {{ proxy_pass http://{}; {PASS} }}
             location / {{ proxy_pass http://app; {PASS} }}
         }}",
        gone.address()
    ))
    .certificate("a", &["site.example"])
    .set("backend", backend.address())
    .on(driver)
    .start();
    assert_eq!(proxy.get("/closed").status(), 403);
    assert_eq!(proxy.connect().upgrade("/gone").status(), 502);
    let slow = || proxy.get("/slow?slow=x&few=x").status();
    assert_eq!((slow(), slow()), (404, 503));
    let mut tunnel = proxy.connect();
    tunnel.websocket("/ws").echoes("x");
    let mut tunnel = proxy.connect_tls("site.example");
    tunnel.websocket("/ws").echoes("x");
    proxy
}

fn scrape(proxy: &Proxy, fields: &str) -> String {
    let response = proxy.connect().ask(format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(response.status(), 200);
    let wanted =
        if fields.is_empty() { "text/plain; version=0.0.4" } else { "application/openmetrics-text; version=1.0.0" };
    assert!(response.get("Content-Type").is_some_and(|kind| kind.starts_with(wanted)), "{:?}", response.head);
    response.text()
}

/// The value of a series of a scrape, written as it stands there.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

/// Runs a program with `input`; its output, which must be a success.
#[track_caller]
fn run(command: &mut Command, input: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    let _ = writer.join().expect("written");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

fn what_is_scraped_while_traffic_runs_is_well_formed(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = site(&backend, driver);
    let stop = AtomicBool::new(false);
    let texts: Vec<(String, String)> = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let mut tunnel = proxy.tunnel("/ws");
                    (0..20).for_each(|_| tunnel.echoes("traffic"));
                }
            });
        }
        let texts = (0..20).map(|_| (scrape(&proxy, ""), scrape(&proxy, OPENMETRICS))).collect();
        stop.store(true, Relaxed);
        texts
    });
    let counter = |text: &str| value(text, "longsplice_tunnel_frames_total{direction=\"from_client\"}");
    let counts: Vec<_> = texts.iter().flat_map(|(one, other)| [counter(one), counter(other)]).collect();
    assert!(counts.is_sorted() && counts.first() < counts.last(), "{counts:?}");
    let (classic, openmetrics) = texts.last().expect("some");
    if let Some(promtool) = external("promtool") {
        run(Command::new(promtool).args(["check", "metrics"]), classic);
    }
    if let Some(python) = python_module("prometheus_client") {
        let parse = |module: &str, text: &str| {
            let script = format!(
                "import sys\nfrom prometheus_client.{module} import text_string_to_metric_families\n\
                 print(len(list(text_string_to_metric_families(sys.stdin.read()))))"
            );
            run(Command::new(&python).args(["-c", &script]), text)
        };
        let (families, same) = (parse("parser", classic), parse("openmetrics.parser", openmetrics));
        assert_eq!(families, same);
        assert!(families.trim().parse::<usize>().is_ok_and(|families| families > 40), "{families}");
    }
}

#[test]
fn every_series_moves_by_what_was_done() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = site(&backend, Driver::Epoll);
    assert!(eventually(|| value(&scrape(&proxy, ""), "longsplice_tunnels") == 0.0));
    let tls = crate::util::tls::Client::default();
    // The second comes with the ticket that the first was given.
    let open = || {
        let mut tunnel = crate::util::tls::connect(proxy.address("https"), "site.example", &tls);
        tunnel.websocket("/ws").echoes("x");
        tunnel
    };
    let _tunnels: [Wire; 2] = [open(), open()];
    let text = scrape(&proxy, "");
    let app = format!("upstream=\"app\",server=\"{0}\",address=\"{0}\"", backend.address());
    for (series, expected) in [
        ("longsplice_tunnels", 2.0),
        ("longsplice_tunnels_opened_total", 4.0),
        ("longsplice_connections{state=\"tunnel\"}", 2.0),
        ("longsplice_handshakes_total{outcome=\"upgraded\"}", 4.0),
        ("longsplice_handshakes_total{outcome=\"failed\"}", 1.0),
        ("longsplice_handshake_duration_seconds_count", 4.0),
        ("longsplice_handshake_duration_seconds_bucket{le=\"+Inf\"}", 4.0),
        ("longsplice_refusals_total{reason=\"access_denied\"}", 1.0),
        ("longsplice_refusals_total{reason=\"upstream_connect\"}", 1.0),
        ("longsplice_refusals_total{reason=\"limit_req\"}", 1.0),
        ("longsplice_limit_zone_keys{zone=\"few\"}", 0.0),
        ("longsplice_limit_zone_keys{zone=\"slow\"}", 1.0),
        ("longsplice_limit_zone_keys_max{zone=\"few\"}", 16384.0),
        ("longsplice_limit_zone_keys_max{zone=\"slow\"}", 8192.0),
        ("longsplice_limit_connections{zone=\"few\"}", 0.0),
        ("longsplice_limit_zone_requests_total{zone=\"slow\",result=\"rejected\"}", 1.0),
        ("longsplice_limit_zone_requests_total{zone=\"slow\",result=\"passed\"}", 1.0),
        ("longsplice_limit_zone_requests_total{zone=\"few\",result=\"rejected\"}", 0.0),
        ("longsplice_tls_handshakes_total{version=\"TLSv1.3\"}", 3.0),
        ("longsplice_tls_handshakes_total{version=\"TLSv1.2\"}", 0.0),
        ("longsplice_tls_resumptions_total", 1.0),
        ("longsplice_server_tunnels{server=\"site.example\"}", 2.0),
        ("longsplice_server_tunnels_opened_total{server=\"site.example\"}", 4.0),
        (&format!("longsplice_upstream_tunnels{{{app}}}"), 2.0),
        (&format!("longsplice_upstream_requests_total{{{app}}}"), 4.0),
        (&format!("longsplice_upstream_connects_total{{{app}}}"), 4.0),
        (&format!("longsplice_upstream_state{{{app},state=\"up\"}}"), 1.0),
        (&format!("longsplice_upstream_state{{{app},state=\"failed\"}}"), 0.0),
        ("longsplice_config_generation", 1.0),
        ("longsplice_config_generations_alive", 1.0),
        ("longsplice_local_ports_used", 2.0),
        ("longsplice_log_lines_total{result=\"lost\"}", 0.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    assert!(value(&text, "longsplice_log_lines_total{result=\"written\"}") > 0.0);
    assert!(value(&text, "longsplice_local_ports_max") > 1000.0);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6 && value(&text, "process_open_fds") > 10.0);
}

fn tuning(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name)).expect(name)
}

/// Every query of the dashboard, `$instance` and `$__rate_interval` made what Grafana makes of them.
fn queries_of_the_dashboard() -> Vec<String> {
    let board: serde_json::Value = serde_json::from_str(&tuning("grafana-longsplice.json")).expect("JSON");
    let mut queries = Vec::new();
    collect(&board, &mut queries);
    queries.iter().map(|query| query.replace("$instance", ".*").replace("$__rate_interval", "1m")).collect()
}

fn collect(value: &serde_json::Value, queries: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            queries.extend(fields.get("expr").and_then(|query| query.as_str()).map(str::to_owned));
            fields.values().for_each(|value| collect(value, queries));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, queries)),
        _ => {}
    }
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_what_there_is() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = site(&backend, Driver::Epoll);
    assert!(eventually(|| scrape(&proxy, "").contains("longsplice_tunnels_closed_total")));
    let text = scrape(&proxy, "");
    let series: HashSet<&str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    let names = Regex::new(r"\b(?:longsplice|process)_\w+").expect("a pattern");
    let queries = queries_of_the_dashboard();
    assert!(queries.len() > 30, "{} queries", queries.len());
    let alerts = tuning("prometheus-longsplice.yml");
    let mut asked = HashSet::new();
    for query in queries.iter().chain([&alerts]) {
        asked.extend(names.find_iter(query).map(|name| name.as_str().to_owned()));
    }
    let missing: Vec<_> = asked.iter().filter(|name| !series.contains(name.as_str())).collect();
    assert!(missing.is_empty() && asked.len() > 25, "{missing:?} are not in\n{text}");
    // Their grammar, by Prometheus itself.
    let Some(promtool) = external("promtool") else { return };
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/prometheus-longsplice.yml");
    run(Command::new(&promtool).args(["check", "rules"]).arg(rules), "");
    let records = queries
        .iter()
        .enumerate()
        .map(|(number, query)| serde_json::json!({ "record": format!("q:{number}"), "expr": query }));
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": records.collect::<Vec<_>>() }] });
    let file = proxy.dir().join("dashboard.yml");
    fs::write(&file, groups.to_string()).expect("written");
    run(Command::new(promtool).args(["check", "rules"]).arg(file), "");
}
