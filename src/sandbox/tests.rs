//! Each on a thread of its own, which is confined as the real ones are and then tries what it may not do.

use std::{
    fs::{self, File},
    io::{self, ErrorKind::PermissionDenied},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
};

use caps::CapSet;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::*;
use crate::config::{self, LoadOptions, Source};

/// What a thread answers that has nothing in common with this one but memory.
fn on_its_own<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(work).join().expect("the thread's answer")
}

fn config(main: &str) -> Config {
    let text = format!("{main} events {{}} http {{ server {{ listen unix:/run/edge/x.sock; return 204; }} }}");
    let file = Source::Text { name: "test".to_owned(), text };
    let options = LoadOptions { file, prefix: "/srv".into(), globals: None, conf_error_log: None };
    let loaded = config::load(&options);
    loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.render(false, false)))
}

/// True where this kernel has no Landlock; in CI it must.
fn lacks_landlock(laid_on: &Result<(), String>) -> bool {
    let lacks =
        laid_on.as_ref().is_err_and(|reason| [files::SWITCHED_OFF, files::NOT_BUILT_IN].contains(&reason.as_str()));
    assert!(!lacks || std::env::var_os("CI").is_none(), "CI needs a kernel with Landlock");
    lacks
}

fn is_denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == PermissionDenied)
}

#[test]
fn a_worker_opens_no_file_starts_nothing_and_still_connects() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let open = File::open("/etc/hostname").unwrap();
    on_its_own(move || {
        let in_force = confine_worker(&config(""));
        assert!(in_force.parts.contains(&"seccomp"), "{in_force}");
        for path in ["/etc/shadow", "/etc/hostname", "/proc/self/status", "/dev/null"] {
            assert!(is_denied(File::open(path)), "{path}");
        }
        assert!(is_denied(fs::read_dir("/")) && is_denied(File::create("/tmp/longsplice-was-here")));
        assert!(is_denied(fs::remove_file("/tmp/longsplice-was-here")));
        assert!(is_denied(Command::new("/bin/true").spawn()) && is_denied(thread::Builder::new().spawn(|| ())));
        let packets = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None);
        assert_eq!(packets.unwrap_err(), Errno::EPERM);
        assert!(TcpStream::connect(address).is_ok() && listener.accept().is_ok());
        assert!(open.metadata().unwrap().is_file(), "what was open stays open");
    });
}

/// What a ring asks for is not seen by seccomp.
#[test]
fn landlock_alone_keeps_a_worker_from_files() {
    on_its_own(|| {
        let laid_on = files::confine_worker();
        if !lacks_landlock(&laid_on) {
            assert_eq!(laid_on, Ok(()));
            assert!(is_denied(File::open("/etc/hostname")) && is_denied(File::create("/tmp/longsplice-was-here")));
        }
    });
}

#[test]
fn the_process_writes_where_it_was_told_reads_and_executes_nothing() {
    // Removed by this thread, since the other may not.
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [inside, outside] = [0, 1].map(|number: usize| directories[number].path().to_owned());
    on_its_own(move || {
        let laid_on = files::confine_process(&[inside.clone(), "/nonexistent".into()]);
        if lacks_landlock(&laid_on) {
            return;
        }
        let log = inside.join("a.log");
        assert!(File::create(&log).is_ok() && fs::rename(&log, inside.join("b.log")).is_ok());
        assert!(std::os::unix::net::UnixListener::bind(inside.join("x.sock")).is_ok());
        assert!(is_denied(File::create(outside.join("a.log"))) && is_denied(File::create("/etc/x")));
        assert!(File::open("/etc/hostname").is_ok() && File::options().write(true).open("/dev/null").is_ok());
        assert!(is_denied(fs::create_dir(inside.join("new"))));
        assert!(is_denied(Command::new("/bin/true").spawn()));
    });
}

#[test]
fn a_thread_keeps_the_capabilities_it_is_to_keep() {
    on_its_own(|| {
        let held = caps::read(None, CapSet::Permitted).unwrap();
        rights::give_up(rights::CONTROL).unwrap();
        let kept = caps::read(None, CapSet::Permitted).unwrap();
        assert!(kept.iter().all(|capability| rights::CONTROL.contains(capability) && held.contains(capability)));
        assert_eq!(kept, caps::read(None, CapSet::Effective).unwrap());
        rights::give_up(rights::NONE).unwrap();
        assert!(caps::read(None, CapSet::Permitted).unwrap().is_empty());
    });
}

#[test]
fn files_are_written_in_the_directories_that_the_file_names() {
    let writable = files::writable(&config("error_log logs/e.log; pid /run/edge.pid;"));
    let expected = ["/run", "/run/edge", "/srv/logs", "/var/log"];
    assert_eq!(writable, expected.map(PathBuf::from));
}

#[test]
fn off_gives_nothing_up() {
    on_its_own(|| {
        let config = config("sandbox off;");
        assert_eq!(confine_worker(&config), InForce::default());
        assert_eq!(Plan::of(&config).confine_process(), InForce::default());
        assert!(File::open("/etc/hostname").is_ok());
    });
}

#[test]
fn what_is_missing_is_said() {
    let mut in_force = InForce::default();
    assert_eq!(in_force.to_string(), "nothing");
    in_force.note("seccomp", Ok(()));
    in_force.note("Landlock", Err("Linux 5.13".to_owned()));
    assert_eq!(in_force.to_string(), "seccomp; missing on this host: Landlock (Linux 5.13)");
}
