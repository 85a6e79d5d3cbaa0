//! Another configuration into the running process: what takes, what stays, and what must not change anything.

mod certificates;
mod crowd;
mod drained;
mod workers;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use self::crowd::{Stream, all_echo};
use crate::util::{
    Backend, Driver, Proxy, Wire, beyond_nginx, eventually, on_both_drivers, ports, process::finish, proxy::executable,
};

on_both_drivers![reloads_in_a_row_cost_no_tunnel_and_refuse_nobody];

/// Reloads, and waits until configuration `number` is the present one.
#[track_caller]
fn reload(proxy: &mut Proxy, number: usize) -> String {
    proxy.running().signal(Signal::SIGHUP);
    let line = format!("configuration {number} is in use");
    assert!(eventually(|| proxy.log().contains(&line)), "no {line:?} in:\n{}", proxy.log());
    proxy.logged(&[&line])
}

/// Reloads until so many configurations are in use: the last clients may be leaving yet.
#[track_caller]
fn reload_until(proxy: &mut Proxy, number: &mut usize, words: &str) {
    let mut said = String::new();
    let done = eventually(|| {
        *number += 1;
        said = reload(proxy, *number);
        said.contains(words)
    });
    assert!(done, "not {words:?}, but {said}");
}

/// Reloads a file that cannot be used, and returns what is said of it.
#[track_caller]
fn reload_in_vain(proxy: &mut Proxy, words: &[&str]) {
    proxy.running().signal(Signal::SIGHUP);
    proxy.logged(&["[emerg]", "reload failed: nothing was changed"]);
    proxy.logged(words);
}

const LOCATIONS: &str = "location / { proxy_pass http://%backend%; }";

fn answering(text: &str) -> String {
    format!("server {{ listen %http%; {LOCATIONS} location = /version {{ return 200 {text}; }} }}")
}

fn start(text: &str, backend: &Backend) -> Proxy {
    start_as("", text, backend)
}

fn start_as(main: &str, text: &str, backend: &Backend) -> Proxy {
    Proxy::config(text).main(main).set("backend", backend.address()).start()
}

/// Where a test makes files beside the configuration at a reload: the user of the tests may, and `nobody` may not.
const SAME_USER: &str = "user root;";

fn reloads_in_a_row_cost_no_tunnel_and_refuse_nobody(driver: Driver) {
    beyond_nginx!();
    const RELOADS: usize = 500;
    // With 5000 in `LONGSPLICE_TEST_TUNNELS` it takes a minute: for whoever wants to see more.
    let count = std::env::var("LONGSPLICE_TEST_TUNNELS").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000);
    let backend = Backend::echo();
    let mut proxy = Proxy::config(&answering("v1")).set("backend", backend.address()).on(driver).start();
    let mut live = proxy.tunnels("/", count);
    let stream = Stream::start(proxy.http());
    let mut settled = 0;
    for number in 2..=RELOADS + 1 {
        proxy.rewrite("", &answering(&format!("v{number}")));
        reload(&mut proxy, number);
        if number % 100 == 0 {
            all_echo(&mut live, &format!("in {number}"));
        }
        if number == RELOADS / 2 {
            settled = proxy.resident_bytes();
        }
    }
    let clients = stream.end();
    assert!(clients > RELOADS / 10, "{clients} clients in all that time");
    all_echo(&mut live, "at last");
    assert_eq!(proxy.get("/version").text(), format!("v{}", RELOADS + 1));
    let grown = proxy.resident_bytes().saturating_sub(settled);
    assert!(grown < 8 << 20, "{grown} bytes more after {} reloads", RELOADS / 2);
    // The tunnels keep the first configuration, and nothing keeps those between.
    let mut number = RELOADS + 1;
    reload_until(&mut proxy, &mut number, "earlier ones still in use: 1");
    drop(live);
    reload_until(&mut proxy, &mut number, "earlier ones still in use: 0");
}

#[test]
fn what_the_file_says_now_is_done_now() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = start(&answering("old"), &backend);
    let mut kept = proxy.connect();
    assert_eq!(kept.get("/version").text(), "old");
    proxy.rewrite("", &answering("new"));
    reload(&mut proxy, 2);
    assert_eq!(proxy.get("/version").text(), "new");
    // A connection that was kept is served by the new file from its next request on.
    assert_eq!(kept.get("/version").text(), "new");
}

