//! One process after another on the same sockets, and what systemd gives and is told.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::util::{
    Backend, Driver, Proxy, Wire, beyond_nginx, eventually, external,
    line::{Line, lives, pid_in, send},
    on_both_drivers, ports,
    process::Running,
    proxy::{Setup, executable},
};

on_both_drivers![upgrades_in_a_storm];

const SERVER: &str = "server { listen %http%; location / {
    proxy_pass http://%backend%; proxy_set_header Host $host; } location = /pid { return 200 $pid; } }";

/// Tunnels of a process that has been replaced stay for the length of a test.
fn before(backend: &Backend) -> Setup {
    let drain = "drain_timeout 1h; worker_shutdown_timeout 2h;";
    Proxy::config(SERVER).set("backend", backend.address()).main(drain)
}

/// Clients that connect, make a handshake, echo and go, again and again, until they are told to stop.
struct Storm {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Storm {
    fn on(proxy: &Proxy, clients: usize) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = (0..clients).map(|_| {
            let (stop, done, address) = (Arc::clone(&stop), Arc::clone(&done), proxy.http());
            thread::spawn(move || {
                while !stop.load(Relaxed) {
                    let mut client = Wire::connect(address);
                    client.websocket("/");
                    client.echoes("through the storm");
                    client.finish();
                    done.fetch_add(1, Relaxed);
                }
            })
        });
        let clients = clients.collect();
        Self { stop, done, clients }
    }

    /// How many came through; every one must have.
    fn end(self) -> usize {
        self.stop.store(true, Relaxed);
        for client in self.clients {
            client.join().expect("no connection is refused, reset or answered otherwise");
        }
        self.done.load(Relaxed)
    }
}

fn upgrades_in_a_storm(driver: Driver) {
    beyond_nginx!();
    const UPGRADES: usize = 50;
    let backend = Backend::echo();
    let line = Line::start(before(&backend).on(driver));
    let began = Instant::now();
    let storm = Storm::on(&line.proxy, 3);
    let (mut tunnels, mut processes) = (Vec::new(), vec![line.current()]);
    for number in 0..UPGRADES {
        if number % 10 == 0 {
            let mut tunnel = line.proxy.connect();
            tunnel.websocket("/");
            tunnels.push(tunnel);
        }
        line.tell("upgrade").expect_code(0);
        processes.push(line.current());
    }
    let came_through = storm.end();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(40), "{took:?}");
    assert!(came_through > UPGRADES, "{came_through} clients");
    eprintln!("{UPGRADES} upgrades in {took:?} under {came_through} clients");
    processes.sort_unstable();
    processes.dedup();
    assert_eq!(processes.len(), UPGRADES + 1, "each upgrade is a new process");
    for tunnel in &mut tunnels {
        tunnel.echoes("in a process that has been replaced long ago");
    }
    drop(tunnels);
    let last = line.current();
    assert!(eventually(|| processes.iter().all(|pid| *pid == last || !lives(*pid))), "old processes end");
}

