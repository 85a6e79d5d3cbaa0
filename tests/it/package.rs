//! The Debian package under systemd: installed, started, reloaded, upgraded and removed on a copy of this machine that is thrown
//! away. The copy is an overlay of `/` whose changes stay in memory, booted by systemd-nspawn with processes, network and
//! services of its own; what runs there is this test binary once more.

use std::{
    collections::BTreeSet,
    env, fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::util::{
    Backend, Wire, backend, eventually,
    external::external,
    frames,
    process::{Finished, finish},
    proxy::executable,
    tls,
};

/// Boots the copy in a mount namespace of its own, so that whatever happens nothing stays mounted. `$1`: an empty directory,
/// `$2`: what the copy finds at /package.
const BOOT: &str = "
    set -e
    mount -t tmpfs tmpfs $1
    mkdir $1/changes $1/work $1/machine
    mount -t overlay overlay -o lowerdir=/,upperdir=$1/changes,workdir=$1/work $1/machine
    # Containers forbid services to start at installation; this one may.
    rm -f $1/machine/usr/sbin/policy-rc.d
    cp $2/package-test.service $1/machine/etc/systemd/system/
    mkdir -p $1/machine/etc/systemd/system/longsplice.service.d
    cp $2/strict.conf $1/machine/etc/systemd/system/longsplice.service.d/
    exec systemd-nspawn --quiet --register=no --keep-unit --private-network --link-journal=no \
        --directory=$1/machine --bind=$2:/package --machine=package-test --boot \
        systemd.unit=package-test.service systemd.show_status=no
";

/// What the copy is booted for; its end ends the copy.
const TEST_UNIT: &str = "
    [Unit]
    SuccessAction=exit
    FailureAction=exit
    SuccessActionExitStatus=0
    FailureActionExitStatus=1

    [Service]
    Type=oneshot
    Environment=LONGSPLICE_PACKAGES=/package
    ExecStart=/package/test --ignored --exact --nocapture package::inside_the_copy
    StandardOutput=file:/package/output
    StandardError=file:/package/output
    TimeoutStartSec=100
";

/// The unit as it is shipped, but a system call that its filter leaves out kills the process instead of failing: what the
/// filter forgot cannot go unseen. And a watchdog that a process must feed several times within this test.
const STRICT: &str = "[Service]\nSystemCallErrorNumber=kill\nWatchdogSec=2\n";

/// What only packages of Debian's own archive must have: an address for mail, and a bug that asked for them.
const NOT_FOR_DEBIAN: &str = "bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs";

#[test]
fn a_package_lives_its_life_under_systemd() {
    let programs = ["cargo-deb", "dpkg-shlibdeps", "lintian", "systemd-nspawn", "unshare", "logrotate"];
    if programs.iter().any(|program| external(program).is_none()) {
        return;
    }
    // Not a matter of what is installed: a container, or who runs the tests.
    let may_mount = || finish(Command::new("unshare").args(["--mount", "--propagation=private", "true"])).code() == 0;
    if !geteuid().is_root() || !may_mount() {
        eprintln!("skipped: a copy of this machine is booted by root only, who may mount");
        return;
    }
    let dir = TempDir::with_prefix("longsplice-package-").expect("a directory");
    for revision in ["1", "2"] {
        build(dir.path(), revision);
    }
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on=warning", "--suppress-tags", NOT_FOR_DEBIAN]).arg(dir.path().join("1.deb"));
    finish(&mut lintian).expect_code(0);
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a file");
    write("package-test.service", TEST_UNIT);
    write("strict.conf", STRICT);
    fs::copy(env::current_exe().expect("this test"), dir.path().join("test")).expect("a copy of it");
    let root = TempDir::with_prefix("longsplice-machine-").expect("a directory");
    let mut boot = Command::new("unshare");
    boot.args(["--mount", "--propagation=private", "sh", "-c", BOOT, "boot"]).args([root.path(), dir.path()]);
    let boot = finish(&mut boot);
    let output = fs::read_to_string(dir.path().join("output")).unwrap_or_default();
    assert!(boot.code() == 0 && output.contains("test result: ok. 1 passed"), "{}\n{output}", boot.said());
}

/// `NAME.deb`, with the program under test as it was built for the tests.
fn build(dir: &Path, revision: &str) {
    let target = dir.join("target");
    fs::create_dir_all(target.join("release")).expect("a directory");
    let program = target.join("release/longsplice");
    if !program.exists() {
        fs::copy(executable(), &program).expect("the program");
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["deb", "--no-build", "--fast", "--strip", "--deb-revision", revision, "--output"]);
    cargo.arg(dir.join(format!("{revision}.deb"))).current_dir(env!("CARGO_MANIFEST_DIR"));
    finish(cargo.env("CARGO_TARGET_DIR", target)).expect_code(0);
}

#[test]
fn manual_pages_are_clean() {
    let Some(mandoc) = external("mandoc") else { return };
    for page in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/man")).expect("the pages") {
        let page = page.expect("a page").path();
        finish(Command::new(&mandoc).args(["-T", "lint", "-W", "warning"]).arg(page)).expect_code(0);
    }
}