#[test]
fn a_reload_is_ordered_by_the_command_too() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = start(&answering("old"), &backend);
    let file = proxy.rewrite("", &answering("new"));
    let finished = finish(
        std::process::Command::new(executable()).args(["-s", "reload", "-c"]).arg(&file).arg("-p").arg(proxy.dir()),
    );
    finished.expect_code(0);
    proxy.logged(&["configuration 2 is in use"]);
    assert_eq!(proxy.get("/version").text(), "new");
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = start(&answering("old"), &backend);
    let mut live = proxy.tunnels("/", 3);
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = taken.local_addr().expect("its address");
    let cases = [
        (answering("x; proxy_raed_timeout 1s"), vec!["unknown directive \"proxy_raed_timeout\""]),
        (answering("x }"), vec!["unexpected \"}\""]),
        (
            answering("x").replace("%backend%", "name.invalid"),
            vec!["host not found in upstream \"name.invalid", "nginx.conf:"],
        ),
        (format!("access_log /nonexistent/a.log; {}", answering("x")), vec!["/nonexistent/a.log", "mkdir -p"]),
        (
            answering("x").replace("listen %http%;", &format!("listen %http%; listen {taken};")),
            vec!["bind() to", "Address already in use"],
        ),
        (
            answering("x").replace(
                "listen %http%;",
                "listen %http%; listen %https% ssl; ssl_certificate /no.crt; ssl_certificate_key /no.key;",
            ),
            vec!["/no.key", "No such file"],
        ),
    ];
    let count = cases.len();
    for (text, words) in cases {
        proxy.rewrite("", &text);
        reload_in_vain(&mut proxy, &words);
        assert_eq!(proxy.get("/version").text(), "old");
        all_echo(&mut live, "still here");
    }
    let failed = |proxy: &Proxy| proxy.log().matches("reload failed").count();
    assert!(eventually(|| failed(&proxy) == count), "{}", proxy.log());
    proxy.rewrite("", &answering("new"));
    reload(&mut proxy, 2);
    assert_eq!(proxy.get("/version").text(), "new");
}

#[test]
fn listeners_come_and_go() {
    beyond_nginx!();
    let backend = Backend::echo();
    let (mut proxy, more) = (start_as(SAME_USER, &answering("old"), &backend), ports::free());
    let mut live = proxy.tunnels("/", 3);
    let added = SocketAddr::from(([127, 0, 0, 1], more));
    let both = answering("new")
        .replace("listen %http%;", &format!("listen %http%; listen {added}; listen unix:%dir%/x.sock;"));
    proxy.rewrite(SAME_USER, &both);
    reload(&mut proxy, 2);
    assert_eq!(Wire::connect(added).get("/version").text(), "new");
    let socket = proxy.dir().join("x.sock");
    assert_eq!(Wire::connect_unix(&socket).get("/version").text(), "new");
    let mut there = Wire::connect(added);
    there.websocket("/");
    let mut idle = Wire::connect(added);
    assert_eq!(idle.get("/version").text(), "new");
    proxy.rewrite(SAME_USER, &answering("newer"));
    let line = reload(&mut proxy, 3);
    assert!(line.contains(&format!("no longer at {added}")) || line.contains(&added.to_string()), "{line}");
    assert!(eventually(|| TcpStream::connect(added).is_err()), "it listens on");
    assert!(!socket.exists());
    // Who came by it stays, but for a connection that is only kept.
    there.echoes("through a listener that has gone");
    idle.expect_gone();
    all_echo(&mut live, "and all others");
    // The same port on every address, while it is ours on one.
    let anywhere = answering("anywhere").replace("%http%", &format!("0.0.0.0:{}", proxy.http().port()));
    proxy.rewrite(SAME_USER, &anywhere);
    reload(&mut proxy, 4);
    assert_eq!(proxy.get("/version").text(), "anywhere");
    all_echo(&mut live, "at last");
}

