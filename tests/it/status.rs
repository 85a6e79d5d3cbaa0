//! The status location, its JSON, and what may be done there; `stub_status`.

use serde_json::Value;

use crate::util::{
    Backend, Driver, Ending, Program, Proxy, Response, Wire, beyond_nginx, eventually, external, on_both_drivers,
    ports::Refusing,
};

on_both_drivers![every_count_moves_by_what_was_done, the_tunnels_of_all_workers_are_found];

const PASS: &str = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $http_connection; proxy_set_header Host $host;";

fn site(locations: &str, backend: &Backend, driver: Driver) -> Proxy {
    Proxy::config(&format!(
        "upstream app {{ server %backend%; }}
         server {{ listen %http%; server_name site.example;
             location = /status {{ status; status_admin on; access_log off; }}
             location = /stub {{ stub_status; }}
             location / {{ proxy_pass http://app; {PASS} }}
             {locations}
         }}"
    ))
    .set("backend", backend.address())
    .on(driver)
    .start()
}

/// What the status says now.
fn status(proxy: &Proxy) -> Value {
    let response = proxy.get("/status?json");
    assert_eq!(response.get("Content-Type"), Some("application/json"));
    assert_eq!(response.get("Cache-Control"), Some("no-store"));
    serde_json::from_slice(&response.body).expect("JSON")
}

/// A figure of a status: `tunnels.open`, `workers.0.id`.
#[track_caller]
fn figure(status: &Value, path: &str) -> u64 {
    let pointer = format!("/{}", path.replace('.', "/"));
    status.pointer(&pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {status}"))
}

fn every_count_moves_by_what_was_done(driver: Driver) {
    beyond_nginx!();
    let (backend, plain, refusing) = (Backend::echo(), Backend::named("plain"), Refusing::new());
    let locations = format!(
        "location = /no {{ proxy_pass http://{}; {PASS} }} location = /gone {{ proxy_pass http://{}; {PASS} }}",
        plain.address(),
        refusing.address()
    );
    let proxy = site(&locations, &backend, driver);
    let before = status(&proxy);
    assert_eq!(before["state"], "serving");
    assert_eq!(figure(&before, "pid"), u64::from(proxy.pid()));
    assert_eq!(before["workers"].as_array().map(Vec::len), Some(2));
    let mut tunnels: Vec<Wire> = (0..3).map(|_| proxy.connect()).collect();
    for tunnel in &mut tunnels {
        tunnel.websocket("/ws");
        tunnel.echoes("hello");
        tunnel.echoes("again");
    }
    assert_eq!(proxy.connect().upgrade("/no").status(), 200);
    assert_eq!(proxy.connect().upgrade("/gone").status(), 502);
    let bad = "GET /ws HTTP/1.1\r\nHost: site.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 7\r\n\r\n";
    assert_eq!(proxy.connect().ask(bad).status(), 426);
    assert_eq!(proxy.get("/").status(), 200);
    drop(tunnels.pop());
    assert!(eventually(|| figure(&status(&proxy), "tunnels.closed") == 1));
    let now = status(&proxy);
    for (path, moved) in [
        ("tunnels.opened", 3),
        ("tunnels.open", 2),
        ("handshakes.upgraded", 3),
        ("handshakes.declined", 1),
        ("handshakes.refused", 1),
        ("handshakes.failed", 1),
        ("handshake_ms.count", 3),
        ("frames.from_client", 6),
        ("frames.from_upstream", 6),
        // Two frames of five bytes, with a head of two, and of four more for the client's mask.
        ("bytes.from_upstream", 3 * 2 * 7),
        ("bytes.from_client", 3 * 2 * 11),
    ] {
        assert_eq!(figure(&now, path) - figure(&before, path), moved, "{path}");
    }
    assert_eq!(figure(&now, "refusals.websocket_version"), 1);
    let closes = now["closes"].as_object().expect("reasons");
    assert_eq!(closes.values().filter_map(Value::as_u64).sum::<u64>(), 1, "{closes:?}");
    let server = &now["servers"][0];
    assert_eq!((server["name"].as_str(), figure(server, "tunnels_open")), (Some("site.example"), 2));
    assert!(figure(server, "requests") >= 5 && figure(server, "tunnels") == 3, "{server}");
    let app = &now["upstreams"][0]["servers"][0];
    assert_eq!(app["address"], backend.address().to_string());
    assert_eq!((app["state"].as_str(), figure(app, "tunnels_open"), figure(app, "tunnels")), (Some("up"), 2, 3));
    assert_eq!((figure(app, "requests"), figure(app, "fails"), figure(app, "connects")), (4, 0, 4));
    assert!(app["connect_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{app}");
    let failing = &now["upstreams"][2]["servers"][0];
    assert_eq!((figure(failing, "fails"), figure(failing, "connect_errors"), figure(failing, "connects")), (1, 1, 0));
    let workers = now["workers"].as_array().expect("workers");
    let sum = |name: &str| workers.iter().map(|worker| figure(worker, name)).sum::<u64>();
    assert_eq!((sum("tunnels"), sum("frames_from_client")), (2, 6));
    assert_eq!(sum("accepted"), figure(&now, "connections.accepted"));
    assert!(sum("timers") >= 2, "each tunnel has one: {workers:?}");
    assert_eq!((figure(&now, "config.generation"), figure(&now, "config.alive.0.tunnels")), (1, 2));
    let limits = &now["limits"];
    assert_eq!((figure(limits, "ports.used"), &limits["ports"]["busiest"]), (2, &app["address"]));
    assert!(figure(limits, "descriptors.used") >= 8 && figure(limits, "descriptors.max") > 100, "{limits}");
}

fn the_tunnels_of_all_workers_are_found(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = site("", &backend, driver);
    let mut tunnels: Vec<Wire> = (0..30).map(|_| proxy.connect()).collect();
    for (number, tunnel) in tunnels.iter_mut().enumerate() {
        tunnel.websocket("/ws");
        (0..number).for_each(|_| tunnel.echoes("x"));
    }
    // What was found may be a second old.
    assert!(eventually(|| status(&proxy)["busiest"][0]["frames_from_client"] == 29));
    let now = status(&proxy);
    let (longest, busiest) = (now["longest"].as_array().expect("a list"), now["busiest"].as_array().expect("a list"));
    assert_eq!((longest.len(), busiest.len()), (20, 20));
    assert!(longest.is_sorted_by(|one, other| one["age_s"].as_f64() >= other["age_s"].as_f64()));
    let frames: Vec<_> = busiest.iter().map(|tunnel| figure(tunnel, "frames_from_client")).collect();
    assert_eq!(frames, (10..30).rev().collect::<Vec<_>>());
    let workers: std::collections::HashSet<_> = busiest.iter().map(|tunnel| figure(tunnel, "worker")).collect();
    assert_eq!(workers.len(), 2, "of both");
    let one = &busiest[0];
    let client = tunnels.last().expect("a tunnel").tcp().local_addr().expect("its address").to_string();
    assert_eq!(
        (one["client"].as_str(), one["upstream"].as_str()),
        (Some(client.as_str()), Some(&*backend.address().to_string()))
    );
    assert_eq!(
        (one["server"].as_str(), one["location"].as_str(), one["tls"].as_bool()),
        (Some("site.example"), Some("/"), Some(false))
    );
    assert_eq!((figure(one, "bytes_from_client"), figure(one, "generation")), (29 * 7, 1));
}

/// POSTs to the status location.
fn act(proxy: &Proxy, query: &str, fields: &str) -> Response {
    let host = proxy.http();
    proxy.connect().ask(format!("POST /status?{query} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: 0\r\n\r\n"))
}

const MEANT: &str = "X-Longsplice-Admin: 1\r\n";

#[test]
fn a_tunnel_is_closed_by_its_number() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = site("", &backend, Driver::Epoll);
    let mut tunnels: Vec<Wire> = (0..8).map(|_| proxy.connect()).collect();
    for tunnel in &mut tunnels {
        tunnel.websocket("/ws");
    }
    let client = tunnels[3].tcp().local_addr().expect("its address").to_string();
    let now = status(&proxy);
    let found = now["longest"].as_array().and_then(|list| list.iter().find(|tunnel| tunnel["client"] == client));
    let id = figure(found.expect("the tunnel"), "id");
    let done = act(&proxy, &format!("close={id}"), MEANT);
    assert_eq!((done.status(), done.text().trim()), (202, &*format!("connection {id} is closed")));
    let (opcode, payload) = tunnels[3].frame();
    assert_eq!((opcode, &payload[..2]), (8, 1001u16.to_be_bytes().as_slice()));
    for (number, tunnel) in tunnels.iter_mut().enumerate().filter(|(number, _)| *number != 3) {
        tunnel.echoes(&format!("still here {number}"));
    }
    proxy.logged(&["[notice]", "X-Longsplice-Admin: connection", "is closed", "client: 127.0.0.1"]);
    drop(tunnels.remove(3));
    assert!(eventually(|| status(&proxy)["closes"]["closed_by_admin"] == 1));
    assert_eq!(act(&proxy, "close=999999", MEANT).status(), 404);
}

#[test]
fn what_another_site_could_send_does_nothing() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = site("location = /other { status; }", &backend, Driver::Epoll);
    let mut tunnel = proxy.tunnel("/ws");
    let id = figure(&status(&proxy)["longest"][0], "id");
    let close = format!("close={id}");
    let refused = |fields: &str, reason: &str| {
        assert_eq!(act(&proxy, &close, fields).status(), 403, "{fields}");
        proxy.logged(&["403", reason]);
    };
    refused("", "admin_field");
    refused("X-Longsplice-Admin: 0\r\n", "admin_field");
    refused("X-Longsplice-Admin: 1\r\nOrigin: http://evil.example\r\n", "admin_origin");
    refused("X-Longsplice-Admin: 1\r\nOrigin: null\r\n", "admin_origin");
    refused("X-Longsplice-Admin: 1\r\nSec-Fetch-Site: cross-site\r\n", "admin_origin");
    let rebound = format!("POST /status?{close} HTTP/1.1\r\nHost: evil.example\r\n{MEANT}Content-Length: 0\r\n\r\n");
    assert_eq!(proxy.connect().ask(rebound).status(), 403);
    proxy.logged(&["403 admin_host"]);
    // Where the file does not allow it, there is nothing to do; and a GET does nothing.
    let elsewhere =
        format!("POST /other?{close} HTTP/1.1\r\nHost: {}\r\n{MEANT}Content-Length: 0\r\n\r\n", proxy.http());
    assert_eq!(proxy.connect().ask(elsewhere).status(), 405);
    assert_eq!(proxy.get(&format!("/status?{close}&json")).status(), 200);
    for query in ["close=x", "close=1&drain=a/b", "drain=app/x&percent=101", ""] {
        assert_eq!(act(&proxy, query, MEANT).status(), 400, "{query}");
    }
    assert_eq!(act(&proxy, "drain=app/nobody", MEANT).status(), 404);
    tunnel.echoes("untouched");
    assert_eq!(status(&proxy)["admin"], true);
    let same = format!("X-Longsplice-Admin: 1\r\nOrigin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", proxy.http());
    assert_eq!(act(&proxy, &close, &same).status(), 202);
}

#[test]
fn a_drained_backend_gets_nothing_new_and_its_tunnels_end() {
    beyond_nginx!();
    let (one, other) = (Backend::echo(), Backend::echo());
    let proxy = Proxy::config(&format!(
        "upstream app {{ server %one%; server %other%; }}
         server {{ listen %http%;
             location = /status {{ status; status_admin on; }}
             location / {{ proxy_pass http://app; {PASS} }}
         }}"
    ))
    .set("one", one.address())
    .set("other", other.address())
    .main("drain_timeout 1s; drain_close_code 1012;")
    .start();
    let mut tunnels = proxy.tunnels("/ws", 8);
    assert_eq!((one.connections(), other.connections()), (4, 4));
    // Nothing new, and none of what is there.
    let name = one.address().to_string().replace(':', "%3A");
    let done = act(&proxy, &format!("drain=app%2F{name}&percent=0"), MEANT);
    assert_eq!(done.status(), 202, "{}", done.text());
    tunnels.extend((0..4).map(|_| proxy.tunnel("/ws")));
    assert_eq!((one.connections(), other.connections()), (4, 8));
    tunnels.iter_mut().for_each(|tunnel| tunnel.echoes("all are here"));
    assert_eq!(status(&proxy)["upstreams"][0]["servers"][0]["state"], "drain");
    // And those too, all others live on.
    assert_eq!(act(&proxy, &format!("drain=app/{name}"), MEANT).status(), 202);
    assert!(eventually(|| status(&proxy)["upstreams"][0]["servers"][0]["tunnels_open"] == 0));
    assert_eq!(figure(&status(&proxy), "closes.drain"), 4);
    let codes: Vec<u16> = tunnels
        .iter_mut()
        .filter_map(|tunnel| {
            // Who has gone need not take it.
            let _ = tunnel.try_send(crate::util::frames::client(1, "?"));
            tunnel.closed_with()
        })
        .collect();
    assert_eq!(codes, [1012; 4], "the code that the file says");
    proxy.logged(&["[notice]", "X-Longsplice-Admin: app/", "is drained"]);
    assert_eq!(act(&proxy, &format!("undrain=app/{name}"), MEANT).status(), 200);
    let _back: Vec<Wire> = (0..2).map(|_| proxy.tunnel("/ws")).collect();
    assert_eq!(one.connections(), 5);
}

#[test]
fn the_page_is_sent_whole_and_json_where_it_is_asked_for() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = site("", &backend, Driver::Epoll);
    let page = proxy.get("/status");
    assert_eq!(page.get("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(page.get("Content-Security-Policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    assert!(page.text().ends_with("</html>\n"), "the whole page");
    let json = proxy.connect().ask("GET /status HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n");
    assert_eq!(json.get("Content-Type"), Some("application/json"));
    let mut client = proxy.connect();
    client.send("HEAD /status?json HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.response_to_head();
    assert!(head.get("Content-Length").is_some_and(|length| length.parse::<usize>().is_ok_and(|length| length > 500)));
    assert_eq!(client.get("/status").status(), 200, "the connection goes on");
    assert_eq!(client.ask("DELETE /status HTTP/1.1\r\nHost: a\r\n\r\n").status(), 405);
}

/// `stub_status` after the same traffic: one request and this one, an idle connection, a tunnel.
fn stub(program: Program) -> String {
    let backend = Backend::echo();
    let proxy = Proxy::config(&format!(
        "server {{ listen %http%; location = /stub {{ stub_status; }} location / {{ proxy_pass http://%backend%; {PASS} }} }}"
    ))
    .set("backend", backend.address())
    .main("worker_processes 1;")
    .by(program)
    .start();
    let mut idle = proxy.connect();
    assert_eq!(idle.get("/").status(), 200);
    let mut tunnel = proxy.connect();
    tunnel.websocket("/ws").echoes("x");
    let mut text = String::new();
    let mut client = proxy.connect();
    // The probes of the harness for open ports are connections too, and may be on their way out.
    eventually(|| {
        let response = client.get("/stub");
        assert_eq!(response.get("Content-Type"), Some("text/plain"));
        text = response.text();
        text.starts_with("Active connections: 3 \n")
    });
    assert_eq!(client.ask("POST /stub HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status(), 405);
    assert_ne!(client.ending().1, Ending::Reset);
    text
}

#[test]
fn stub_status_says_what_nginx_says() {
    let shape = |text: &str| {
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        // How often we asked differs.
        (lines[0].to_owned(), lines[1].to_owned(), lines[2].split(' ').count(), lines[3].to_owned())
    };
    let ours = shape(&stub(Program::Longsplice));
    assert_eq!((&*ours.0, &*ours.3), ("Active connections: 3 ", "Reading: 0 Writing: 2 Waiting: 1 "));
    if external("nginx").is_some() {
        assert_eq!(ours, shape(&stub(Program::Nginx)));
    }
}
