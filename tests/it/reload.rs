//! Another configuration into the running process: what takes, what stays, and what must not change anything.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::util::{
    Backend, Driver, PATIENCE, Proxy, Wire, beyond_nginx, eventually, frames, on_both_drivers, ports,
    process::finish,
    proxy::{Setup, executable},
    tls::{self, Client, names},
};

on_both_drivers![
    reloads_in_a_row_cost_no_tunnel_and_refuse_nobody,
    workers_come_and_go_and_no_tunnel_is_lost,
    certificates_are_swapped_and_sessions_resumed,
];

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

/// Opens tunnels until it is told to stop, sends a message through each, and asks for the version; how often, and how often in vain.
struct Stream {
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Vec<String>>,
}

impl Stream {
    fn start(address: SocketAddr) -> Self {
        let (over, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (is_over, count) = (Arc::clone(&over), Arc::clone(&done));
        let thread = thread::spawn(move || {
            let mut failures = Vec::new();
            while !is_over.load(Relaxed) {
                if let Err(why) = one_client(address) {
                    failures.push(why);
                }
                count.fetch_add(1, Relaxed);
            }
            failures
        });
        Self { over, done, thread }
    }

    /// How many clients there were.
    #[track_caller]
    fn end(self) -> usize {
        self.over.store(true, Relaxed);
        let failures = self.thread.join().expect("the stream of clients");
        assert!(failures.is_empty(), "{} of {:?} clients: {failures:?}", failures.len(), self.done);
        self.done.load(Relaxed)
    }
}

fn one_client(address: SocketAddr) -> Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let connect = || TcpStream::connect_timeout(&address, PATIENCE).map(Wire::over).map_err(failed("connect"));
    let mut client = connect()?;
    client.try_send("GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").map_err(failed("send"))?;
    let (answer, _) = client.ending();
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(format!("answer: {:?}", String::from_utf8_lossy(&answer)));
    }
    let mut client = connect()?;
    client.try_send(frames::request("/", "x")).map_err(failed("send"))?;
    match client.try_head() {
        Some(head) if head.status() == 101 => {}
        head => return Err(format!("handshake: {head:?}")),
    }
    client.try_send(frames::client(frames::TEXT, "hello")).map_err(failed("send"))?;
    match client.frame() {
        (frames::TEXT, echo) if echo == b"hello" => Ok(()),
        other => Err(format!("echo: {other:?}")),
    }
}

/// Tunnels that live through it all.
fn tunnels(proxy: &Proxy, count: usize) -> Vec<Wire> {
    let open = |_| {
        let mut client = proxy.connect();
        client.websocket("/");
        client
    };
    (0..count).map(open).collect()
}

/// A message through each: all are on their way before the first echo is read.
#[track_caller]
fn all_echo(tunnels: &mut [Wire], text: &str) {
    for client in &mut *tunnels {
        client.send(frames::client(frames::TEXT, text));
    }
    for client in tunnels {
        assert_eq!(client.frame(), (frames::TEXT, text.as_bytes().to_vec()));
    }
}

fn reloads_in_a_row_cost_no_tunnel_and_refuse_nobody(driver: Driver) {
    beyond_nginx!();
    const RELOADS: usize = 500;
    // With 5000 in `LONGSPLICE_TEST_TUNNELS` it takes a minute: for whoever wants to see more.
    let count = std::env::var("LONGSPLICE_TEST_TUNNELS").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000);
    let backend = Backend::echo();
    let mut proxy = Proxy::config(&answering("v1")).set("backend", backend.address()).on(driver).start();
    let mut live = tunnels(&proxy, count);
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
    let mut live = tunnels(&proxy, 3);
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
    let mut live = tunnels(&proxy, 3);
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
    let live = tunnels(&proxy, 3);
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

fn workers(count: usize) -> String {
    format!("worker_processes {count};")
}

/// Threads of the process that are workers.
fn worker_threads(proxy: &Proxy) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("the process lives").flatten();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.map(name).filter(|name| name.starts_with("worker")).count()
}

