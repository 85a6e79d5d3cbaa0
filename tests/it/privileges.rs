//! What the program may do once it serves, tried from within: a thread of it is made to call what an intruder would.
//!
//! Root is needed to look into a process that is not to be looked into.

#[cfg(target_arch = "x86_64")]
mod intruder;

use std::fs;

use nix::{sys::signal::Signal, unistd::geteuid};

use crate::util::{Backend, Driver, Proxy, beyond_nginx, eventually, on_both_drivers, proxy::executable};

on_both_drivers![every_thread_has_given_up_what_it_does_not_need];

const SERVER: &str = "server { listen %http%; location / { return 200 ok; } location /status { status; } }";

/// One line of /proc/PID/task/TID/status, by its name.
struct Thread {
    /// For the intruder, who knows one machine.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    number: u32,
    name: String,
    status: String,
}

impl Thread {
    fn all(process: u32) -> Vec<Self> {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the process lives").flatten();
        let threads = tasks.filter_map(|task| {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            let name = status.lines().next()?.strip_prefix("Name:\t")?.to_owned();
            Some(Self { number: task.file_name().to_str()?.parse().ok()?, name, status })
        });
        threads.collect()
    }

    /// The field's first value.
    fn field(&self, name: &str) -> &str {
        let mut lines = self.status.lines().filter_map(|line| line.split_once(":\t"));
        let found = lines.find(|(field, _)| *field == name).unwrap_or_else(|| panic!("{name}: {}", self.status));
        found.1.split('\t').next().unwrap_or_default()
    }

    fn is_worker(&self) -> bool {
        self.name.starts_with("worker")
    }
}

/// True where this kernel has no Landlock, and the program has said so; in CI it must.
fn lacks_landlock(proxy: &Proxy) -> bool {
    proxy.logged(&[" ready: "]);
    let lacks = proxy.log().contains("missing on this host: Landlock");
    assert!(!lacks || std::env::var_os("CI").is_none(), "CI needs a kernel with Landlock");
    if lacks {
        eprintln!("skipped: this kernel has no Landlock");
    }
    lacks
}

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("skipped: root looks into the process");
    }
    is_root
}

/// Threads of a process that serves: the control plane, the log, the workers.
fn threads(proxy: &Proxy, workers: usize) -> Vec<Thread> {
    // Every worker has taken a turn.
    proxy.logged(&[" ready: "]);
    assert_eq!(proxy.get("/").body, b"ok");
    let of = || Thread::all(proxy.pid());
    assert!(eventually(|| of().iter().filter(|thread| thread.is_worker()).count() == workers));
    of()
}

fn assert_confined(thread: &Thread, user: &str) {
    let Thread { name, status, .. } = thread;
    assert_eq!(thread.field("Uid"), user, "{name}: {status}");
    for set in ["CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(thread.field(set), "0000000000000000", "{name}: {status}");
    }
    for set in ["CapPrm", "CapEff"] {
        // CAP_NET_BIND_SERVICE, for ports that a reload names, where `user` is root still.
        let may_be = if user == "0" && !thread.is_worker() { 1 << 10 } else { 0 };
        let held = u64::from_str_radix(thread.field(set), 16).expect("a set");
        assert!(held & !may_be == 0, "{name}: {status}");
    }
    assert_eq!((thread.field("NoNewPrivs"), thread.field("Seccomp")), ("1", "2"), "{name}: {status}");
    let filters = if thread.is_worker() { "3" } else { "2" };
    assert_eq!(thread.field("Seccomp_filters"), filters, "{name}: {status}");
}

fn every_thread_has_given_up_what_it_does_not_need(driver: Driver) {
    beyond_nginx!();
    if !is_root() {
        return;
    }
    for (main, user) in [("", "65534"), ("user root;", "0")] {
        let mut proxy = Proxy::config(SERVER).main(main).on(driver).start();
        for thread in threads(&proxy, 2) {
            assert_confined(&thread, user);
        }
        // Those that a reload starts are as those before.
        proxy.rewrite(&format!("{main} worker_processes 4;"), SERVER);
        proxy.running().signal(Signal::SIGHUP);
        proxy.logged(&["configuration 2 is in use"]);
        for thread in threads(&proxy, 4) {
            assert_confined(&thread, user);
        }
        if lacks_landlock(&proxy) {
            continue;
        }
        const ALL: &str = "capabilities, no_new_privs, dumpable, Landlock, seccomp";
        proxy.logged(&["sandbox: ", ALL]);
        let status = String::from_utf8(proxy.get("/status?json").body).expect("JSON");
        assert!(status.contains(&format!("\"sandbox\":\"{ALL}\"")), "{status}");
    }
}