#[test]
fn nginx_dance_by_hand() {
    beyond_nginx!();
    let backend = Backend::echo();
    let line = Line::start(before(&backend));
    let (old, old_pid_file) = (line.current(), line.proxy.dir().join("proxy.pid.oldbin"));
    let mut tunnel = line.proxy.connect();
    tunnel.websocket("/");
    // A new process beside the old one ...
    send(old, Signal::SIGUSR2);
    line.proxy.logged(&["is ready and serves too"]);
    let new = line.current();
    assert_eq!(pid_in(&old_pid_file), Some(old));
    assert_ne!(new, old);
    let mut serving: Vec<String> = Vec::new();
    assert!(
        eventually(|| {
            serving.push(line.proxy.get("/pid").text());
            [old, new].iter().all(|pid| serving.contains(&pid.to_string()))
        }),
        "both serve: {serving:?}"
    );
    // ... but not two, nor one of the new one while the old one serves ...
    send(old, Signal::SIGUSR2);
    line.proxy.logged(&[&format!("process {new} serves already")]);
    send(new, Signal::SIGUSR2);
    line.proxy.logged(&["the process before this one still serves"]);
    // ... the new one alone, as long as it lives ...
    send(old, Signal::SIGWINCH);
    assert!(eventually(|| (0..20).all(|_| line.proxy.get("/pid").text() == new.to_string())));
    tunnel.echoes("in the old process, which stays");
    // ... goes back: the old one is alone again ...
    send(new, Signal::SIGQUIT);
    line.proxy.logged(&["the new process has ended (exit status: 0), this one goes on"]);
    assert!(eventually(|| pid_in(&line.pid_file()) == Some(old) && !old_pid_file.exists()));
    assert_eq!(line.proxy.get("/pid").text(), old.to_string());
    send(old, Signal::SIGWINCH);
    assert_eq!(line.proxy.get("/pid").text(), old.to_string(), "a terminal's new size is nothing to it");
    // ... or forth.
    send(old, Signal::SIGUSR2);
    assert!(eventually(|| pid_in(&line.pid_file()).is_some_and(|pid| pid != old)));
    let newest = line.current();
    assert!(eventually(|| line.proxy.log().matches("is ready and serves too").count() == 2));
    send(old, Signal::SIGQUIT);
    assert!(eventually(|| (0..20).all(|_| line.proxy.get("/pid").text() == newest.to_string())));
    tunnel.echoes("in the old process");
    drop(tunnel);
    assert!(eventually(|| !lives(old) && !old_pid_file.exists()));
    assert_eq!(line.current(), newest);
}

#[test]
fn a_new_program_that_fails_leaves_the_old_one_as_it_was() {
    beyond_nginx!();
    let backend = Backend::echo();
    let line = Line::start(before(&backend).main("upgrade_timeout 1s;"));
    let old = line.current();
    let mut tunnel = line.proxy.connect();
    tunnel.websocket("/");
    let mut fails = |words: &[&str]| {
        let failed = line.tell("upgrade");
        failed.expect_code(1).expect(&[&format!("upgrade failed, process {old} serves on")]).expect(words);
        line.proxy.logged(&["no upgrade, this process goes on", words[0]]);
        assert!(eventually(|| pid_in(&line.pid_file()) == Some(old)), "the pid file is back");
        tunnel.echoes("as if nothing had been");
        assert_eq!(line.proxy.get("/pid").text(), old.to_string());
    };
    line.replace_by(None);
    fails(&["longsplice\" failed (2: No such file or directory)", "must be where this one was started from"]);
    line.replace_by_script("exit 3");
    fails(&["it ended before it was ready (exit status: 3)"]);
    line.replace_by_script("kill -9 $$");
    fails(&["it ended before it was ready (signal: 9"]);
    line.replace_by_script("exec sleep 60");
    fails(&["it was not ready within 1 s"]);
    line.replace_by(Some(Path::new("/etc/passwd")));
    fails(&["failed (13: Permission denied)"]);
    // A program that starts, with a file that cannot be served.
    line.replace_by(Some(executable()));
    let file = line.proxy.dir().join("nginx.conf");
    let text = fs::read_to_string(&file).expect("its file");
    fs::write(&file, format!("{text}\n").replacen("location / {", "listen 192.0.2.1:81; location / {", 1)).expect("it");
    fails(&["bind() to 192.0.2.1:81 failed (99: Cannot assign requested address)"]);
    fs::write(&file, text).expect("it");
    line.tell("upgrade").expect_code(0);
    assert_ne!(line.current(), old);
    drop(tunnel);
}