#[test]
#[ignore = "it installs packages: for the copy of this machine that the other test boots"]
fn inside_the_copy() {
    let packages = PathBuf::from(env::var_os("LONGSPLICE_PACKAGES").expect("set by who boots the copy"));
    let before = traces();
    let _application = Backend::serve_at(address(3000), |wire, _| backend::echo(wire));
    install(&packages, "1");
    run("systemd-analyze", &["verify", "--man=no", "longsplice.service", "longsplice.socket"]);
    let first = Service::running();
    first.is_confined();
    let mut tunnel = tunnel();
    tunnel.echoes("through a fresh installation");

    for place in ["/longsplice/status", "/longsplice/metrics"] {
        assert_eq!(Wire::connect(address(8080)).get(place).status(), 200, "{place}");
    }

    a_broken_file_is_refused();
    a_site_with_tls_on_a_low_port_comes_by_reload(&packages);
    logs_are_rotated();
    assert_eq!(Service::running().pid, first.pid);
    tunnel.echoes("after reloads");

    drain_by("drain_timeout 1s;");
    install(&packages, "2");
    let second = Service::running();
    assert_ne!(second.pid, first.pid);
    self::tunnel().echoes("by the process of the second package");
    assert_eq!(fs::read_link(format!("/proc/{}/exe", second.pid)).expect("a process"), Path::new(PROGRAM));
    is_drained(&mut tunnel);
    assert!(eventually(|| first.has_ended()), "{}", journal());
    a_stop_drains();
    run("systemctl", &["start", "longsplice"]);

    systemd_holds_the_sockets();
    a_ring_is_allowed();
    assert_eq!(Service::property("NRestarts"), "0", "a watchdog or the filter killed it");

    let last = Service::running();
    run("dpkg", &["--remove", "longsplice"]);
    assert!(last.has_ended());
    assert!(Path::new(FILE).exists(), "what people wrote stays until a purge");
    for file in ["conf.d/site.conf", "tls/x.crt", "tls/x.key"] {
        fs::remove_file(Path::new("/etc/longsplice").join(file)).expect("what this test wrote");
    }
    fs::remove_dir("/etc/longsplice/tls").expect("what this test made");
    run("dpkg", &["--purge", "longsplice"]);
    let left: Vec<_> = traces().difference(&before).cloned().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(fs::read_to_string("/etc/passwd").expect("users").contains("\nlongsplice:"));
}

const PROGRAM: &str = "/usr/sbin/longsplice";
const FILE: &str = "/etc/longsplice/longsplice.conf";

fn a_broken_file_is_refused() {
    let site = Path::new("/etc/longsplice/conf.d/site.conf");
    fs::write(site, "server { listen 127.0.0.1:80; locatoin / { } }").expect("a file");
    let reload = finish(Command::new("systemctl").args(["reload", "longsplice"]));
    assert_ne!(reload.code(), 0);
    assert!(eventually(|| journal().contains("site.conf:1:31")), "{}", journal());
    run("systemctl", &["is-active", "longsplice"]);
    fs::remove_file(site).expect("the file");
}

/// The key is root's, and its group's: the service never is root.
fn a_site_with_tls_on_a_low_port_comes_by_reload(packages: &Path) {
    tls::write_certificate(packages, "x", &["x"], tls::Key::Ecdsa);
    let tls_dir = "/etc/longsplice/tls";
    run("install", &["--directory", "--mode=750", "--group=longsplice", tls_dir]);
    for name in ["x.crt", "x.key"] {
        let source = packages.join(name).display().to_string();
        run("install", &["--mode=640", "--group=longsplice", &source, &format!("{tls_dir}/{name}")]);
    }
    let site = format!(
        "server {{
            listen 127.0.0.1:443 ssl;
            ssl_certificate {tls_dir}/x.crt;
            ssl_certificate_key {tls_dir}/x.key;
            location / {{ proxy_pass http://127.0.0.1:3000; }}
        }}"
    );
    fs::write("/etc/longsplice/conf.d/site.conf", site).expect("a file");
    run("systemctl", &["reload", "longsplice"]);
    let client = tls::Client::default();
    assert!(eventually(|| tls::handshake(address(443), "x", &client).is_ok()), "{}", journal());
    tls::connect(address(443), "x", &client).websocket("/").echoes("over TLS, on a port of root's");
}

fn logs_are_rotated() {
    let log = || fs::read_to_string("/var/log/longsplice/access.log").unwrap_or_default();
    Wire::connect(address(8080)).get("/before");
    assert!(eventually(|| log().contains("GET /before ")), "{}", log());
    run("logrotate", &["--force", "/etc/logrotate.d/longsplice"]);
    assert!(eventually(|| {
        Wire::connect(address(8080)).get("/behind");
        log().contains("GET /behind ")
    }));
    assert!(!log().contains("GET /before "));
    assert!(fs::read_to_string("/var/log/longsplice/access.log.1").expect("the old").contains("GET /before "));
}

