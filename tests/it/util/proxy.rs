//! The program under test as a process of its own, or nginx with the same file.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::Once,
};

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd::geteuid,
};
use tempfile::TempDir;

use super::{
    Wire, eventually, external, leaks,
    line::pid_in,
    ports,
    process::{Finished, Running, finish},
    tls,
};

/// How the program waits for its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// What the file says: epoll unless it says otherwise.
    Epoll,
    /// `use io_uring`, which is epoll again where the kernel has none.
    IoUring,
}

/// Who runs the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Longsplice,
    Nginx,
}

/// Some tests hold thousands of connections, both ends of them: more than the 1,024 descriptors most shells start with.
fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("RLIMIT_NOFILE");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    });
}

/// `LONGSPLICE_TEST_PROXY=nginx` runs the tests against nginx: how the tests themselves are tested.
pub fn nginx_stands_in() -> bool {
    env::var("LONGSPLICE_TEST_PROXY").is_ok_and(|name| name == "nginx")
}

/// Who runs the files of the tests.
pub fn under_test() -> Program {
    if nginx_stands_in() { Program::Nginx } else { Program::Longsplice }
}

/// The program's file.
pub fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_longsplice"))
}

/// A file about to be run. In its text `%dir%` is the directory it lies in, `%http%` and every other `%NAME%` that was
/// not [`Setup::set`] a free loopback address, the same wherever it stands.
pub struct Setup {
    text: String,
    main: String,
    whole: bool,
    watched: bool,
    linked: bool,
    driver: Driver,
    program: Program,
    values: BTreeMap<String, String>,
    /// Names whose value the test gave: not ours to listen on.
    given: BTreeSet<String>,
    /// What it is started by: the program itself, or something in `%dir%`.
    started_by: Option<(PathBuf, Vec<String>)>,
    environment: BTreeMap<String, String>,
    dir: TempDir,
}