#[test]
fn a_pid_file_that_leads_nowhere_is_named() {
    beyond_nginx!();
    let upgrade = |pid: &str| {
        let setup = Proxy::config(SERVER).set("backend", "127.0.0.1:1").file("proxy.pid", pid);
        setup.run(&["-s", "upgrade"])
    };
    upgrade("4194305\n").expect_code(1).expect(&["kill(4194305, 12) failed (3: No such process)", "is stale"]);
    upgrade("").expect_code(1).expect(&["longsplice is not running"]);
    upgrade(&std::process::id().to_string()).expect_code(1).expect(&["is another program", "is stale"]);
    Proxy::config(SERVER).set("backend", "127.0.0.1:1").run(&["-s", "upgrade"]).expect_code(1).expect(&["proxy.pid"]);
}

#[test]
fn unix_sockets_stay_where_they_are() {
    beyond_nginx!();
    let line = Line::start(Proxy::config("server { listen %http%; listen unix:%dir%/x.sock; return 200 $pid; }"));
    let socket = line.proxy.dir().join("x.sock");
    for _ in 0..3 {
        line.tell("upgrade").expect_code(0);
        let current = line.current().to_string();
        assert!(eventually(|| Wire::connect_unix(&socket).get("/").text() == current));
    }
}

#[test]
fn another_number_of_workers_and_of_listeners() {
    beyond_nginx!();
    let line = Line::start(Proxy::config("server { listen %http%; listen %gone%; return 200 $pid; }"));
    let (file, gone) = (line.proxy.dir().join("nginx.conf"), line.proxy.address("gone"));
    let text = fs::read_to_string(&file).expect("its file");
    let added = ports::free();
    for workers in [4, 1, 3] {
        let other = text.replace("worker_processes 2;", &format!("worker_processes {workers};"));
        fs::write(&file, other.replace(&format!("listen {gone};"), &format!("listen 127.0.0.1:{added};"))).expect("it");
        let storm = (0..40).map(|_| line.proxy.connect()).collect::<Vec<_>>();
        line.tell("upgrade").expect_code(0);
        // Those that wait for the old process are served by it.
        storm.into_iter().for_each(|mut client| drop(client.get("/").text()));
        let current = line.current().to_string();
        assert!(eventually(|| (0..20).all(|_| line.proxy.get("/").text() == current)));
        assert_eq!(Wire::connect(([127, 0, 0, 1], added).into()).get("/").text(), current);
    }
    line.proxy.logged(&["the inherited socket", &gone.to_string(), "is closed: no `listen` names it"]);
    assert!(eventually(|| TcpStream::connect(gone).is_err()));
}

#[test]
fn started_as_root_the_new_process_reads_what_only_root_may() {
    beyond_nginx!();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let text =
        "server { listen %http%; listen %https% ssl; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
                return 200 $pid; }";
    let line = Line::start(Proxy::config(text).certificate("x", &["x"]).main("user nobody;"));
    let key = line.proxy.dir().join("x.key");
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("its mode");
    for _ in 0..2 {
        line.tell("upgrade").expect_code(0);
        let current = line.current();
        let status = fs::read_to_string(format!("/proc/{current}/status")).expect("the process lives");
        assert!(status.lines().any(|line| line.starts_with("Uid:") && !line.contains("\t0\t")), "{status}");
        assert!(eventually(|| line.proxy.connect_tls("x").get("/").text() == current.to_string()));
    }
}

/// `sh` gives the socket on its standard input as systemd does: from 3 on, with the number of the process.
const AS_SYSTEMD: &str = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";

#[test]
fn a_socket_of_systemd_is_matched_by_its_address() {
    beyond_nginx!();
    let Some(activate) = external("systemd-socket-activate") else { return };
    let text = "server { listen %http%; return 200 served; }";
    let address = format!("127.0.0.1:{}", ports::free());
    // It starts the program when the first client comes.
    let proxy = Proxy::config(text).set("http", &address).started_by(&activate, &["--listen", &address]).begin();
    assert!(eventually(|| ports::listened_on(proxy.http().port())));
    let (first, second) = (proxy.get("/").text(), proxy.get("/").text());
    assert_eq!((first.as_str(), second.as_str()), ("served", "served"));
    proxy.logged(&["ready: ", &address]);
}