fn workers_come_and_go_and_no_tunnel_is_lost(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let text = |version: usize| answering(&format!("v{version}"));
    let mut proxy = Proxy::config(&text(1)).main(&workers(1)).set("backend", backend.address()).on(driver).start();
    let mut live = tunnels(&proxy, 300);
    let stream = Stream::start(proxy.http());
    for (number, count) in [(2, 4), (3, 2), (4, 1), (5, 4), (6, 3)] {
        proxy.rewrite(&workers(count), &text(number));
        reload(&mut proxy, number);
        assert!(eventually(|| worker_threads(&proxy) == count), "{} workers, not {count}", worker_threads(&proxy));
        all_echo(&mut live, &format!("with {count}"));
        live.extend(tunnels(&proxy, 50));
        assert_eq!(proxy.get("/version").text(), format!("v{number}"));
    }
    stream.end();
    all_echo(&mut live, "at last");
    let log = proxy.log();
    for reason in ["shutdown", "internal_error", "client_reset", "upstream_reset"] {
        assert!(!log.contains(&format!("({reason})")), "{reason}:\n{log}");
    }
}

#[test]
fn bulk_in_flight_changes_its_worker_whole() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = start(&answering("v1"), &backend);
    let mut clients = tunnels(&proxy, 4);
    let payload = crate::util::pattern(8 << 20, 9);
    let frame = Arc::new(frames::client(frames::BINARY, &payload));
    let senders: Vec<_> = clients
        .iter()
        .map(|client| {
            let (mut writer, frame) = (client.writer(), Arc::clone(&frame));
            thread::spawn(move || writer.try_send(&*frame).expect("a tunnel that lives"))
        })
        .collect();
    thread::sleep(Duration::from_millis(50));
    for (number, count) in [(2, 1), (3, 4), (4, 1), (5, 2)] {
        proxy.rewrite(&workers(count), &answering("v"));
        reload(&mut proxy, number);
    }
    for client in &mut clients {
        let (opcode, echo) = client.frame();
        assert_eq!((opcode, crate::util::checksum(&echo)), (frames::BINARY, crate::util::checksum(&payload)));
    }
    senders.into_iter().for_each(|sender| sender.join().expect("a sender"));
}

const TLS: &str =
    "server { listen %https% ssl; server_name x; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
    location / { proxy_pass http://%backend%; } }";

fn wss(backend: &Backend, more: &str) -> Setup {
    let text = TLS.replace("location", &format!("{more} location"));
    Proxy::config(&text).certificate("x", &["x", "first.example"]).set("backend", backend.address())
}

fn presented(address: SocketAddr) -> String {
    names(&tls::handshake(address, "x", &Client::default()).expect("a handshake").certificate)
}

fn certificates_are_swapped_and_sessions_resumed(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = wss(&backend, "").on(driver).start();
    let address = proxy.address("https");
    let client = Client::default();
    let resumed = |expected: bool, when: &str| {
        let done = tls::handshake(address, "x", &client).expect("a handshake");
        assert_eq!(done.resumed, expected, "{when}");
        // The ticket comes with the first record.
        let mut wire = done.wire();
        wire.websocket("/");
        wire
    };
    let mut live = resumed(false, "at first");
    resumed(true, "before the reload");
    proxy.renew_certificate("x", &["x", "second.example"]);
    reload(&mut proxy, 2);
    resumed(true, "across the reload");
    assert!(presented(address).contains("second.example"), "{}", presented(address));
    live.echoes("with the keys of a certificate that has gone");
    // An unreadable key leaves all as it was.
    std::fs::write(proxy.dir().join("x.key"), "no key").expect("write");
    reload_in_vain(&mut proxy, &["x.key", "no usable private key"]);
    assert!(presented(address).contains("second.example"));
    resumed(true, "after a reload that failed");
    live.echoes("still");
}

#[test]
fn a_session_of_one_host_opens_no_other_after_a_reload() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = wss(&backend, "").start();
    let (address, client) = (proxy.address("https"), Client::default());
    tls::handshake(address, "x", &client).expect("a handshake").wire().websocket("/");
    // The same address, another name: not the same host.
    proxy.rewrite("", &TLS.replace("server_name x", "server_name y"));
    reload(&mut proxy, 2);
    assert!(!tls::handshake(address, "x", &client).expect("a handshake").resumed);
}

#[test]
fn ticket_keys_of_the_file_are_shared_and_read_again() {
    beyond_nginx!();
    let backend = Backend::echo();
    let setup = wss(&backend, "ssl_session_ticket_key %dir%/a.keys; ssl_session_ticket_key %dir%/b.keys;");
    let keys = |dir: &Path, name: &str, byte: u8| std::fs::write(dir.join(name), [byte; 80]).expect("write");
    keys(setup.dir(), "a.keys", 1);
    keys(setup.dir(), "b.keys", 2);
    let mut proxy = setup.start();
    let (address, client) = (proxy.address("https"), Client::default());
    let resumed = || {
        let done = tls::handshake(address, "x", &client).expect("a handshake");
        let resumed = done.resumed;
        done.wire().websocket("/");
        resumed
    };
    assert!(!resumed() && resumed());
    // The next key comes in front.
    keys(proxy.dir(), "a.keys", 3);
    keys(proxy.dir(), "b.keys", 1);
    reload(&mut proxy, 2);
    assert!(resumed());
    keys(proxy.dir(), "a.keys", 7);
    keys(proxy.dir(), "b.keys", 8);
    reload(&mut proxy, 3);
    assert!(!resumed());
}

