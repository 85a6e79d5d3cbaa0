//! The logs' files: reopened, full, slow, buffered.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{signal::Signal, stat::Mode},
    unistd::{Uid, mkfifo},
};

use crate::util::{Backend, Driver, PATIENCE, Proxy, beyond_nginx, eventually, on_both_drivers};

on_both_drivers![a_tunnel_is_a_line_when_it_opens_as_it_goes_on_and_when_it_ends];

const SERVER: &str =
    "log_format uri '$uri'; server { listen %http%; location /ws/ { access_log off; proxy_pass http://%backend%; } ";

fn read(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap_or_default()
}

/// Asks for `/FROM` to `/TO` on one connection.
fn ask(proxy: &Proxy, numbers: std::ops::Range<u32>) {
    let mut client = proxy.connect();
    for number in numbers {
        assert_eq!(client.get(&format!("/{number}")).status(), 200);
    }
}

#[test]
fn files_are_reopened_and_no_line_is_lost() {
    let text =
        format!("{SERVER} access_log %dir%/a.log uri; location / {{ keepalive_requests 10000; return 200 ok; }} }}");
    let backend = Backend::echo();
    // As in nginx's master, root's process may create the file anew; ours is `user` by then.
    let mut proxy = Proxy::config(&text).set("backend", backend.address()).main("user root;").start();
    let dir = proxy.dir().to_owned();
    for round in 0..5 {
        let (from, half, to) = (round * 400, round * 400 + 200, round * 400 + 400);
        ask(&proxy, from..half);
        let moved = dir.join(format!("a.log.{round}"));
        fs::rename(dir.join("a.log"), &moved).expect("moved");
        proxy.running().signal(Signal::SIGUSR1);
        ask(&proxy, half..to);
        assert!(eventually(|| dir.join("a.log").exists()), "round {round}");
    }
    let all = || (0..5).map(|round| read(&dir, &format!("a.log.{round}"))).collect::<String>() + &read(&dir, "a.log");
    assert!(eventually(|| all().lines().count() >= 2000), "{} lines", all().lines().count());
    let expected: Vec<String> = (0..2000).map(|number| format!("/{number}")).collect();
    assert_eq!(all().lines().collect::<Vec<_>>(), expected, "each once, and in order");
}

#[test]
fn the_signal_can_be_sent_by_name() {
    let proxy = Proxy::config("server { listen %http%; access_log %dir%/a.log; location / { return 200 ok; } }")
        .main("user root;")
        .start();
    proxy.get("/before");
    proxy.written("a.log", &["/before"]);
    fs::rename(proxy.dir().join("a.log"), proxy.dir().join("a.log.1")).expect("moved");
    let file = proxy.dir().join("nginx.conf");
    let status = Command::new(crate::util::proxy::executable()).arg("-c").arg(file).args(["-s", "reopen"]).status();
    assert!(status.expect("it runs").success());
    assert!(eventually(|| proxy.dir().join("a.log").exists()));
    proxy.get("/after");
    proxy.written("a.log", &["/after"]);
}