#[test]
fn a_process_may_do_without() {
    beyond_nginx!();
    let proxy = Proxy::config(SERVER).main("sandbox off;").start();
    for thread in threads(&proxy, 2) {
        assert_eq!((thread.field("NoNewPrivs"), thread.field("Seccomp")), ("0", "0"), "{}", thread.status);
    }
}

#[test]
fn new_logs_go_where_the_old_ones_are_and_nowhere_else() {
    beyond_nginx!();
    if !is_root() {
        return;
    }
    let elsewhere = tempfile::tempdir().expect("a directory");
    let mut proxy = Proxy::config(SERVER).main("user root;").start();
    if lacks_landlock(&proxy) {
        return;
    }
    let with_log = |path: &str| format!("access_log {path}; {SERVER}");
    proxy.rewrite("user root;", &with_log(&format!("{}/new.log", elsewhere.path().display())));
    proxy.running().signal(Signal::SIGHUP);
    proxy.logged(&["new.log\" failed (13: Permission denied)"]);
    proxy.logged(&["`sandbox on`: what this process may still write lies below"]);
    assert!(!elsewhere.path().join("new.log").exists());
    proxy.rewrite("user root;", &with_log("%dir%/new.log"));
    proxy.running().signal(Signal::SIGHUP);
    proxy.logged(&["configuration 2 is in use"]);
    assert_eq!(proxy.get("/").body, b"ok");
    proxy.written("new.log", &["GET / "]);
    fs::rename(proxy.dir().join("new.log"), proxy.dir().join("old.log")).expect("it is there");
    proxy.running().signal(Signal::SIGUSR1);
    assert!(eventually(|| proxy.dir().join("new.log").exists()), "{}", proxy.log());
}

/// The launcher of a server that never was root is a process too, since the server may start none.
#[test]
fn who_never_was_root_is_upgraded_too() {
    beyond_nginx!();
    let Some(setpriv) = crate::util::external("setpriv").filter(|_| is_root()) else { return };
    let backend = Backend::echo();
    let text =
        "server { listen %http%; location / { proxy_pass http://%backend%; } location = /pid { return 200 $pid; } }";
    let setup = Proxy::config(text).set("backend", backend.address());
    let dir = setup.dir().to_owned();
    let program = dir.join("longsplice");
    fs::copy(executable(), &program).expect("a copy that anybody may run");
    nix::unistd::chown(&dir, Some(65_534.into()), Some(65_534.into())).expect("it is root's");
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let proxy = setup.started_by_file(&setpriv, &nobody, &program).start();
    let mut client = proxy.tunnel("/");
    let tell = |order: &str| {
        let mut command = std::process::Command::new(&setpriv);
        command
            .args(nobody)
            .arg(&program)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-p")
            .arg(&dir)
            .args(["-s", order]);
        crate::util::process::finish(&mut command).expect_code(0);
    };
    tell("upgrade");
    let served_by = || String::from_utf8(proxy.get("/pid").body).expect("a number");
    assert!(eventually(|| served_by() != proxy.pid().to_string()));
    client.echoes("as before");
    client.finish();
    tell("stop");
}

#[cfg(target_arch = "x86_64")]
mod taken_over {
    use nix::{errno::Errno, libc};

    use super::{
        intruder::{Argument, Intruder},
        *,
    };

    /// A process of root's; none where the tests are not.
    fn started(main: &str) -> Option<Proxy> {
        is_root().then(|| Proxy::config(SERVER).main(main).start())
    }