#[test]
fn a_certificate_that_changes_on_disk_is_read_without_a_signal() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = wss(&backend, "ssl_certificate_watch on;").start();
    let address = proxy.address("https");
    let mut live = proxy.connect_tls("x");
    live.websocket("/");
    std::fs::write(proxy.dir().join("x.key"), "half a key").expect("write");
    proxy.logged(&["[error]", "x.key", "the certificate of before"]);
    assert!(presented(address).contains("first.example"));
    proxy.renew_certificate("x", &["x", "second.example"]);
    proxy.logged(&["certificates read again", "x.crt"]);
    assert!(presented(address).contains("second.example"));
    live.echoes("through it all");
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
    let mut old = tunnels(&proxy, 1);
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
    old.remove(0).reset();
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

#[test]
fn tunnels_of_routes_that_have_gone_are_drained_where_the_file_says_so() {
    beyond_nginx!();
    let (one, other) = (Backend::echo(), Backend::echo());
    let text = |first: &str, second: &str| {
        let location = |path: &str, group: &str| format!("location {path} {{ proxy_pass http://{group}; }}");
        format!(
            "upstream one {{ server %one%; server %other%; }} upstream other {{ server %other%; }}
             server {{ listen %http%; {} {} }}",
            location("/first", first),
            location("/second", second)
        )
    };
    for drains in [true, false] {
        let main = if drains { "drain_on_reload on; drain_timeout 1s; drain_close_code 1012;" } else { "" };
        let mut proxy = Proxy::config(&text("one", "one"))
            .main(&format!("{main} worker_processes 3;"))
            .set("one", one.address())
            .set("other", other.address())
            .start();
        let open = |target: &str| {
            let mut client = proxy.connect();
            client.websocket(target);
            client
        };
        let [mut stay, mut go] = ["/first", "/second"].map(|target| (0..8).map(|_| open(target)).collect::<Vec<_>>());
        // Fewer workers at the same time: tunnels that change their worker are asked as well.
        proxy.rewrite(&format!("{main} worker_processes 1;"), &text("one", "other"));
        reload(&mut proxy, 2);
        all_echo(&mut stay, "what has not changed stays");
        if drains {
            for client in &mut go {
                assert_eq!(client.closed_with(), Some(1012));
            }
            proxy.logged(&["(drain)"]);
            all_echo(&mut stay, "and goes on");
        } else {
            thread::sleep(Duration::from_millis(500));
            all_echo(&mut go, "nobody is asked to go");
        }
        go.into_iter().for_each(Wire::reset);
    }
}

#[test]
fn tunnels_to_a_backend_that_is_let_go_are_drained() {
    beyond_nginx!();
    let (one, other) = (Backend::echo(), Backend::echo());
    for word in ["drain", "down"] {
        let text = |word: &str| {
            format!(
                "upstream app {{ server %one% {word}; server %other%; }}
                 server {{ listen %http%; location / {{ proxy_pass http://app; }} }}"
            )
        };
        let main = "drain_timeout 1s; worker_processes 2;";
        let mut proxy =
            Proxy::config(&text("")).main(main).set("one", one.address()).set("other", other.address()).start();
        let mut clients: Vec<_> = (0..8)
            .map(|_| {
                let mut client = proxy.connect();
                client.websocket("/");
                client
            })
            .collect();
        proxy.rewrite(main, &text(word));
        reload(&mut proxy, 2);
        // Behind the window everybody who goes has got a close frame. Round robin gave each backend every second tunnel.
        thread::sleep(Duration::from_millis(1500));
        for client in &mut clients {
            client.send(frames::client(frames::TEXT, "still there?"));
        }
        let (closed, open): (Vec<_>, Vec<_>) =
            clients.into_iter().map(|mut client| client.frame().0).partition(|opcode| *opcode == frames::CLOSE);
        assert_eq!((closed.len(), open.len()), (4, 4), "{word}");
    }
}