#[test]
fn a_file_that_may_not_be_created_goes_on() {
    beyond_nginx!();
    if !Uid::effective().is_root() {
        eprintln!("skipped: only root can become a user who may not write");
        return;
    }
    let mut proxy =
        Proxy::config("server { listen %http%; access_log %dir%/a.log; location / { return 200 ok; } }").start();
    proxy.get("/before");
    proxy.written("a.log", &["/before"]);
    fs::rename(proxy.dir().join("a.log"), proxy.dir().join("a.log.1")).expect("moved");
    proxy.running().signal(Signal::SIGUSR1);
    let told = proxy.logged(&["a.log\" failed (13: Permission denied)", "the file that was open goes on"]);
    assert!(told.contains("create 0640"), "the cure: {told}");
    proxy.get("/after");
    proxy.written("a.log.1", &["/after"]);
    // What logrotate does with `create`.
    fs::write(proxy.dir().join("a.log"), "").expect("created");
    fs::set_permissions(proxy.dir().join("a.log"), std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .expect("its mode");
    proxy.running().signal(Signal::SIGUSR1);
    assert!(eventually(|| {
        proxy.get("/at-last");
        read(proxy.dir(), "a.log").contains("/at-last")
    }));
}

/// Echoes through a tunnel until the log has lost something, and says what the slowest took.
fn slowest_echo(proxy: &Proxy, lines: usize) -> Duration {
    let mut tunnel = proxy.tunnel("/ws/");
    let mut asker = proxy.connect();
    let mut slowest = Duration::ZERO;
    let long = "x".repeat(4000);
    for number in 0..lines {
        assert_eq!(asker.get(&format!("/{number}/{long}")).status(), 200);
        if number % 10 == 0 {
            let start = Instant::now();
            tunnel.echoes("still here");
            slowest = slowest.max(start.elapsed());
        }
    }
    slowest
}

#[test]
fn a_full_disk_loses_lines_and_nothing_else() {
    beyond_nginx!();
    let text = format!(
        "{SERVER} access_log /dev/full uri; access_log %dir%/a.log uri; location / {{ keepalive_requests 10000; return 200 ok; }} }}"
    );
    let backend = Backend::echo();
    let proxy = Proxy::config(&text).set("backend", backend.address()).start();
    let slowest = slowest_echo(&proxy, 200);
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    proxy.logged(&["lines for the log \"/dev/full\" were lost: write() failed (28: No space left on device)"]);
    assert!(eventually(|| read(proxy.dir(), "a.log").lines().count() == 200), "the other log has them all");
}

#[test]
fn a_disk_with_room_again_is_written_to_again() {
    beyond_nginx!();
    let text = "server { listen %http%; access_log %dir%/small/a.log combined; location / { keepalive_requests 10000; return 200 ok; } }";
    let setup = Proxy::config(text).main("user root;").file("small/mark", "");
    let small = setup.dir().join("small");
    // A mount namespace of this thread, which the processes it starts are born into.
    let mounted = unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && run("mount", &["--make-rprivate", "/"])
        && run("mount", &["-t", "tmpfs", "-o", "size=64k,mode=777", "none", &small.display().to_string()]);
    if !mounted {
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    let proxy = setup.start();
    let mut client = proxy.connect();
    let long = "x".repeat(4000);
    for _ in 0..40 {
        client.get(&format!("/{long}"));
        // Lines that still waited would fill the disk once more.
        if proxy.log().contains("were lost") {
            break;
        }
    }
    proxy.logged(&["/small/a.log\" were lost: write() failed (28: No space left on device)"]);
    fs::OpenOptions::new().write(true).open(small.join("a.log")).expect("open").set_len(0).expect("emptied");
    client.get("/room-again");
    assert!(eventually(|| read(&small, "a.log").lines().any(|line| line.contains("\"GET /room-again "))));
    drop(proxy);
    run("umount", &["-l", &small.display().to_string()]);
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn a_pipe_that_nobody_reads_loses_lines_and_goes_on_when_somebody_does() {
    beyond_nginx!();
    let text = format!(
        "{SERVER} access_log %dir%/pipe uri; access_log %dir%/a.log uri; location / {{ keepalive_requests 10000; return 200 ok; }} }}"
    );
    let backend = Backend::echo();
    let setup = Proxy::config(&text).set("backend", backend.address());
    let path = setup.dir().join("pipe");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a named pipe");
    // Open for both, it has a reader at once (fifo(7)), who reads nothing yet.
    let pipe = fs::OpenOptions::new().read(true).write(true).open(path).expect("opened");
    let proxy = setup.main("user root;").start();
    let slowest = slowest_echo(&proxy, 500);
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    proxy.logged(&["/pipe\" were lost: nobody reads it, or too slowly"]);
    assert!(eventually(|| read(proxy.dir(), "a.log").lines().count() == 500), "the other log has them all");
    let mut pipe = BufReader::new(pipe);
    let mut first = String::new();
    pipe.read_line(&mut first).expect("a line");
    assert!(first.starts_with("/0/x"), "what waited comes first");
    let reader = thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        let mut line = String::new();
        while !line.starts_with("/read-again") && Instant::now() < deadline {
            line.clear();
            pipe.read_line(&mut line).expect("a line");
        }
        line.starts_with("/read-again")
    });
    while !reader.is_finished() {
        proxy.get("/read-again");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(reader.join().expect("the reader"));
}

#[test]
fn buffered_lines_come_when_the_buffer_is_full_old_or_reopened() {
    let text = "log_format uri '$uri'; server { listen %http%; location / { return 200 ok; }
        location /full/ { access_log %dir%/full.log uri buffer=1k; return 200 ok; }
        location /old/ { access_log %dir%/old.log uri buffer=64k flush=300ms; return 200 ok; } }";
    let mut proxy = Proxy::config(text).main("user root;").start();
    let dir = proxy.dir().to_owned();
    proxy.get("/full/0");
    let start = Instant::now();
    proxy.get("/old/0");
    assert!(eventually(|| read(&dir, "old.log") == "/old/0\n"));
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    assert_eq!(read(&dir, "full.log"), "", "it waits for more");
    let mut client = proxy.connect();
    for number in 1..150 {
        client.get(&format!("/full/{number}"));
    }
    assert!(eventually(|| read(&dir, "full.log").lines().count() > 70), "a full one is written");
    assert!(read(&dir, "full.log").lines().count() < 150, "and the rest waits");
    proxy.running().signal(Signal::SIGUSR1);
    assert!(eventually(|| read(&dir, "full.log").lines().count() == 150), "until it is reopened");
    proxy.get("/full/last");
    proxy.running().signal(Signal::SIGTERM);
    assert!(eventually(|| read(&dir, "full.log").ends_with("/full/last\n")), "or until the end");
}

fn a_tunnel_is_a_line_when_it_opens_as_it_goes_on_and_when_it_ends(driver: Driver) {
    beyond_nginx!();
    let text = "log_format ours '$uri $tunnel_event/$close_reason $status $frames_received $frames_sent $bytes_received $bytes_sent $request_time $connection';
        map $tunnel_event $no_interval { interval 0; default 1; }
        server { listen %http%; access_log_interval 1s;
            access_log %dir%/all.log ours events=open,interval,close;
            access_log %dir%/open.log ours events=open;
            access_log %dir%/plain.log ours;
            access_log %dir%/if.log ours events=open,interval,close if=$no_interval;
            location / { proxy_pass http://%backend%; }
            location /quiet { access_log_interval off; proxy_pass http://%backend%; } }";
    let backend = Backend::echo();
    let proxy = Proxy::config(text).set("backend", backend.address()).on(driver).start();
    assert_eq!(proxy.get("/request").status(), 200);
    let mut tunnel = proxy.tunnel("/ws");
    let open = proxy.written("all.log", &["/ws open/- 101 0 0 "]);
    tunnel.echoes("one");
    tunnel.echoes("two");
    let first = proxy.written("all.log", &["/ws interval/- 101 2 2 "]);
    tunnel.echoes("three");
    let second = proxy.written("all.log", &["/ws interval/- 101 3 3 "]);
    drop(tunnel);
    let close = proxy.written("all.log", &["/ws close/client_"]);
    assert!(close.contains(" 101 3 3 "), "{close}");
    // Bytes both ways, and the time, grow from line to line; $connection is the same.
    let numbers =
        |line: &str| line.split(' ').skip(5).map(|number| number.parse::<f64>().expect("a number")).collect::<Vec<_>>();
    for pair in [&open, &first, &second, &close].windows(2) {
        let (before, after) = (numbers(pair[0]), numbers(pair[1]));
        assert!(before[0] <= after[0] && before[1] <= after[1] && before[2] <= after[2], "{pair:?}");
        assert_eq!(before[3], after[3]);
    }
    assert!(numbers(&second)[0] > numbers(&first)[0] && numbers(&second)[1] > numbers(&first)[1]);
    assert!(numbers(&first)[2] >= 0.9, "{first}");
    let quiet = proxy.tunnel("/quiet");
    thread::sleep(Duration::from_millis(1500));
    drop(quiet);
    proxy.written("all.log", &["/quiet close"]);
    assert!(!read(proxy.dir(), "all.log").contains("/quiet interval"));
    let of = |name: &str| {
        read(proxy.dir(), name).lines().map(|line| line.split('/').take(2).collect()).collect::<Vec<String>>()
    };
    assert_eq!(of("open.log"), ["ws open", "quiet open"]);
    assert!(eventually(|| of("plain.log").len() == 3), "{:?}", of("plain.log"));
    assert_eq!(of("plain.log"), ["request -", "ws close", "quiet close"], "one line a request, as nginx");
    assert_eq!(of("if.log"), ["request -", "ws open", "ws close", "quiet open", "quiet close"]);
    assert!(of("all.log").contains(&"request -".to_owned()));
}

#[test]
fn the_predefined_json_is_there() {
    beyond_nginx!();
    let text =
        "server { listen %http%; access_log_interval 1s; access_log %dir%/json.log json events=open,interval,close;
        location / { proxy_pass http://%backend%; } location /ours { return 200 ok; } }";
    let backend = Backend::echo();
    let proxy = Proxy::config(text).set("backend", backend.address()).start();
    proxy.connect().ask("GET /ours?\"\\ HTTP/1.1\r\nHost: x\r\nUser-Agent: a\"b\\c\td\r\nOrigin: {}\r\n\r\n");
    let mut tunnel = proxy.tunnel("/ws");
    tunnel.echoes("x");
    proxy.written("json.log", &["\"interval\""]);
    drop(tunnel);
    proxy.written("json.log", &["\"close\""]);
    proxy.connect().send("\u{1}\u{ff}\r\n\r\n").ending();
    assert!(eventually(|| read(proxy.dir(), "json.log").lines().count() >= 5));
    let text = read(proxy.dir(), "json.log");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    let request = lines.iter().find(|line| line["tunnel_event"] == "" && line["status"] == 200).expect("the request");
    assert_eq!((&request["request_uri"], &request["status"]), (&"/ours?\"\\".into(), &200.into()));
    assert_eq!((&request["http_user_agent"], &request["tunnel_event"]), (&"a\"b\\c\td".into(), &"".into()));
    let event =
        |name: &str| lines.iter().find(|line| line["tunnel_event"] == name).unwrap_or_else(|| panic!("{name}: {text}"));
    assert_eq!((&event("open")["frames_sent"], &event("open")["close_reason"]), (&0.into(), &"".into()));
    assert_eq!((&event("interval")["frames_sent"], &event("close")["frames_received"]), (&1.into(), &1.into()));
    assert_eq!(event("open")["request_id"], event("close")["request_id"]);
    assert_eq!(event("close")["upstream_addr"], backend.address().to_string().as_str());
    assert!(lines.iter().any(|line| line["status"] == 400), "a head that is none: {text}");
}