impl Setup {
    /// An environment variable, with `%NAME%`s.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let value = self.fill_in(value);
        self.environment.insert(name.to_owned(), value);
        self
    }

    /// Starts `%dir%/longsplice`, a link to the program, which a test can let point to another.
    pub fn linked(mut self) -> Self {
        let link = self.dir.path().join("longsplice");
        std::os::unix::fs::symlink(executable(), &link).expect("a link");
        self.started_by = Some((link, Vec::new()));
        self.linked = true;
        self
    }

    /// Started by another program, whose last arguments are the program under test and its own.
    pub fn started_by(self, program: &Path, arguments: &[&str]) -> Self {
        self.started_by_file(program, arguments, executable())
    }

    /// As [`Self::started_by`], with a copy of the program under test.
    pub fn started_by_file(mut self, program: &Path, arguments: &[&str], executable: &Path) -> Self {
        let mut arguments: Vec<String> = arguments.iter().map(|argument| self.fill_in(argument)).collect();
        arguments.push(executable.display().to_string());
        self.started_by = Some((program.to_owned(), arguments));
        self
    }

    /// What `%NAME%` stands for: a backend's address, mostly.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.values.insert(name.to_owned(), value.to_string());
        self.given.insert(name.to_owned());
        self
    }

    /// Directives of the main context.
    pub fn main(mut self, directives: &str) -> Self {
        self.main.push_str(directives);
        self.main.push('\n');
        self
    }

    /// The text is given to the program as it stands: a whole nginx.conf, or a fragment.
    pub fn verbatim(mut self) -> Self {
        self.whole = true;
        self
    }

    /// With one more server, for [`super::Leaks`] to ask.
    pub fn watched(mut self) -> Self {
        self.watched = true;
        self
    }

    pub fn on(mut self, driver: Driver) -> Self {
        self.driver = driver;
        self
    }

    pub fn by(mut self, program: Program) -> Self {
        self.program = program;
        self
    }

    /// Another file in `%dir%`, its `%NAME%`s replaced too.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        let text = self.fill_in(text);
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("directories");
        fs::write(path, text).expect("a file");
        self
    }

    /// `%dir%/NAME.crt` and `%dir%/NAME.key`: a certificate of our own for these host names.
    pub fn certificate(self, name: &str, hosts: &[&str]) -> Self {
        tls::write_certificate(self.dir.path(), name, hosts, tls::Key::Ecdsa);
        self
    }

    pub fn rsa_certificate(self, name: &str, hosts: &[&str]) -> Self {
        tls::write_certificate(self.dir.path(), name, hosts, tls::Key::Rsa);
        self
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `text` with every `%NAME%` replaced.
    fn fill_in(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            match after.split_once('%') {
                Some((name, behind)) if is_placeholder(name) => {
                    out.push_str(&self.value(name));
                    rest = behind;
                }
                _ => {
                    out.push('%');
                    rest = after;
                }
            }
        }
        out + rest
    }

    fn value(&mut self, name: &str) -> String {
        if name == "dir" {
            return self.dir.path().display().to_string();
        }
        self.values.entry(name.to_owned()).or_insert_with(|| format!("127.0.0.1:{}", ports::free())).clone()
    }

    /// Writes the file.
    fn write(&mut self) -> PathBuf {
        let text = std::mem::take(&mut self.text);
        let text = if self.whole { text } else { self.wrapped(&text) };
        let mut text = self.fill_in(&text);
        if (self.program, self.driver) == (Program::Longsplice, Driver::IoUring) {
            text = match text.replacen("events {", "events { use io_uring;", 1) {
                replaced if replaced != text => replaced,
                _ => format!("events {{ use io_uring; }} {text}"),
            };
        }
        let path = self.dir.path().join("nginx.conf");
        fs::write(&path, text).expect("the file");
        path
    }

    /// A whole file around directives of the http context, the same for both programs but for the lines that keep
    /// nginx in the foreground and in its directory.
    fn wrapped(&self, text: &str) -> String {
        let main = &self.main;
        let (main_nginx, http_nginx) = match self.program {
            // What is not root may not look into a process that is not dumpable, and tests count its descriptors.
            Program::Longsplice if !geteuid().is_root() && !main.contains("sandbox") => ("sandbox off;", ""),
            Program::Longsplice => ("", ""),
            Program::Nginx => (
                "user root;",
                "client_body_temp_path %dir%/body; proxy_temp_path %dir%/proxy; fastcgi_temp_path %dir%/f;
                 uwsgi_temp_path %dir%/u; scgi_temp_path %dir%/s; server_names_hash_bucket_size 128; ssl_protocols TLSv1.2 TLSv1.3; proxy_http_version 1.1;",
            ),
        };
        let workers = if main.contains("worker_processes") { "" } else { "worker_processes 2;" };
        let log = if main.contains("error_log") { "" } else { "error_log stderr info;" };
        let watched = if self.watched && self.program == Program::Longsplice { leaks::SERVER } else { "" };
        let events = if main.contains("events") { "" } else { "events { worker_connections 9000; }" };
        format!(
            "{main}{workers} {main_nginx}\n{log}\npid %dir%/proxy.pid;\n{events}\nhttp {{\n{http_nginx}\n\
             access_log %dir%/access.log;\n{text}\n{watched}\n}}\n"
        )
    }

    fn command(&self, file: &Path) -> Command {
        let mut command = match (self.program, &self.started_by) {
            (Program::Longsplice, Some((program, arguments))) => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
            (Program::Longsplice, None) => Command::new(executable()),
            (Program::Nginx, _) => Command::new(external("nginx").expect("nginx")),
        };
        command.envs(&self.environment);
        command.arg("-c").arg(file).arg("-p").arg(self.dir.path());
        if self.program == Program::Nginx {
            command.args(["-g", "daemon off;", "-e", "stderr"]);
        }
        command
    }

    /// Runs the program until it ends by itself: for files it refuses, and for `-t` and its like in `arguments`.
    pub fn run(mut self, arguments: &[&str]) -> Finished {
        let file = self.write();
        let mut command = self.command(&file);
        finish(command.args(arguments)).in_directory(self.dir)
    }

    /// Starts the program and waits until it listens wherever its file has a `%NAME%` that no [`Setup::set`] gave.
    pub fn start(self) -> Proxy {
        let mut proxy = self.begin();
        proxy.wait_until_it_listens();
        proxy
    }

    /// Starts the program and waits for nothing.
    pub fn begin(mut self) -> Proxy {
        let file = self.write();
        let running = Running::spawn(&mut self.command(&file));
        Proxy { running, setup: self }
    }
}

impl Proxy {
    /// See [`Setup::start`].
    pub fn wait_until_it_listens(&mut self) {
        let Setup { values, given, .. } = &self.setup;
        let listening: Vec<u16> = values
            .iter()
            .filter(|(name, _)| !given.contains(*name))
            .filter_map(|(_, value)| value.rsplit(':').next()?.parse().ok())
            .collect();
        for port in listening {
            assert!(
                eventually(|| ports::listened_on(port) || self.running.ended().is_some())
                    && self.running.ended().is_none(),
                "not listening on port {port}; it says:\n{}\nits file:\n{}",
                self.log(),
                fs::read_to_string(self.dir().join("nginx.conf")).unwrap_or_default()
            );
        }
        // Workers may still be on their way then: with descriptors that a test counts, and calls that it lets fail.
        let Setup { whole, main, program, .. } = &self.setup;
        if *program == Program::Longsplice && !whole && !main.contains("error_log") {
            let is_ready = || self.log().contains(" ready: ");
            assert!(eventually(is_ready), "not ready; it says:\n{}", self.log());
        }
    }
}

