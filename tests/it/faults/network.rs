//! Peers that vanish: not a packet comes from them any more, no FIN and no RST either.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::Fault;
use crate::util::{
    Backend, Driver, Elsewhere, Ending, PATIENCE, Proxy, Wire, beyond_nginx, eventually, frames, on_both_drivers,
    tls::{self, Client, Server},
};

on_both_drivers![clients_that_vanish, backends_that_vanish, a_backend_that_is_not_there];

/// Each test's own network.
fn elsewhere(test: u8, driver: Driver) -> Option<Elsewhere> {
    Elsewhere::new(test * 2 + u8::from(driver == Driver::IoUring))
}

/// Clients at all that they may be at: in their TLS handshake, in a head, waiting for an answer, taking a body, in a tunnel that is
/// quiet, and in one that is not.
fn clients_that_vanish(driver: Driver) {
    beyond_nginx!();
    let Some(elsewhere) = elsewhere(5, driver) else { return };
    let (sender, backends) = mpsc::channel();
    let backend = Backend::serve(move |mut wire, _| {
        let head = wire.head();
        match head.target() {
            "/silent" => drop(wire.ending()),
            "/body" => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
                while wire.try_send(vec![7; 1 << 20]).is_ok() {}
            }
            _ => {
                wire.send(frames::switching(&head));
                let _ = sender.send(wire);
            }
        }
    });
    let text = format!(
        "log_format reasons '$status $close_reason'; access_log %dir%/reasons.log reasons;
         tcp_user_timeout 2s;
         server {{ listen {0}:19731 so_keepalive=1s:1s:2; listen {0}:19732 ssl so_keepalive=1s:1s:2;
             ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key; location / {{ proxy_pass http://%backend%; }} }}",
        elsewhere.ours
    );
    let setup = Proxy::config(&text).certificate("x", &["x"]).set("backend", backend.address());
    let proxy = setup.watched().on(driver).start();
    proxy.logged(&["ready:"]);
    let fault = Fault::at(proxy);
    let client = |tls: bool| match tls {
        true => elsewhere.within(|| tls::connect(elsewhere.here(19732), "x", &Client::default())),
        false => elsewhere.within(|| Wire::connect(elsewhere.here(19731))),
    };
    let tunnel = |tls: bool| {
        let mut client = client(tls);
        client.websocket("/");
        (client, backends.recv_timeout(PATIENCE).expect("the backend's end"))
    };
    let mut tunnels = [false, false, true, true].map(tunnel);
    let mut others: Vec<Wire> = Vec::new();
    for tls in [false, true] {
        for request in
            ["GET / HTTP/1.1\r\nHo", "GET /silent HTTP/1.1\r\nHost: x\r\n\r\n", "GET /body HTTP/1.1\r\nHost: x\r\n\r\n"]
        {
            let mut client = client(tls);
            client.send(request);
            others.push(client);
        }
    }
    let mut hello = elsewhere.within(|| Wire::connect(elsewhere.here(19732)));
    hello.send([22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3]);
    assert!(eventually(|| backend.connections() == 8), "{}", backend.connections());
    fault.is_reading(3);
    elsewhere.vanish();
    let start = Instant::now();
    // One of two is spoken to: for the other, probes find out.
    for (_, server) in tunnels.iter_mut().step_by(2) {
        server.send(frames::server(frames::TEXT, "anybody there?"));
    }
    for (_, server) in &mut tunnels {
        assert_eq!(server.ending().1, Ending::Reset);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    fault.happened(4, "(client_lost)", "101 client_lost", "longsplice_tunnels_closed_total", "client_lost");
    // What the kernel said of the connection is said, and not that its client closed it.
    assert_eq!(fault.log_has("reading a request head failed (110: Connection timed out)"), 2, "{}", fault.proxy.log());
    assert_eq!(fault.log_has("TLS handshake failed (110: Connection timed out)"), 1);
    assert_eq!(fault.log_has("499 client_closed"), 2);
    assert_eq!(fault.log_has("the client closed before the response was complete"), 2);
    drop((others, hello));
}

/// Backends in the same places.
fn backends_that_vanish(driver: Driver) {
    beyond_nginx!();
    let Some(elsewhere) = elsewhere(6, driver) else { return };
    let (sender, backends) = mpsc::channel();
    let serve = move |mut wire: Wire| {
        let head = wire.head();
        match head.target() {
            "/silent" => drop(wire.ending()),
            "/body" => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                drop(wire.ending());
            }
            _ => {
                wire.send(frames::switching(&head));
                let _ = sender.send(wire);
            }
        }
    };
    let over_tls = serve.clone();
    let server = Server::new(&["x"]);
    let backend = elsewhere.within(|| Backend::serve_at(elsewhere.there(19733), move |wire, _| serve(wire)));
    let tls_backend = elsewhere.within(|| {
        Backend::serve_at(elsewhere.there(19734), move |wire, _| {
            let socket = wire.tcp().try_clone().expect("a second handle");
            over_tls(server.accept(socket).expect("a handshake").0);
        })
    });
    let text = "log_format reasons '$status $close_reason'; access_log %dir%/reasons.log reasons;
         tcp_user_timeout 2s; proxy_read_timeout 4s; websocket_timeout 4s; proxy_connect_timeout 4s;
         server { listen %http%; location / { proxy_pass http://%backend%; } }
         server { listen %other%; location / { proxy_pass https://%tls%; } }";
    let setup = Proxy::config(text).set("backend", backend.address()).set("tls", tls_backend.address());
    let fault = Fault::at(setup.watched().on(driver).start());
    let addresses = [fault.proxy.http(), fault.proxy.address("other")];
    let mut tunnels = Vec::new();
    let (mut others, mut uploads) = (Vec::new(), Vec::new());
    for address in addresses {
        let mut upload = Wire::connect(address);
        upload.send("POST /silent HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nit");
        uploads.push(upload);
        for _ in 0..2 {
            let mut client = Wire::connect(address);
            client.websocket("/");
            tunnels.push((client, backends.recv_timeout(PATIENCE).expect("the backend's end")));
        }
        for target in ["/silent", "/body"] {
            let mut client = Wire::connect(address);
            client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
            others.push(client);
        }
    }
    assert!(eventually(|| backend.connections() == 5 && tls_backend.connections() == 5));
    for body in [1, 3] {
        assert_eq!(others[body].head().status(), 200);
    }
    elsewhere.is_settled();
    elsewhere.vanish();
    for (client, _) in tunnels.iter_mut().step_by(2) {
        client.send(frames::client(frames::TEXT, "anybody there?"));
    }
    for upload in &mut uploads {
        upload.send("goes on");
    }
    for (number, (client, _)) in tunnels.iter_mut().enumerate() {
        // One that nobody speaks to comes to its idle time before the probes do.
        let expected = if number % 2 == 0 { Ending::Reset } else { Ending::Closed };
        assert_eq!(client.ending().1, expected, "{number}");
    }
    for silent in [0, 2] {
        assert_eq!(others[silent].response().status(), 504);
        assert_ne!(others[silent + 1].ending().1, Ending::Open, "an answer that broke off");
    }
    for upload in &mut uploads {
        assert_eq!(upload.response().status(), 502);
    }
    drop((tunnels, others, uploads));
    fault.happened(2, "502 upstream_lost", "502 upstream_lost", "longsplice_refusals_total", "upstream_lost");
    fault.happened(2, "(upstream_lost)", "101 upstream_lost", "longsplice_tunnels_closed_total", "upstream_lost");
    fault.happened(2, "(idle_timeout)", "101 idle_timeout", "longsplice_tunnels_closed_total", "idle_timeout");
    // Those that were never answered, and those whose answer broke off.
    assert_eq!(fault.figure("longsplice_refusals_total{reason=\"upstream_read_timeout\"}"), 4);
    assert_eq!(fault.log_has("upstream timed out (110: Connection timed out) while reading upstream"), 2);
}

/// No answer to a SYN, nor within the backend's TLS handshake.
fn a_backend_that_is_not_there(driver: Driver) {
    beyond_nginx!();
    let Some(elsewhere) = elsewhere(7, driver) else { return };
    let text = format!(
        "log_format reasons '$status $close_reason'; access_log %dir%/reasons.log reasons; proxy_connect_timeout 1s;
         server {{ listen %http%; location / {{ proxy_pass http://{}; }} location /tls/ {{ proxy_pass https://%silent%; }} }}",
        elsewhere.there(19735)
    );
    let silent = Backend::silent();
    let fault = Fault::at(Proxy::config(&text).set("silent", silent.address()).watched().on(driver).start());
    elsewhere.vanish();
    let mut clients = ["/", "/tls/"].map(|target| {
        let mut client = fault.proxy.connect();
        client.send(frames::request(target, "x"));
        client
    });
    for client in &mut clients {
        assert_eq!(client.response().status(), 504);
    }
    // One whose client does not wait for the end of it.
    let mut hasty = fault.proxy.connect();
    hasty.send(frames::request("/", "x"));
    thread::sleep(Duration::from_millis(100));
    drop((hasty, clients));
    let timeout = "504 upstream_connect_timeout";
    fault.happened(2, timeout, timeout, "longsplice_refusals_total", "upstream_connect_timeout");
    fault.happened(1, "499 client_closed", "499 client_closed", "longsplice_refusals_total", "client_closed");
}
