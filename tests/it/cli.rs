//! The command line: what it prints, how it ends, what it says of a bad file.

use std::{fs, path::Path, process::Command, time::Duration};

use nix::sys::signal::Signal;

use crate::util::{
    Backend, Proxy, Wire, beyond_nginx, eventually, frames, ports,
    process::{Finished, Running, finish},
    proxy::executable,
    tls,
};

/// Runs the program with these arguments to its end.
fn run(arguments: &[&str]) -> Finished {
    finish(Command::new(executable()).args(arguments))
}

const GOOD: &str = "server { listen %http%; location / { return 200 ok; } }";

#[test]
fn versions_and_help() {
    run(&["-v"]).expect_code(0).expect(&["longsplice", env!("CARGO_PKG_VERSION")]);
    run(&["-V"]).expect_code(0).expect(&[env!("CARGO_PKG_VERSION")]);
    run(&["--help"]).expect_code(0).expect(&["-c", "-t", "-T", "-s", "-p", "-g", "-q", "--listen", "--to"]);
    run(&["-h"]).expect_code(0).expect(&["-c"]);
}

#[test]
fn an_unknown_option_is_named() {
    let finished = run(&["--lisen", "x"]);
    assert_ne!(finished.code(), 0);
    finished.expect(&["--lisen"]);
}

#[test]
fn a_good_file_tests_successful() {
    Proxy::config(GOOD).run(&["-t"]).expect_code(0).expect(&["syntax is ok", "test is successful", "nginx.conf"]);
}

#[test]
fn quiet_says_only_what_is_wrong() {
    let finished = Proxy::config(GOOD).run(&["-t", "-q"]);
    finished.expect_code(0);
    assert!(!finished.said().contains("successful"), "{}", finished.said());
}

#[test]
fn dump_prints_every_file_of_the_configuration() {
    let setup = Proxy::config("include %dir%/conf.d/*.conf;")
        .file("conf.d/a.conf", "map $uri $a { default 1; }\n")
        .file("conf.d/b.conf", "server { listen %http%; return 200 ok; }\n");
    let finished = setup.run(&["-T"]);
    finished.expect_code(0).expect(&[
        "# configuration file",
        "nginx.conf",
        "conf.d/a.conf",
        "conf.d/b.conf",
        "map $uri $a",
    ]);
}

#[test]
fn testing_neither_listens_nor_disturbs_a_running_instance() {
    let backend = Backend::echo();
    let text = "server { listen %http%; location / { proxy_pass http://%backend%; } }";
    let proxy = Proxy::config(text).set("backend", backend.address()).start();
    let mut client = proxy.connect();
    if !crate::util::proxy::nginx_stands_in() {
        client.websocket("/");
    }
    Proxy::config(text).set("backend", backend.address()).set("http", proxy.http()).run(&["-t"]).expect_code(0);
    if !crate::util::proxy::nginx_stands_in() {
        client.echoes("still here");
    }
}

#[test]
fn every_error_of_a_file_is_named_with_its_place_in_one_run() {
    beyond_nginx!();
    let text = "\
http {
    proxy_raed_timeout 5s;
    server {
        listen 127.0.0.1:99999;
        location / {
            proxy_pass http://127.0.0.1:3000;
            proxy_set_header X $no_such_variable;
            proxy_read_timeout 5parsecs;
        }
        location /a {
            auth_basic \"closed\";
        }
        location ~ ( {
        }
    }
}
";
    let finished = Proxy::config(text).verbatim().run(&["-t"]);
    finished.expect_code(1).expect(&[
        "nginx.conf:2:5",
        "proxy_raed_timeout",
        "proxy_read_timeout",
        "nginx.conf:4:16",
        "99999",
        "nginx.conf:7:",
        "no_such_variable",
        "nginx.conf:8:32",
        "5parsecs",
        "nginx.conf:11:13",
        "auth_basic",
        "nginx.conf:13:",
        "test failed",
    ]);
}