/// `http`, `https_2`, `backend`: what may stand between two per cent signs.
fn is_placeholder(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The running program.
pub struct Proxy {
    running: Running,
    setup: Setup,
}

impl Proxy {
    /// Directives of the http context, run on both workers with the log on stderr; see [`Setup`].
    pub fn config(text: &str) -> Setup {
        raise_descriptor_limit();
        let dir = TempDir::with_prefix("longsplice-").expect("a directory");
        // nginx's workers and privileges dropped to `user` must reach what lies in it.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
        Setup {
            text: text.to_owned(),
            main: String::new(),
            whole: false,
            watched: false,
            linked: false,
            driver: Driver::Epoll,
            program: under_test(),
            values: BTreeMap::new(),
            given: BTreeSet::new(),
            started_by: None,
            environment: BTreeMap::new(),
            dir,
        }
    }

    /// One server on `%http%` whose every path goes to `backend`, with WebSocket's headers as nginx needs them.
    pub fn before(backend: SocketAddr, driver: Driver) -> Self {
        Self::in_location("", backend, driver)
    }

    /// As [`Self::before`], with more directives in the location.
    pub fn in_location(directives: &str, backend: SocketAddr, driver: Driver) -> Self {
        Self::config(&format!(
            "server {{ listen %http%; location / {{
                 proxy_pass http://%backend%;
                 proxy_http_version 1.1;
                 proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Connection $http_connection;
                 proxy_set_header Host $host;
                 {directives}
             }} }}"
        ))
        .set("backend", backend)
        .on(driver)
        .start()
    }

    /// The address that `%NAME%` stands for.
    pub fn address(&self, name: &str) -> SocketAddr {
        let address = &self.setup.values[name];
        address.parse().unwrap_or_else(|e| panic!("{name} = {address}: {e}"))
    }

    /// The address of `%http%`.
    pub fn http(&self) -> SocketAddr {
        self.address("http")
    }

    /// A new connection to `%http%`.
    pub fn connect(&self) -> Wire {
        Wire::connect(self.http())
    }

    /// A new TLS connection to `%https%`, this name as SNI.
    pub fn connect_tls(&self, name: &str) -> Wire {
        tls::connect(self.address("https"), name, &tls::Client::default())
    }

    /// A tunnel through this path, over plain TCP.
    #[track_caller]
    pub fn tunnel(&self, target: &str) -> Wire {
        let mut client = self.connect();
        client.websocket(target);
        client
    }

    #[track_caller]
    pub fn tunnels(&self, target: &str, count: usize) -> Vec<Wire> {
        (0..count).map(|_| self.tunnel(target)).collect()
    }

    pub fn get(&self, target: &str) -> super::Response {
        self.connect().get(target)
    }

    pub fn dir(&self) -> &Path {
        self.setup.dir()
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// The process that serves: of one that others may follow ([`Setup::linked`]) the last.
    pub fn serving(&self) -> u32 {
        let followed = self.setup.linked.then(|| pid_in(&self.dir().join("proxy.pid"))).flatten();
        followed.unwrap_or_else(|| self.pid())
    }

    pub fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// What it wrote to stdout and stderr so far: its error log.
    pub fn log(&self) -> String {
        self.running.said()
    }

    /// Waits until all of `words` stand in one line of the error log, and returns the line.
    #[track_caller]
    pub fn logged(&self, words: &[&str]) -> String {
        found_line(words, || self.log())
    }

    /// Waits until all of `words` stand in one line of `%dir%/FILE`, and returns the line.
    #[track_caller]
    pub fn written(&self, file: &str, words: &[&str]) -> String {
        found_line(words, || fs::read_to_string(self.dir().join(file)).unwrap_or_default())
    }

    /// Writes another text in place of the one it runs, `main` being directives of the main context; it is not told.
    pub fn rewrite(&mut self, main: &str, text: &str) -> PathBuf {
        main.clone_into(&mut self.setup.main);
        text.clone_into(&mut self.setup.text);
        self.setup.write()
    }

    /// Another certificate and key in place of `%dir%/NAME.crt` and `.key`.
    pub fn renew_certificate(&self, name: &str, hosts: &[&str]) {
        tls::write_certificate(self.dir(), name, hosts, tls::Key::Ecdsa);
    }

    /// Open descriptors of the process (nginx: of its master).
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.serving())).expect("the process lives").count()
    }

    /// Resident memory, bytes (proc(5), `statm`).
    pub fn resident_bytes(&self) -> usize {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.serving())).expect("the process lives");
        let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
        pages * 4096
    }

    /// Memory that only this process has and that it has written to, bytes (proc(5), `smaps_rollup`, Linux 4.14).
    pub fn private_bytes(&self) -> usize {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.serving())).expect("the process lives");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).expect("a line of it");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    }

    /// It has ended, however: nothing is expected of its status any more.
    pub fn forget(self) {
        self.running.kill();
    }

    /// Ends it by `signal` and returns the status.
    pub fn end_by(mut self, signal: Signal) -> ExitStatus {
        self.running.signal(signal);
        self.running.wait()
    }
}

#[track_caller]
fn found_line(words: &[&str], mut text: impl FnMut() -> String) -> String {
    let mut line = None;
    let found = eventually(|| {
        line = text().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned);
        line.is_some()
    });
    assert!(found, "no line with {words:?} in:\n{}", text());
    line.expect("found")
}
