//! Where the logs go: no room, no directory, nothing that may be written.

use std::{fs, io::Write, path::PathBuf};

use nix::sys::signal::Signal;

use super::tunnels;
use crate::util::{
    Backend, Leaks, Proxy, absent, beyond_nginx, eventually, external, host::lines, leaks::figure, proxy::Setup,
};

/// A directory `logs` that is a file system of its own, of 64 KiB: in a mount namespace that goes with the process. None where such
/// namespaces may not be made.
fn with_a_small_disk(setup: Setup) -> Option<Setup> {
    let unshare = external("unshare")?;
    let may = std::process::Command::new(&unshare)
        .args(["-rm", "mount", "-t", "tmpfs", "x", "/mnt"])
        .status()
        .is_ok_and(|status| status.success());
    if absent("a mount namespace of our own", may) {
        return None;
    }
    fs::create_dir(setup.dir().join("logs")).expect("a directory");
    let script = "mount -t tmpfs -o size=64k,mode=777 logs \"$0\" && exec \"$@\"";
    Some(setup.started_by(&unshare, &["-rm", "sh", "-c", script, "%dir%/logs"]))
}

/// Where the process sees it.
fn inside(proxy: &Proxy, name: &str) -> PathBuf {
    let dir = proxy.dir().strip_prefix("/").expect("an absolute path").join("logs");
    PathBuf::from(format!("/proc/{}/root", proxy.pid())).join(dir).join(name)
}

fn read(proxy: &Proxy, name: &str) -> String {
    fs::read_to_string(inside(proxy, name)).unwrap_or_default()
}

