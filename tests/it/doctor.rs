//! `longsplice doctor` on this host, whatever it is: what it says, how it ends, and that it touches nothing.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::util::{
    Proxy, external,
    process::{Finished, finish},
    proxy::executable,
    tls,
};

fn doctor(arguments: &[&str]) -> Finished {
    finish(Command::new(executable()).arg("doctor").args(arguments))
}

/// A directory with a file of this text.
fn file(text: &str) -> (TempDir, String) {
    let dir = TempDir::with_prefix("longsplice-").expect("a directory");
    let path = dir.path().join("nginx.conf");
    fs::write(&path, text).expect("a file");
    (dir, path.display().to_string())
}

const SMALL: &str =
    "events {} http { server { listen 127.0.0.1:80; location / { proxy_pass http://127.0.0.1:3000; } } }";

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error} in {}", finished.said()))
}

#[track_caller]
fn finding<'a>(json: &'a Value, name: &str) -> &'a Value {
    let findings = json["findings"].as_array().expect("findings");
    findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no {name} in {findings:#?}"))
}

#[test]
fn a_hundred_million_tunnels_bite_and_the_cure_is_named() {
    let (_dir, path) = file(SMALL);
    let finished = doctor(&["-c", &path, "--connections", "100000000"]);
    finished.expect_code(1).expect(&[
        "100,000,000 tunnels",
        "bad",
        "LimitNOFILE",
        "now:",
        "keep:",
        "will bite:",
        &path,
    ]);
}

#[test]
fn the_exit_status_is_the_worst_finding() {
    let (_dir, path) = file(SMALL);
    let finished = doctor(&["-c", &path, "--connections", "1", "--json"]);
    let bad = json(&finished)["mark"] == "bad";
    finished.expect_code(i32::from(bad));
    let huge = doctor(&["-c", &path, "--connections", "100000000", "--json"]);
    huge.expect_code(1);
    assert_eq!(json(&huge)["mark"], "bad");
    assert_eq!(json(&huge)["needs"]["tunnels"], 100_000_000);
}

#[test]
fn bad_usage_and_a_broken_file_are_no_answer() {
    doctor(&["--connections", "0"]).expect_code(2).expect(&["--connections"]);
    doctor(&["--conections", "1"]).expect_code(2).expect(&["--connections"]);
    doctor(&["-c", "/nowhere/nginx.conf"]).expect_code(2).expect(&["/nowhere/nginx.conf"]);
    let (_dir, path) = file("http { server { listen 80; proxy_raed_timeout 1s; } }");
    doctor(&["-c", &path]).expect_code(2).expect(&["nginx.conf:1:", "proxy_read_timeout", "cannot be used"]);
    doctor(&["--help"]).expect_code(0).expect(&["--connections", "--json", "Exit status"]);
}

#[test]
fn the_running_process_is_found_by_its_pid_file() {
    let proxy = Proxy::config("server { listen %http%; return 200 ok; }").start();
    let path = proxy.dir().join("nginx.conf").display().to_string();
    let answer = json(&doctor(&["-c", &path, "-p", &proxy.dir().display().to_string(), "--json"]));
    assert_eq!(answer["pid"], proxy.pid());
    // The file's own limits: two workers with 9,000 connections each, of both sides.
    assert_eq!((&answer["needs"]["tunnels"], &answer["needs"]["workers"]), (&9_000.into(), &2.into()));
    assert!(finding(&answer, "LimitNOFILE")["found"].as_str().unwrap_or_default().contains("of the running process"));
}

#[test]
fn certificates_keys_and_log_directories_are_looked_at() {
    let (dir, path) = file(
        "events {} http { access_log logs/access.log; server { listen 127.0.0.1:443 ssl; ssl_certificate site.crt;
         ssl_certificate_key site.key; return 204; } }",
    );
    fs::create_dir(dir.path().join("logs")).expect("a directory");
    tls::write_certificate(dir.path(), "site", &["localhost"], tls::Key::Ecdsa);
    let key = dir.path().join("site.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("its mode");
    let named = |what: &str, path: &Path| format!("{what} {}", path.display());
    let answer = json(&doctor(&["-c", &path, "--json"]));
    let certificate = finding(&answer, &named("certificate", &dir.path().join("site.crt")));
    assert!(certificate["mark"] == "ok" && certificate["found"].as_str().unwrap_or_default().ends_with(" days left"));
    let open = finding(&answer, &named("key", &key));
    assert_eq!(
        (open["mark"].as_str(), open["now"].as_str()),
        (Some("warn"), Some(&*format!("chmod o= {}", key.display())))
    );
    finding(&answer, &named("logs", &dir.path().join("logs")));
    assert_eq!(answer["needs"]["tls"], true);
}

#[test]
fn it_opens_nothing_for_writing_and_changes_no_limit() {
    let Some(strace) = external("strace") else { return };
    let (dir, path) = file(SMALL);
    let trace = dir.path().join("trace");
    let calls = "trace=openat,open,creat,mkdir,unlink,rename,prlimit64,setrlimit,bind,connect,fork,execve,kill";
    let finished = finish(
        Command::new(strace)
            .args(["-f", "-e", calls, "-o"])
            .arg(&trace)
            .arg(executable())
            .args(["doctor", "-c", &path]),
    );
    finished.expect(&["net.core.somaxconn"]);
    let trace = fs::read_to_string(trace).expect("the trace");
    assert!(trace.contains("proc/sys/net/core/somaxconn"), "{trace}");
    // The first execve is strace's own.
    let suspect = |line: &&str| {
        let opens = line.contains("open") && ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| line.contains(flag));
        let others = ["creat(", "mkdir(", "unlink(", "rename(", "setrlimit(", "bind(", "connect(", "fork(", "kill("];
        // prlimit64(pid, resource, new, old): reading has no new one.
        let sets = line.contains("prlimit64(") && !line.contains(", NULL, ");
        opens || sets || others.iter().any(|call| line.contains(call))
    };
    let wrong: Vec<&str> = trace.lines().filter(suspect).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn testing_a_file_warns_of_this_host_in_the_same_words() {
    let (_dir, path) = file(
        "worker_rlimit_nofile 900000000; events {} http { server { listen 127.0.0.1:80 backlog=2000000000; return 204; } }",
    );
    let tested = finish(Command::new(executable()).args(["-t", "-c", &path]));
    tested.expect(&["LimitNOFILE is", "net.core.somaxconn is", "at least 2,000,000,000"]);
    let judged = json(&doctor(&["-c", &path, "--json"]));
    let says = finding(&judged, "net.core.somaxconn")["says"].as_str().unwrap_or_default();
    assert!(!says.is_empty() && tested.said().contains(says), "{says:?} in {}", tested.said());
}