    /// Lets the thread go: the process serves on.
    fn let_go(intruder: Intruder, proxy: &Proxy) {
        drop(intruder);
        assert_eq!(proxy.get("/").body, b"ok", "and it goes on");
    }

    fn in_worker(proxy: &Proxy) -> Intruder {
        let threads = threads(proxy, 2);
        let worker = threads.iter().find(|thread| thread.is_worker()).expect("a worker");
        Intruder::in_thread(proxy.pid(), worker.number)
    }

    /// True when somebody could write there. The traces are removed: the next test shall judge by its own.
    fn was_here() -> bool {
        ["/etc/longsplice-was-here", "/tmp/longsplice-was-here"]
            .map(|path| fs::remove_file(path).is_ok())
            .contains(&true)
    }

    fn in_control_plane(proxy: &Proxy) -> Intruder {
        threads(proxy, 2);
        Intruder::in_thread(proxy.pid(), proxy.pid())
    }

    fn open(intruder: &Intruder, path: &str, flags: i32) -> Result<u64, Errno> {
        let here = i64::from(libc::AT_FDCWD).cast_unsigned();
        intruder.call(libc::SYS_openat, &[here.into(), path.into(), (flags as u64).into(), 0o600.into()])
    }

    fn socket(intruder: &Intruder, family: i32, kind: i32) -> Result<u64, Errno> {
        intruder.call(libc::SYS_socket, &[(family as u64).into(), (kind as u64).into(), 0.into()])
    }

    fn close(intruder: &Intruder, descriptor: u64) {
        intruder.call(libc::SYS_close, &[descriptor.into()]).expect("it was open");
    }