const TEXT: &str = "log_format short '$uri $status $close_reason';
    server { listen %http%; listen %https% ssl; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
        access_log %dir%/logs/access.log short; location / { proxy_pass http://%backend%; } }";

/// A site whose error log is there, too, and nowhere else.
fn site(backend: &Backend, main: &str) -> Option<Setup> {
    let setup = Proxy::config(TEXT).main(main).certificate("x", &["x"]).watched().set("backend", backend.address());
    with_a_small_disk(setup)
}

#[test]
fn a_full_disk_costs_lines_that_are_told_of_once_there_is_room() {
    beyond_nginx!();
    let backend = Backend::echo();
    // All that is said is said there: nobody can be told while it lasts.
    let main = "user root; worker_processes 1; error_log %dir%/logs/error.log notice;";
    let Some(setup) = site(&backend, main) else { return };
    let proxy = setup.start();
    assert_eq!(proxy.get("/first").status(), 200);
    assert!(eventually(|| read(&proxy, "access.log").contains("/first 200")));
    let before = Leaks::of(&proxy);
    let mut open = tunnels(&proxy, 4);
    let rest = inside(&proxy, "rest");
    assert!(fs::write(&rest, vec![0; 1 << 20]).is_err(), "64 KiB and no more");
    // The page that the error log has begun is its own: it is filled, too.
    let error_log = fs::OpenOptions::new().append(true).open(inside(&proxy, "error.log"));
    assert!(error_log.and_then(|mut file| file.write_all(&[b'\n'; 8192])).is_err());
    let (lost_before, written) = (figure(&proxy, LOST), read(&proxy, "access.log").lines().count());
    // Past what its last page has room for.
    let mut asked = 0;
    while figure(&proxy, LOST) < lost_before + 300 {
        asked += 100;
        let mut client = proxy.connect();
        (0..100).for_each(|number| assert_eq!(client.get(&format!("/lost-{number}")).status(), 200));
        assert!(asked < 5000, "no line is lost");
    }
    open.iter_mut().for_each(|tunnel| tunnel.echoes("a disk is full"));
    assert_eq!(lines(&proxy, &["lost"]), 0, "nobody could be told");
    fs::remove_file(&rest).expect("room");
    assert_eq!(proxy.get("/room").status(), 200);
    let told = |name: &str| -> Option<i64> {
        let log = read(&proxy, "error.log");
        let words = format!(
            "lines for the log \"{}/logs/{name}\" were lost: write() failed (28: No space left on device)",
            proxy.dir().display()
        );
        let line = log.lines().find(|line| line.contains(&words))?.to_owned();
        line.split("[alert] ").nth(1)?.split_once(": ")?.1.split(' ').next()?.parse().ok()
    };
    assert!(eventually(|| told("access.log").is_some()), "{}", read(&proxy, "error.log"));
    assert!(
        eventually(|| read(&proxy, "access.log").contains("\n/room 200")),
        "{}\n{}",
        read(&proxy, "access.log"),
        read(&proxy, "error.log")
    );
    open.iter_mut().for_each(|tunnel| tunnel.echoes("there is room"));
    // Every line is in the file, whole, or counted and told of.
    let access = read(&proxy, "access.log");
    let kept = access.lines().filter(|line| line.contains("/lost-") && line.ends_with(" 200 -")).count() as i64;
    let lost = figure(&proxy, LOST) - lost_before;
    assert_eq!(kept + lost, asked, "kept and lost; {written} lines before:\n{}", read(&proxy, "error.log"));
    assert_eq!(told("access.log"), Some(lost), "told of");
    assert_eq!(read(&proxy, "error.log").lines().filter(|line| line.contains("were lost")).count(), 1);
    drop(open);
    // Lines that wait for their writer come in bursts, too.
    before.assert_same_within(&proxy, 16 << 20);
}

const LOST: &str = "longsplice_log_lines_total{result=\"lost\"}";

/// RLIMIT_FSIZE is a full disk of another kind: EFBIG, and SIGXFSZ, which ends who does not look out.
#[test]
fn a_log_at_its_file_size_limit_costs_lines_and_not_the_process() {
    beyond_nginx!();
    let backend = Backend::echo();
    let text = "log_format short '$uri $status';
        server { listen %http%; access_log %dir%/access.log short; location / { proxy_pass http://%backend%; } }";
    let proxy = Proxy::config(text).main("user root;").watched().set("backend", backend.address()).start();
    crate::util::host::set_limit(&proxy, crate::util::host::Limit::FileSize, Some(100));
    let mut client = proxy.connect();
    (0..50).for_each(|number| assert_eq!(client.get(&format!("/number-{number}")).status(), 200));
    proxy.logged(&["[alert]", "access.log\" were lost: write() failed (27: File too large)"]);
    assert!(figure(&proxy, LOST) > 0);
    crate::util::host::set_limit(&proxy, crate::util::host::Limit::FileSize, None);
    assert_eq!(client.get("/again").status(), 200);
    proxy.written("access.log", &["/again 200"]);
}

#[test]
fn a_log_directory_that_is_gone_or_read_only_is_told_of_and_lived_with() {
    beyond_nginx!();
    let backend = Backend::echo();
    let text = "log_format short '$uri $status';
        server { listen %http%; listen %https% ssl; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
            access_log %dir%/logs/access.log short; location / { proxy_pass http://%backend%; } }";
    let setup =
        Proxy::config(text).main("user root;").certificate("x", &["x"]).watched().set("backend", backend.address());
    let logs = setup.dir().join("logs");
    fs::create_dir(&logs).expect("a directory");
    let mut proxy = setup.start();
    let before = Leaks::of(&proxy);
    let mut open = tunnels(&proxy, 2);
    let moved = proxy.dir().join("moved");
    fs::rename(&logs, &moved).expect("another name");
    for (signal, words) in [
        (Signal::SIGUSR1, ["access.log\" failed (2: No such file or directory)", "the file that was open goes on"]),
        // What is open already goes on without being opened.
        (Signal::SIGHUP, ["configuration 2 is in use", "2 workers"]),
    ] {
        proxy.running().signal(signal);
        proxy.logged(&words);
        open.iter_mut().for_each(|tunnel| tunnel.echoes("no directory"));
    }
    assert_eq!(proxy.get("/gone").status(), 200);
    assert!(eventually(|| fs::read_to_string(moved.join("access.log")).is_ok_and(|log| log.contains("/gone 200"))));
    // A directory that is removed with the file in it is no different.
    fs::remove_dir_all(&moved).expect("it goes");
    assert_eq!(proxy.get("/nowhere").status(), 200);
    // A log that the new configuration names in addition cannot be opened there: nothing is changed.
    proxy.rewrite(
        "user root;",
        &text.replace("access_log %dir%/logs/access.log short;", "access_log %dir%/logs/other.log short;"),
    );
    proxy.running().signal(Signal::SIGHUP);
    proxy.logged(&["[emerg]", "other.log\" failed (2: No such file or directory)", "mkdir -p"]);
    open.iter_mut().for_each(|tunnel| tunnel.echoes("as before"));
    fs::create_dir(&logs).expect("a directory");
    proxy.running().signal(Signal::SIGUSR1);
    assert!(eventually(|| logs.join("access.log").exists()));
    assert_eq!(proxy.get("/back").status(), 200);
    assert!(eventually(|| fs::read_to_string(logs.join("access.log")).is_ok_and(|log| log.contains("/back 200"))));
    assert_eq!(lines(&proxy, &["[error]"]), 1, "{}", proxy.log());
    drop(open);
    before.assert_same(&proxy);
}

#[test]
fn a_read_only_file_system_keeps_logs_from_being_made_anew_and_nothing_else() {
    beyond_nginx!();
    let backend = Backend::echo();
    let Some(setup) = site(&backend, "user root; worker_processes 1;") else { return };
    let mut proxy = setup.start();
    let mut open = tunnels(&proxy, 2);
    assert_eq!(proxy.get("/before").status(), 200);
    let over = std::process::Command::new("nsenter")
        .args(["-t", &proxy.pid().to_string(), "-U", "-m", "--preserve-credentials"])
        .args(["mount", "-t", "tmpfs", "-o", "ro", "over", &proxy.dir().join("logs").display().to_string()])
        .output()
        .expect("nsenter(1) of util-linux");
    assert!(over.status.success(), "{}", String::from_utf8_lossy(&over.stderr));
    proxy.running().signal(Signal::SIGUSR1);
    proxy.logged(&["[error]", "access.log\" failed (30: Read-only file system), the file that was open goes on"]);
    open.iter_mut().for_each(|tunnel| tunnel.echoes("read-only"));
    assert_eq!(proxy.get("/after").status(), 200);
    assert_eq!(lines(&proxy, &["[error]"]), 1, "{}", proxy.log());
}
