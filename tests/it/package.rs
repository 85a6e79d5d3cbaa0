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
};

use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::util::{
    Backend, Wire, backend, eventually,
    external::{absent, external},
    process::{Finished, finish},
    proxy::executable,
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
/// filter forgot cannot go unseen.
const STRICT: &str = "[Service]\nSystemCallErrorNumber=kill\n";

#[test]
fn a_package_lives_its_life_under_systemd() {
    let programs = ["cargo-deb", "dpkg-shlibdeps", "systemd-nspawn", "unshare", "logrotate"];
    if absent("root, who may boot a copy of this machine,", geteuid().is_root())
        || programs.iter().any(|program| external(program).is_none())
    {
        return;
    }
    let dir = TempDir::with_prefix("longsplice-package-").expect("a directory");
    for version in ["1", "2"] {
        build(dir.path(), version);
    }
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
#[ignore = "it installs packages: for the copy of this machine that the other test boots"]
fn inside_the_copy() {
    let packages = PathBuf::from(env::var_os("LONGSPLICE_PACKAGES").expect("set by who boots the copy"));
    let before = traces();
    let application = Backend::serve_at(address(3000), |wire, _| backend::echo(wire));

    install(&packages, "1");
    let first = Service::running();
    first.is_confined();
    let mut tunnel = Wire::connect(address(8080));
    tunnel.websocket("/").echoes("through a fresh installation");

    drop(tunnel);
    run("systemctl", &["stop", "longsplice"]);
    assert_eq!(Service::property("Result"), "success");
    run("systemctl", &["start", "longsplice"]);
    Wire::connect(address(8080)).websocket("/").echoes("and after a stop");

    run("dpkg", &["--remove", "longsplice"]);
    assert!(eventually(|| !Path::new(&format!("/proc/{}", first.pid)).exists()));
    assert!(Path::new("/etc/longsplice/longsplice.conf").exists(), "what people wrote stays until a purge");
    run("dpkg", &["--purge", "longsplice"]);
    let left: Vec<_> = traces().difference(&before).cloned().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(fs::read_to_string("/etc/passwd").expect("users").contains("\nlongsplice:"));
    drop(application);
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A command that must succeed, with the service's journal where it does not.
fn run(program: &str, arguments: &[&str]) -> Finished {
    let finished = finish(Command::new(program).args(arguments).env("DEBIAN_FRONTEND", "noninteractive"));
    if finished.code() != 0 {
        let journal = finish(Command::new("journalctl").args(["--no-pager", "-u", "longsplice"]));
        panic!("{program} {arguments:?}:\n{}\n{}", finished.said(), journal.said());
    }
    finished
}

fn install(packages: &Path, revision: &str) {
    run("dpkg", &["--install", &packages.join(format!("{revision}.deb")).display().to_string()]);
}

/// Every file that has to do with longsplice.
fn traces() -> BTreeSet<String> {
    let found = run("find", &["/etc", "/usr", "/var", "/run", "-xdev", "-name", "*longsplice*"]);
    found.stdout.lines().filter(|path| !path.contains("longsplice.service.d")).map(str::to_owned).collect()
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