#[test]
fn nobody_who_waits_at_a_listener_that_goes_is_lost() {
    beyond_nginx!();
    let backend = Backend::echo();
    // A worker that has its hands full accepts nothing: they wait in the backlog.
    let connections = "worker_processes 1; events { worker_connections 8; }";
    let text = answering("old").replace("listen %http%;", "listen %http%; listen %other%;");
    let mut proxy = Proxy::config(&text).main(connections).set("backend", backend.address()).start();
    let live = proxy.tunnels("/", 3);
    let other = proxy.address("other");
    let mut waiting: Vec<Wire> = (0..20).map(|_| Wire::connect(other)).collect();
    for client in &mut waiting {
        client.send("GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    }
    proxy.rewrite(connections, &answering("new"));
    reload(&mut proxy, 2);
    for mut client in waiting {
        assert_eq!(client.response().text(), "old");
    }
    drop(live);
}

#[test]
fn what_cannot_change_in_a_running_process_is_named() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = start(&answering("old"), &backend);
    proxy.rewrite("daemon on; error_log stderr info;", &answering("new"));
    reload(&mut proxy, 2);
    proxy.logged(&["[warn]", "`daemon`", "next start"]);
    assert_eq!(proxy.get("/version").text(), "new");
}

#[test]
fn logs_follow_the_file() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = start_as(SAME_USER, &answering("old"), &backend);
    let old = proxy.tunnel("/");
    proxy.get("/version");
    proxy.written("access.log", &["GET /version"]);
    proxy.rewrite(
        "user root; error_log %dir%/e.log info;",
        &format!("access_log %dir%/b.log; {}", answering("new"))
            .replace("server {", "server { access_log %dir%/b.log;"),
    );
    proxy.running().signal(Signal::SIGHUP);
    proxy.written("e.log", &["configuration 2 is in use"]);
    proxy.get("/version");
    proxy.written("b.log", &["GET /version"]);
    // What began under the old file is logged by it.
    old.reset();
    proxy.written("access.log", &["\"GET / HTTP/1.1\" 101"]);
}

#[test]
fn what_is_known_of_a_backend_survives() {
    beyond_nginx!();
    let dead = ports::free();
    let backend = Backend::named("alive");
    let group = |more: &str| {
        format!(
            "upstream app {{ server 127.0.0.1:{dead} max_fails=1 fail_timeout=60s; server %backend%; {more} }}
             server {{ listen %http%; location / {{ proxy_pass http://app; }} }}"
        )
    };
    let mut proxy = start(&group(""), &backend);
    for _ in 0..4 {
        assert_eq!(proxy.get("/").text(), "alive");
    }
    proxy.logged(&["connect() failed"]);
    let refused = |proxy: &Proxy| proxy.log().matches("connect() failed").count();
    proxy.logged(&["connect() failed"]);
    assert_eq!(refused(&proxy), 1, "{}", proxy.log());
    for (number, more) in [(2, ""), (3, "server %backend% backup;")] {
        proxy.rewrite("", &group(more));
        reload(&mut proxy, number);
        for _ in 0..4 {
            assert_eq!(proxy.get("/").text(), "alive");
        }
    }
    assert_eq!(refused(&proxy), 1, "it was tried again:\n{}", proxy.log());
}

#[test]
fn a_reload_does_not_hold_up_a_signal() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = start(&answering("old"), &backend);
    for _ in 0..20 {
        proxy.running().signal(Signal::SIGHUP);
    }
    let told = Instant::now();
    proxy.running().signal(Signal::SIGTERM);
    assert!(proxy.running().wait().success());
    assert!(told.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_reload_after_root_was_given_up_says_so() {
    beyond_nginx!();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let backend = Backend::echo();
    let mut proxy = start_as("user nobody;", &answering("old"), &backend);
    proxy.rewrite(
        "user nobody;",
        &format!("access_log %dir%/b.log; {}", answering("new"))
            .replace("server {", "server { access_log %dir%/b.log;"),
    );
    reload_in_vain(&mut proxy, &["b.log", "Permission denied"]);
    proxy.logged(&["given up root", "-s upgrade"]);
    assert_eq!(proxy.get("/version").text(), "old");
}