    /// What nothing of the process may do, whoever its user is.
    fn assert_denied_to_all(intruder: &Intruder) {
        let run = |flags: i32| (flags as u64).into();
        let calls: [(&str, i64, Vec<Argument<'_>>); 16] = [
            ("execve", libc::SYS_execve, vec!["/bin/true".into()]),
            ("execveat", libc::SYS_execveat, vec![0.into(), "/bin/true".into()]),
            ("fork", libc::SYS_fork, vec![]),
            ("vfork", libc::SYS_vfork, vec![]),
            ("clone", libc::SYS_clone, vec![(libc::SIGCHLD as u64).into()]),
            ("ptrace", libc::SYS_ptrace, vec![(libc::PTRACE_ATTACH as u64).into(), 1.into()]),
            ("process_vm_readv", libc::SYS_process_vm_readv, vec![1.into()]),
            ("bpf", libc::SYS_bpf, vec![]),
            ("unshare", libc::SYS_unshare, vec![run(libc::CLONE_NEWUSER)]),
            ("setuid", libc::SYS_setuid, vec![0.into()]),
            ("mount", libc::SYS_mount, vec!["none".into(), "/tmp".into(), "tmpfs".into()]),
            ("memfd_create", libc::SYS_memfd_create, vec!["x".into()]),
            ("io_uring_setup", libc::SYS_io_uring_setup, vec![8.into()]),
            ("kill", libc::SYS_kill, vec![1.into(), 0.into()]),
            (
                "mmap",
                libc::SYS_mmap,
                vec![
                    0.into(),
                    4096.into(),
                    run(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC),
                    run(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
                    u64::MAX.into(),
                ],
            ),
            ("init_module", libc::SYS_init_module, vec![]),
        ];
        for (name, number, arguments) in calls {
            assert_eq!(intruder.call(number, &arguments), Err(Errno::EPERM), "{name}");
        }
        let unknown = intruder.call(libc::SYS_clone3, &[]);
        assert!(matches!(unknown, Err(Errno::ENOSYS | Errno::EPERM)), "{unknown:?}");
        assert_eq!(socket(intruder, libc::AF_PACKET, libc::SOCK_RAW), Err(Errno::EPERM));
    }

    /// The proof that the method is one: what fails below is done here.
    #[test]
    fn without_a_sandbox_a_worker_of_root_reads_and_runs_what_root_may() {
        beyond_nginx!();
        let Some(proxy) = started("user root; sandbox off;") else { return };
        let worker = in_worker(&proxy);
        let shadow = open(&worker, "/etc/shadow", libc::O_RDONLY).expect("root reads it");
        close(&worker, shadow);
        // Far enough to look for the file, which is the first thing that an execve(2) that is let in does.
        assert_eq!(worker.call(libc::SYS_execve, &["/nonexistent".into()]), Err(Errno::ENOENT));
        let raw = socket(&worker, libc::AF_PACKET, libc::SOCK_RAW).expect("root may");
        close(&worker, raw);
        let_go(worker, &proxy);
    }

    #[test]
    fn a_worker_reads_no_file_and_runs_no_program_even_as_root() {
        beyond_nginx!();
        let Some(proxy) = started("user root;") else { return };
        let worker = in_worker(&proxy);
        assert_denied_to_all(&worker);
        for (path, flags) in [
            ("/etc/shadow", libc::O_RDONLY),
            ("/etc/hostname", libc::O_RDONLY),
            ("/root", libc::O_RDONLY | libc::O_DIRECTORY),
            ("/proc/self/mem", libc::O_RDWR),
            ("/etc/hostname", libc::O_WRONLY),
            ("/tmp/longsplice-worker-was-here", libc::O_WRONLY | libc::O_CREAT),
        ] {
            assert_eq!(open(&worker, path, flags), Err(Errno::EPERM), "{path}");
        }
        assert_eq!(worker.call(libc::SYS_open, &["/etc/shadow".into(), 0.into()]), Err(Errno::EPERM));
        assert_eq!(worker.call(libc::SYS_unlink, &["/etc/hostname".into()]), Err(Errno::EPERM));
        assert_eq!(socket(&worker, libc::AF_NETLINK, libc::SOCK_RAW), Err(Errno::EPERM));
        let own = libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_VM;
        assert_eq!(worker.call(libc::SYS_clone, &[(own as u64).into()]), Err(Errno::EPERM), "no thread, either");
        // What it is there for.
        let client = socket(&worker, libc::AF_INET, libc::SOCK_STREAM).expect("a socket");
        close(&worker, client);
        let_go(worker, &proxy);
    }

    #[test]
    fn the_control_plane_runs_no_program_and_writes_where_the_file_says() {
        beyond_nginx!();
        let Some(proxy) = started("user root;") else { return };
        let control = in_control_plane(&proxy);
        assert_denied_to_all(&control);
        if lacks_landlock(&proxy) {
            return;
        }
        let write = libc::O_WRONLY | libc::O_CREAT;
        let paths = ["/etc/longsplice-was-here", "/tmp/longsplice-was-here", "/proc/sys/kernel/core_pattern"];
        let opened = paths.map(|path| open(&control, path, write));
        assert!(!was_here() && opened == [Err(Errno::EACCES); 3], "{opened:?}");
        // What a reload may need.
        let mut opened = vec![open(&control, "/etc/hostname", libc::O_RDONLY)];
        opened.push(open(&control, &proxy.dir().join("another.log").display().to_string(), write));
        opened.push(socket(&control, libc::AF_NETLINK, libc::SOCK_RAW));
        opened.into_iter().for_each(|descriptor| close(&control, descriptor.expect("it is allowed")));
        let_go(control, &proxy);
    }

    /// A ring takes calls past the filter (io_uring(7)): no worker gets a second one, and files are Landlock's.
    #[test]
    fn with_io_uring_a_worker_gets_no_other_ring() {
        beyond_nginx!();
        if !is_root() {
            return;
        }
        let proxy = Proxy::config(SERVER).on(Driver::IoUring).start();
        let worker = in_worker(&proxy);
        assert_eq!(worker.call(libc::SYS_io_uring_setup, &[8.into()]), Err(Errno::EPERM));
        assert_eq!(open(&worker, "/etc/hostname", libc::O_RDONLY), Err(Errno::EPERM));
        let_go(worker, &proxy);
    }

    #[test]
    fn a_sandbox_that_only_logs_denies_nothing() {
        beyond_nginx!();
        let Some(proxy) = started("user root; sandbox log;") else { return };
        let worker = in_worker(&proxy);
        let shadow = open(&worker, "/etc/shadow", libc::O_RDONLY).expect("it is only logged");
        close(&worker, shadow);
    }
}