#[test]
fn who_waits_in_a_socket_that_is_passed_on_is_served() {
    beyond_nginx!();
    let backend = Backend::named("behind it");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("its address");
    let mut early = Wire::connect(address);
    let start = |listen: &str, socket: OwnedFd| {
        let mut command = Command::new("sh");
        command.args(["-c", AS_SYSTEMD, "sh"]).arg(executable());
        Running::fed(command.args(["--listen", listen, "--to", &backend.address().to_string()]), socket)
    };
    let running = start(&address.to_string(), socket.into());
    assert_eq!(early.get("/").text(), "behind it");
    assert_eq!(Wire::connect(address).get("/").text(), "behind it");
    drop(running);
    // One that no listener names, and one that does not listen.
    let other = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let closed = other.local_addr().expect("its address");
    let running = start(&format!("127.0.0.1:{}", ports::free()), other.into());
    let said = format!("the inherited socket {closed} is closed: no `listen` names it");
    assert!(eventually(|| running.said().contains(&said)), "{}", running.said());
    drop(running);
    let client = early.tcp().try_clone().expect("a descriptor");
    let mut failed = start("127.0.0.1:1", client.into());
    assert_eq!(failed.wait().code(), Some(1));
    let said = "LISTEN_FDS=1 passes a descriptor that is no listening";
    assert!(eventually(|| failed.said().contains(said)), "{}", failed.said());
    failed.kill();
}

/// systemd, as far as it listens.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    fn new(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).expect("a socket");
        if let Some(path) = address.as_pathname() {
            fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("its mode");
        }
        socket.set_nonblocking(true).expect("a flag");
        Self { socket, told: Vec::new() }
    }

    /// Waits until it was told this, and forgets what it was told up to there.
    #[track_caller]
    fn is_told(&mut self, words: &str) -> String {
        let mut found = None;
        eventually(|| {
            let mut bytes = [0; 1024];
            while let Ok(length) = self.socket.recv(&mut bytes) {
                self.told.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
            found = self.told.iter().position(|told| told.contains(words));
            found.is_some()
        });
        let found = found.unwrap_or_else(|| panic!("not told {words:?}, but {:?}", self.told));
        self.told.drain(..=found).next_back().expect("the one that was found")
    }
}

#[test]
fn systemd_is_told_of_every_step() {
    beyond_nginx!();
    let setup = before(&Backend::echo()).env("NOTIFY_SOCKET", "%dir%/notify");
    let mut manager = Manager::new(&SocketAddr::from_pathname(setup.dir().join("notify")).expect("a path"));
    let line = Line::start(setup);
    let old = line.current();
    let ready = manager.is_told("READY=1\nSTATUS=");
    assert!(ready.contains(&line.proxy.http().to_string()), "{ready}");
    line.tell("reload").expect_code(0);
    manager.is_told("RELOADING=1\nMONOTONIC_USEC=");
    manager.is_told("READY=1");
    line.tell("upgrade").expect_code(0);
    manager.is_told("READY=1");
    let new = line.current();
    manager.is_told(&format!("MAINPID={new}"));
    assert!(eventually(|| !lives(old)));
    send(new, Signal::SIGTERM);
    manager.is_told("STOPPING=1");
    assert!(manager.told.is_empty(), "the old process is silent: {:?}", manager.told);
    assert!(eventually(|| !lives(new)));
}

#[test]
fn the_watchdog_is_fed_through_an_abstract_socket() {
    beyond_nginx!();
    let name = format!("longsplice-test-{}", std::process::id());
    let mut manager = Manager::new(&SocketAddr::from_abstract_name(&name).expect("a name"));
    let setup = before(&Backend::echo()).env("NOTIFY_SOCKET", &format!("@{name}")).env("WATCHDOG_USEC", "400000");
    let _proxy = setup.start();
    manager.is_told("READY=1");
    for _ in 0..4 {
        manager.is_told("WATCHDOG=1");
    }
}