#[test]
fn broken_syntax_is_named_with_its_place() {
    for (text, words) in [
        ("http { server { listen 127.0.0.1:1; ", vec!["nginx.conf:1", "}"]),
        ("http { server { listen 127.0.0.1:1 } }", vec!["nginx.conf:1"]),
        ("http { server { listen 127.0.0.1:1; } } }", vec!["nginx.conf:1", "}"]),
        ("http { server { server_name \"x; } }", vec!["nginx.conf:1"]),
        ("http { include; }", vec!["include"]),
        ("events { } http { server { listen 127.0.0.1:1; listen 127.0.0.1:1; } }", vec!["127.0.0.1:1"]),
        ("http { server { location / { } location / { } } }", vec!["/"]),
        ("http { server { proxy_pass http://127.0.0.1:1; } }", vec!["proxy_pass"]),
        ("http { upstream u { } server { } }", vec!["u"]),
        ("http { server { location / { proxy_pass http://u:; } } }", vec!["u:"]),
    ] {
        let finished = Proxy::config(text).verbatim().run(&["-t"]);
        assert_eq!(finished.code(), 1, "{text}: {}", finished.said());
        finished.expect(&words);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_its_cause() {
    run(&["-t", "-c", "/no/such/file.conf"]).expect_code(1).expect(&["/no/such/file.conf", "No such file"]);
    run(&["-t", "-c", "/tmp"]).expect_code(1).expect(&["/tmp"]);
}

#[test]
fn a_missing_include_is_named_and_an_empty_glob_is_none() {
    let missing = Proxy::config("include %dir%/nowhere.conf;\nserver { listen %http%; return 200 ok; }").run(&["-t"]);
    missing.expect_code(1).expect(&["nowhere.conf", "No such file", "nginx.conf:"]);
    Proxy::config("include %dir%/nothing.d/*.conf;\nserver { listen %http%; return 200 ok; }")
        .run(&["-t"])
        .expect_code(0);
}

#[test]
fn a_file_that_includes_itself_ends_with_an_error() {
    beyond_nginx!();
    Proxy::config("include %dir%/loop.conf;")
        .file("loop.conf", "include %dir%/loop.conf;\n")
        .run(&["-t"])
        .expect_code(1)
        .expect(&["loop.conf"]);
}

#[test]
fn certificates_that_cannot_be_used_are_named_with_cause() {
    const SERVER: &str = "server { listen %https% ssl;\n ssl_certificate %dir%/x.crt;\n ssl_certificate_key %dir%/x.key;\n return 200 ok; }";
    let missing = Proxy::config(SERVER).run(&["-t"]);
    missing.expect_code(1).expect(&["x.crt", "No such file"]);
    let broken = Proxy::config(SERVER).file("x.crt", "no certificate\n").file("x.key", "no key\n").run(&["-t"]);
    broken.expect_code(1).expect(&["x.crt"]);
    let setup = Proxy::config(&SERVER.replace("x.key", "y.key")).certificate("x", &["x"]).certificate("y", &["y"]);
    setup.run(&["-t"]).expect_code(1).expect(&["key"]);
    let none = Proxy::config("server { listen %https% ssl; return 200 ok; }").run(&["-t"]);
    if !crate::util::proxy::nginx_stands_in() {
        none.expect_code(1).expect(&["ssl_certificate"]);
    }
}

#[test]
fn a_taken_port_is_named_and_nothing_starts() {
    let taken = Proxy::config(GOOD).start();
    let finished = Proxy::config(GOOD).set("http", taken.http()).run(&[]);
    finished.expect_code(1).expect(&[&taken.http().to_string(), "Address already in use"]);
    assert_eq!(taken.get("/").text(), "ok", "and the other one serves on");
}

#[test]
fn settings_not_built_yet_are_refused_and_never_ignored() {
    beyond_nginx!();
    for (http, server) in
        [("geo $a { default 1; }", ""), ("", "ssl_verify_client on;"), ("upstream u { server a:1; ip_hash; }", "")]
    {
        let text = format!("{http}\nserver {{ listen %http%; {server} return 200 ok; }}");
        Proxy::config(&text).run(&["-t"]).expect_code(1).expect(&["not supported yet"]);
    }
    for directive in ["proxy_cache zone;", "fastcgi_pass 127.0.0.1:9000;", "auth_basic x;"] {
        let text = format!("server {{ listen %http%; location / {{ {directive} }} }}");
        Proxy::config(&text).run(&["-t"]).expect_code(1).expect(&[directive.split(' ').next().unwrap_or_default()]);
    }
}

#[test]
fn what_cannot_matter_is_accepted_with_a_note() {
    let text = "sendfile on; tcp_nopush on; types_hash_max_size 2048; gzip off; proxy_buffering off; proxy_max_temp_file_size 0;
        server { listen %http%; location / { proxy_pass http://127.0.0.1:1; proxy_cache_bypass $http_upgrade; proxy_buffering off; } }";
    let finished = Proxy::config(text).run(&["-t"]);
    finished.expect_code(0);
    if !crate::util::proxy::nginx_stands_in() {
        finished.expect(&["sendfile", "proxy_cache_bypass"]);
    }
}

#[test]
fn main_directives_come_from_the_command_line_too() {
    let finished = Proxy::config(GOOD).main("error_log %dir%/error.log;").run(&[
        "-t",
        "-g",
        "worker_processes 3; worker_rlimit_nofile;",
    ]);
    finished.expect_code(1).expect(&["worker_rlimit_nofile"]);
}

fn pid_of(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[test]
fn the_pid_file_is_there_while_it_runs() {
    let proxy = Proxy::config(GOOD).start();
    let file = proxy.dir().join("proxy.pid");
    assert!(eventually(|| pid_of(&file) == Some(proxy.pid())), "{:?}", fs::read_to_string(&file));
    let copy = file.clone();
    // The directory goes with the proxy: look before that.
    let mut proxy = proxy;
    proxy.running().signal(Signal::SIGTERM);
    assert!(proxy.running().wait().success());
    // Who gave up root cannot remove a file from root's directory, and empties it instead.
    assert_eq!(pid_of(&copy), None, "and names nobody when it has ended");
}

#[test]
fn both_signals_end_it_with_status_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        assert!(Proxy::config(GOOD).start().end_by(signal).success(), "{signal}");
    }
}

#[test]
fn stop_ends_a_running_instance_at_once() {
    let backend = Backend::echo();
    let mut proxy = Proxy::before(backend.address(), crate::util::Driver::Epoll);
    let mut client = proxy.tunnel("/");
    let stop = tell(&proxy, "stop");
    stop.expect_code(0);
    assert!(proxy.running().wait().success());
    assert_eq!(client.ending().1, crate::util::Ending::Closed);
}

#[test]
fn quit_lets_what_runs_end() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = Proxy::config("server { listen %http%; location / { proxy_pass http://%backend%; } }")
        .main("drain_timeout 1h; worker_shutdown_timeout 2h;")
        .set("backend", backend.address())
        .start();
    let mut client = proxy.tunnel("/");
    tell(&proxy, "quit").expect_code(0);
    client.echoes("until the end");
    assert!(proxy.running().ended().is_none(), "a tunnel is open");
    client.finish();
    drop(client);
    assert!(proxy.running().wait().success());
}

/// `-s SIGNAL` with the running instance's own file.
fn tell(proxy: &Proxy, signal: &str) -> Finished {
    let file = proxy.dir().join("nginx.conf");
    let program = if crate::util::proxy::nginx_stands_in() { Path::new("/usr/sbin/nginx") } else { executable() };
    finish(Command::new(program).arg("-c").arg(file).arg("-p").arg(proxy.dir()).args(["-s", signal]))
}

#[test]
fn a_signal_for_nobody_says_so() {
    let finished = Proxy::config(GOOD).run(&["-s", "stop"]);
    finished.expect_code(1).expect(&["proxy.pid"]);
    let unknown = Proxy::config(GOOD).run(&["-s", "dance"]);
    assert_ne!(unknown.code(), 0);
    unknown.expect(&["dance"]);
}

#[test]
fn reload_and_reopen_reach_the_running_instance() {
    beyond_nginx!();
    let proxy = Proxy::config(GOOD).start();
    for (order, signal) in [("reload", "SIGHUP"), ("reopen", "SIGUSR1")] {
        tell(&proxy, order).expect_code(0);
        proxy.logged(&[signal]);
    }
    assert_eq!(proxy.get("/").text(), "ok", "and leave the running instance alone");
}

#[test]
fn listen_and_to_need_no_file() {
    beyond_nginx!();
    let backend = Backend::echo();
    let port = ports::free();
    let mut running = Running::spawn(Command::new(executable()).args([
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--to",
        &backend.address().to_string(),
        "--idle-timeout",
        "2s",
    ]));
    assert!(eventually(|| ports::listened_on(port) || running.ended().is_some()), "{}", running.said());
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    let head = Wire::connect(address).ask("GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n").mirrored();
    assert_eq!((head.target(), head.get("host")), ("/a", Some("site.example")));
    let mut client = Wire::connect(address);
    client.websocket("/");
    client.echoes("without a file");
    client.patience(Duration::from_secs(10)).expect_gone();
}

#[test]
fn listen_and_to_take_a_certificate() {
    beyond_nginx!();
    let backend = Backend::echo();
    let port = ports::free();
    let dir = tempfile::TempDir::new().expect("a directory");
    tls::write_certificate(dir.path(), "x", &["x"], tls::Key::Ecdsa);
    let mut running = Running::spawn(
        Command::new(executable())
            .args(["--listen", &format!("127.0.0.1:{port}"), "--to", &backend.address().to_string()])
            .arg("--tls-cert")
            .arg(dir.path().join("x.crt"))
            .arg("--tls-key")
            .arg(dir.path().join("x.key")),
    );
    assert!(eventually(|| ports::listened_on(port) || running.ended().is_some()), "{}", running.said());
    let mut client =
        tls::connect(format!("127.0.0.1:{port}").parse().expect("an address"), "x", &tls::Client::default());
    client.websocket("/");
    client.echoes("over TLS");
}

#[test]
fn listen_without_to_is_refused() {
    beyond_nginx!();
    assert_ne!(run(&["--listen", "127.0.0.1:1"]).code(), 0);
    assert_ne!(run(&["--to", "127.0.0.1:1"]).code(), 0);
    assert_ne!(run(&["--listen", "127.0.0.1:1", "--to", "x", "-c", "y"]).code(), 0);
}

#[test]
fn without_arguments_it_is_a_demo_that_can_be_talked_to() {
    beyond_nginx!();
    let demo = crate::clients::Demo::start();
    let page = Wire::connect(demo.http).get("/");
    assert_eq!(page.status(), 200);
    for id in ["state", "name", "text", "send", "log", "echo-text", "echo-send", "echo-log"] {
        assert!(page.text().contains(&format!("id=\"{id}\"")), "no #{id} on the page");
    }
    let said = demo.running.said();
    for word in ["proxy_pass", "wscat", "curl", "ws://", "wss://"] {
        assert!(said.contains(word), "no {word:?} in what it prints:\n{said}");
    }
    let mut client = Wire::connect(demo.http);
    client.send(frames::request(&demo.echo_path, &demo.http.to_string()));
    assert_eq!(client.head().status(), 101);
    client.echoes("hello demo");
    let mut secure = tls::connect(demo.https, "localhost", &tls::Client::default());
    secure.send(frames::request(&demo.echo_path, &demo.https.to_string()));
    assert_eq!(secure.head().status(), 101);
    secure.echoes("hello secure demo");
}

#[test]
fn a_demo_whose_ports_are_taken_picks_others_and_says_so() {
    beyond_nginx!();
    // Whoever comes second: both live at once.
    let (one, two) = (crate::clients::Demo::start(), crate::clients::Demo::start());
    assert_ne!(one.http, two.http);
    assert_ne!(one.https, two.https);
    assert_eq!(Wire::connect(one.http).get("/").status(), 200);
    assert_eq!(Wire::connect(two.http).get("/").status(), 200);
}