/// A drain that a test can wait for; the packaged file leaves the defaults.
fn drain_by(directives: &str) {
    let text = fs::read_to_string(FILE).expect("the packaged file");
    let (head, tail) = text.split_once("events {").expect("as packaged");
    let own = head.split("# drain\n").next().unwrap_or_default();
    fs::write(FILE, format!("{own}# drain\n{directives}\nevents {{{tail}")).expect("the file");
    run("systemctl", &["reload", "longsplice"]);
}

/// The client is asked to come again: a close frame, and then the end.
fn is_drained(tunnel: &mut Wire) {
    let (opcode, payload) = tunnel.frame();
    assert_eq!((opcode, payload.first_chunk()), (frames::CLOSE, Some(&1001_u16.to_be_bytes())));
    tunnel.send(frames::client(frames::CLOSE, 1001_u16.to_be_bytes()));
    tunnel.expect_gone();
}

fn a_stop_drains() {
    let mut tunnel = tunnel();
    thread::scope(|scope| {
        scope.spawn(|| run("systemctl", &["stop", "longsplice"]));
        is_drained(&mut tunnel);
    });
    assert_eq!(Service::property("Result"), "success");
}

/// A connection that comes while there is no service starts one, and is served.
fn systemd_holds_the_sockets() {
    let addresses = "[Socket]\nListenStream=\nListenStream=127.0.0.1:8080\nListenStream=127.0.0.1:443\n";
    fs::create_dir_all("/etc/systemd/system/longsplice.socket.d").expect("a directory");
    fs::write("/etc/systemd/system/longsplice.socket.d/test.conf", addresses).expect("a file");
    run("systemctl", &["daemon-reload"]);
    run("systemctl", &["stop", "longsplice"]);
    run("systemctl", &["start", "longsplice.socket"]);
    tunnel().echoes("by a service that this connection started");
    run("systemctl", &["stop", "longsplice.socket", "longsplice"]);
}

fn a_ring_is_allowed() {
    let text = fs::read_to_string(FILE).expect("the file");
    fs::write(FILE, text.replace("events {}", "events { use io_uring; }")).expect("the file");
    run("systemctl", &["start", "longsplice"]);
    assert!(journal().contains(", io_uring"), "{}", journal());
    tunnel().echoes("through a ring");
    tls::connect(address(443), "x", &tls::Client::default()).websocket("/").echoes("and TLS");
    run("systemctl", &["reload", "longsplice"]);
    run(PROGRAM, &["-s", "upgrade"]);
    tunnel().echoes("by another process with a ring");
}

/// A WebSocket of the site as it was installed.
fn tunnel() -> Wire {
    let mut wire = Wire::connect(address(8080));
    wire.websocket("/");
    wire
}

fn journal() -> String {
    finish(Command::new("journalctl").args(["--no-pager", "--output=cat", "-u", "longsplice"])).stdout
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A command that must succeed, with the service's journal where it does not.
fn run(program: &str, arguments: &[&str]) -> Finished {
    let finished = finish(Command::new(program).args(arguments).env("DEBIAN_FRONTEND", "noninteractive"));
    if finished.code() != 0 {
        panic!("{program} {arguments:?}:\n{}\n{}", finished.said(), journal());
    }
    finished
}

fn install(packages: &Path, revision: &str) {
    run("dpkg", &["--install", &packages.join(format!("{revision}.deb")).display().to_string()]);
}

/// Every file that has to do with longsplice.
fn traces() -> BTreeSet<String> {
    let found = run("find", &["/etc", "/usr", "/var", "/run", "-xdev", "-name", "*longsplice*"]);
    found
        .stdout
        .lines()
        .filter(|path| !path.ends_with(".service.d") && !path.ends_with(".socket.d"))
        .map(str::to_owned)
        .collect()
}

/// What systemd started.
struct Service {
    pid: u32,
}

impl Service {
    fn running() -> Self {
        run("systemctl", &["is-active", "longsplice"]);
        run("systemctl", &["is-enabled", "longsplice"]);
        Self { pid: Self::property("MainPID").parse().expect("a number") }
    }

    fn property(name: &str) -> String {
        run("systemctl", &["show", "--value", "--property", name, "longsplice"]).stdout.trim().to_owned()
    }

    fn has_ended(&self) -> bool {
        !Path::new(&format!("/proc/{}", self.pid)).exists()
    }

    /// It is nobody of importance, may bind low ports, and nothing else.
    fn is_confined(&self) {
        let process = PathBuf::from(format!("/proc/{}", self.pid));
        let status = fs::read_to_string(process.join("status")).expect("a process");
        for line in ["CapEff:\t0000000000000400", "CapBnd:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "no {line:?} in\n{status}");
        }
        assert_ne!(fs::metadata(&process).expect("its owner").uid(), 0);
    }
}
