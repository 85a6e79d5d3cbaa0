//! `longsplice top`: the status in a terminal, in a pipe, and where there is none.

use std::{
    io::Write,
    process::{ChildStdin, Command},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::util::{
    Backend, Proxy, Wire, beyond_nginx, eventually, external,
    process::{Finished, Running, finish},
    proxy::executable,
};

/// A status location before an echo server, and one that nobody may read.
fn watched(backend: &Backend) -> Proxy {
    Proxy::config(
        "upstream app { server %backend%; server 127.0.0.1:1 down; }
         server { listen %http%; listen %https% ssl; listen unix:%dir%/status.sock;
           ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
           location / { proxy_pass http://app; }
           location = /status { status; }
           location = /closed { status; deny all; }
           location = /page { return 200 'hello'; } }",
    )
    .certificate("x", &["localhost"])
    .set("backend", backend.address())
    .start()
}

fn top(arguments: &[&str]) -> Finished {
    finish(Command::new(executable()).arg("top").args(arguments))
}

fn tunnels(proxy: &Proxy, count: usize) -> Vec<Wire> {
    let open = |_| {
        let mut wire = proxy.connect();
        wire.websocket("/ws").echoes("hello");
        wire
    };
    (0..count).map(open).collect()
}

#[test]
fn a_snapshot_says_what_the_server_does_over_every_way_there_is() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = watched(&backend);
    let open = tunnels(&proxy, 7);
    let socket = proxy.dir().join("status.sock").display().to_string();
    let file = proxy.dir().join("nginx.conf").display().to_string();
    for place in [
        &[&*format!("http://{}/status", proxy.http())][..],
        &[&format!("{}/status", proxy.http())],
        &["--insecure", &format!("https://{}/status", proxy.address("https"))],
        &[&format!("unix:{socket}:/status")],
        &["-c", &file],
    ] {
        // Nobody's terminal: `--once` goes without saying.
        let said = top(&[&["-d", "0.1"], place].concat());
        let pid = format!("pid {}", proxy.pid());
        said.expect_code(0).expect(&[
            &pid,
            "Tunnels     7 ",
            "serving",
            "\nUpstreams\n",
            "app",
            "down",
            "\nBusiest tunnels\n",
        ]);
        assert!(!said.stdout.contains('\x1b'), "{place:?}: no colours in a pipe:\n{}", said.stdout);
    }
    drop(open);
}

#[test]
fn the_json_passes_through_as_it_is_sent() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = watched(&backend);
    let said = top(&["--json", &format!("http://{}/status", proxy.http())]);
    said.expect_code(0);
    let status: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(status["pid"], proxy.pid());
    assert_eq!(status["state"], "serving");
}

#[test]
fn what_cannot_be_watched_is_said_with_cause_and_cure() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = watched(&backend);
    let (http, https) = (proxy.http(), proxy.address("https"));
    for (place, words) in [
        ("http://127.0.0.1:1/status".to_owned(), &["Connection refused", "is longsplice running there?"][..]),
        ("unix:/nowhere.sock:/status".to_owned(), &["No such file", "is longsplice running there?"]),
        (format!("http://{http}/closed"), &["403", "allow"]),
        (format!("http://{http}/page"), &["no status JSON"]),
        (format!("https://{http}/status"), &["http://"]),
        (format!("https://{https}/status"), &["certificate", "--insecure"]),
        ("ftp://x/".to_owned(), &["ftp://", "unix:SOCKET"]),
    ] {
        top(&["--once", &place]).expect_code(1).expect(words);
    }
    let file = Proxy::config("server { listen %http%; location = /s { return 204; } }").start();
    let file = file.dir().join("nginx.conf").display().to_string();
    top(&["-c", &file]).expect_code(1).expect(&["no status location", "location = /status {"]);
    top(&["-c", "/nowhere.conf"]).expect_code(1).expect(&["/nowhere.conf"]);
}

