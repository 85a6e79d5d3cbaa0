//! Kernels that have less than this one, as the program sees them: calls and options that are not there. It says once what it lacks, and
//! serves. What it was run on besides: ARCHITECTURE, "Kernels".

use std::{process::Command, thread};

use nix::sys::signal::Signal;

use crate::util::{
    Backend, Driver, Proxy, Wire, beyond_nginx, eventually, frames,
    host::{failing, lines},
    on_both_drivers, pattern,
    process::finish,
    proxy::{Setup, executable},
};

on_both_drivers![the_calls_of_linux_4_18_are_enough];

/// All calls since Linux 5.1: io_uring, pidfd, clone3, close_range, openat2, epoll_pwait2, Landlock. Those of 4.18 end with 334.
const AFTER_4_18: &str = "424..";
/// SO_PEEK_OFF, which TCP has since Linux 6.9.
const PEEK_OFF: &str = "setsockopt:1=1,2=42";

fn site(backend: &Backend) -> Setup {
    let text = "server { listen %http%; listen %https% ssl; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
        location / { proxy_pass http://%backend%; } location = /pid { return 200 $pid; } location /status { status; } }";
    Proxy::config(text).main("drain_timeout 1h;").certificate("x", &["x"]).set("backend", backend.address())
}

/// Tunnels echo over ws and wss; what is long goes by splice(2).
fn serves(proxy: &Proxy) -> [Wire; 2] {
    let mut wires = [proxy.connect(), proxy.connect_tls("x")];
    for wire in &mut wires {
        wire.websocket("/");
        wire.echoes("small");
    }
    let message = pattern(1 << 20, 7);
    let stream = frames::client(frames::BINARY, &message);
    let mut writer = wires[0].writer();
    let writing = thread::spawn(move || {
        writer.send_in_pieces(&*stream, 300_001);
    });
    assert!(wires[0].frame() == (frames::BINARY, message), "bytes were altered");
    writing.join().expect("the writer");
    wires
}

/// Warnings about what this host lacks; a test's own file causes no other.
fn warnings(proxy: &Proxy) -> Vec<String> {
    let log = proxy.log();
    log.lines()
        .filter(|line| line.contains("[warn]") && line.contains("missing on this host"))
        .map(str::to_owned)
        .collect()
}

fn status(proxy: &Proxy) -> String {
    String::from_utf8(proxy.get("/status?json").body).expect("JSON")
}

/// One line says what is missing and why, also where workers lack it too; and so does the status.
#[test]
fn what_the_sandbox_lacks_is_told_of_once() {
    beyond_nginx!();
    const NO_LANDLOCK: &str = "capabilities, no_new_privs, dumpable, seccomp; missing on this host: Landlock";
    const NO_FILTERS: &str = "missing on this host: seccomp (kernel without CONFIG_SECCOMP_FILTER)";
    for (errno, call, what) in [
        ("ENOSYS", "landlock_create_ruleset", format!("{NO_LANDLOCK} (kernel before 5.13, or without it)")),
        ("EOPNOTSUPP", "landlock_create_ruleset", format!("{NO_LANDLOCK} (not in the kernel's lsm= list)")),
        ("EPERM", "landlock_create_ruleset", format!("{NO_LANDLOCK} (kernel before 5.13, or without it)")),
        ("ENOSYS", "seccomp", NO_FILTERS.to_owned()),
        ("EINVAL", "seccomp", NO_FILTERS.to_owned()),
        ("EPERM", "seccomp", "missing on this host: seccomp (1: Operation not permitted)".to_owned()),
    ] {
        let backend = Backend::echo();
        let Some(setup) = failing(site(&backend), errno, &[call]) else { return };
        let proxy = setup.start();
        let _open = serves(&proxy);
        let warnings = warnings(&proxy);
        assert!(warnings.len() == 1 && warnings[0].contains(&what), "{errno} {call}: {warnings:?}");
        assert_eq!(lines(&proxy, &["sandbox:"]), 1, "{}", proxy.log());
        assert!(status(&proxy).contains(&what), "{errno} {call}");
    }
}

#[test]
fn without_a_ring_workers_run_on_epoll_and_say_so_once() {
    beyond_nginx!();
    // EPERM: kernel.io_uring_disabled, and the filters of containers.
    for errno in ["ENOSYS", "EPERM", "ENOMEM"] {
        let backend = Backend::echo();
        let Some(setup) = failing(site(&backend).on(Driver::IoUring), errno, &["io_uring_setup"]) else { return };
        let proxy = setup.start();
        let _open = serves(&proxy);
        proxy.logged(&[" ready: ", ", 2 workers, epoll"]);
        proxy.logged(&["[warn]", "workers run on epoll: io_uring is not to be had"]);
        assert_eq!(lines(&proxy, &["io_uring"]), 1, "{}", proxy.log());
    }
}

/// Not RHEL 8's kernel, which has more behind the same numbers; but nothing that this program does may need more than them.
fn the_calls_of_linux_4_18_are_enough(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let setup = site(&backend).on(driver);
    let Some(setup) = failing(setup, "ENOSYS", &[AFTER_4_18, "EOPNOTSUPP", PEEK_OFF]) else { return };
    let mut proxy = setup.start();
    let mut open = serves(&proxy);
    assert_eq!(warnings(&proxy).len(), 1, "{}", proxy.log());
    proxy.running().signal(Signal::SIGHUP);
    proxy.logged(&["configuration 2 is in use"]);
    drop(serves(&proxy));
    let tell = |order: &str| {
        let mut command = Command::new(executable());
        command.arg("-c").arg(proxy.dir().join("nginx.conf")).arg("-p").arg(proxy.dir()).args(["-s", order]);
        finish(&mut command).expect_code(0);
    };
    tell("upgrade");
    let served_by = || String::from_utf8(proxy.get("/pid").body).expect("a number");
    assert!(eventually(|| served_by() != proxy.pid().to_string()));
    drop(serves(&proxy));
    open.iter_mut().for_each(|wire| wire.echoes("as before"));
    drop(open);
    tell("quit");
}