/// A terminal of 80 columns and 24 lines around a command: util-linux' script(1) makes it. The terminal's settings are told
/// before and behind, as `settings ...`.
fn in_terminal(command: &str) -> Option<(Running, ChildStdin)> {
    let script = external("script")?;
    let inside =
        format!("stty rows 24 cols 80; echo settings $(stty -g); {command}; echo ended $?; echo settings $(stty -g)");
    let mut terminal = Command::new(script);
    terminal.args(["-q", "-e", "-c", &inside, "/dev/null"]).env("TERM", "xterm-256color");
    Some(Running::spawn_interactive(&mut terminal))
}

#[track_caller]
fn shows(terminal: &Running, words: &str) {
    if !eventually(|| terminal.said().contains(words)) {
        let said = terminal.said();
        let last: String = said.chars().skip(said.chars().count().saturating_sub(3000)).collect();
        panic!("no {words:?} on the screen; last it wrote:\n{last:?}");
    }
}

/// The screen is left, the cursor is back, and the terminal is as it was.
#[track_caller]
fn is_given_back(terminal: &Running) {
    shows(terminal, "ended ");
    let settings = || -> Vec<String> {
        let said = terminal.said();
        let lines = said.lines().filter_map(|line| line.split_once("settings ").map(|(_, settings)| settings));
        lines.map(|settings| settings.trim().to_owned()).collect()
    };
    assert!(eventually(|| settings().len() == 2), "{:?}", terminal.said());
    let both = settings();
    assert_eq!(both[0], both[1], "the terminal's settings");
    let said = terminal.said();
    let (_, behind) = said.rsplit_once("\x1b[?1049l").expect("the alternate screen is left");
    assert!(behind.contains("ended"), "{said:?}");
    assert!(said.contains("\x1b[?25h"), "the cursor is shown again: {said:?}");
}

#[test]
fn in_a_terminal_it_answers_to_keys_and_gives_the_terminal_back() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = watched(&backend);
    let open = tunnels(&proxy, 3);
    let command = format!("{} top -d 0.2 http://{}/status", executable().display(), proxy.http());
    let Some((mut terminal, mut keyboard)) = in_terminal(&command) else { return };
    shows(&terminal, "\x1b[?1049h");
    shows(&terminal, "3 ");
    shows(&terminal, &backend.address().to_string());
    keyboard.write_all(b"3s").expect("a keyboard");
    shows(&terminal, "by Tunnel");
    keyboard.write_all(b"h").expect("a keyboard");
    shows(&terminal, "sort the other way round");
    keyboard.write_all(b"p").expect("a keyboard");
    shows(&terminal, "paused");
    keyboard.write_all(b"pq").expect("a keyboard");
    is_given_back(&terminal);
    shows(&terminal, "ended 0");
    assert!(terminal.wait().success());
    drop(open);
}

#[test]
fn a_signal_gives_the_terminal_back_too() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = watched(&backend);
    let inside = format!("{} top http://{}/status", executable().display(), proxy.http());
    let Some((mut terminal, keyboard)) = in_terminal(&format!("timeout --foreground 2 {inside}")) else { return };
    is_given_back(&terminal);
    let _ = terminal.wait();
    drop(keyboard);
}

#[test]
fn a_server_that_goes_leaves_its_last_figures_and_keys_that_work() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = watched(&backend);
    let command = format!("{} top -d 0.2 http://{}/status", executable().display(), proxy.http());
    let Some((mut terminal, mut keyboard)) = in_terminal(&command) else { return };
    shows(&terminal, "Tunnels");
    assert!(proxy.end_by(Signal::SIGTERM).success());
    shows(&terminal, "No answer");
    let asked = Instant::now();
    keyboard.write_all(b"q").expect("a keyboard");
    is_given_back(&terminal);
    assert!(asked.elapsed() < Duration::from_secs(5), "a server that is gone does not hold the keys");
    assert!(terminal.wait().success());
}
