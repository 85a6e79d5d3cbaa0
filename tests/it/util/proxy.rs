//! The program under test as a process of its own, or nginx with the same file.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, Once},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use tempfile::TempDir;

use super::{PATIENCE, Wire, eventually, external, ports, tls};

/// How the program waits for its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the kernel allows it.
    IoUring,
    /// epoll, forced.
    Epoll,
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
    driver: Driver,
    program: Program,
    values: BTreeMap<String, String>,
    /// Names whose value the test gave: not ours to listen on.
    given: BTreeSet<String>,
    dir: TempDir,
}

impl Setup {
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
        let text = self.fill_in(&text);
        let path = self.dir.path().join("nginx.conf");
        fs::write(&path, text).expect("the file");
        path
    }

    /// A whole file around directives of the http context, the same for both programs but for the lines that keep
    /// nginx in the foreground and in its directory.
    fn wrapped(&self, text: &str) -> String {
        let main = &self.main;
        let (main_nginx, http_nginx) = match self.program {
            Program::Longsplice => ("", ""),
            Program::Nginx => (
                "user root;",
                "client_body_temp_path %dir%/body; proxy_temp_path %dir%/proxy; fastcgi_temp_path %dir%/f;
                 uwsgi_temp_path %dir%/u; scgi_temp_path %dir%/s; server_names_hash_bucket_size 128; ssl_protocols TLSv1.2 TLSv1.3; proxy_http_version 1.1;",
            ),
        };
        let workers = if main.contains("worker_processes") { "" } else { "worker_processes 2;" };
        let log = if main.contains("error_log") { "" } else { "error_log stderr info;" };
        let events = if main.contains("events") { "" } else { "events { worker_connections 9000; }" };
        format!(
            "{main}{workers} {main_nginx}\n{log}\npid %dir%/proxy.pid;\n{events}\nhttp {{\n{http_nginx}\n\
             access_log %dir%/access.log;\n{text}\n}}\n"
        )
    }

    fn command(&self, file: &Path) -> Command {
        let mut command = match self.program {
            Program::Longsplice => Command::new(executable()),
            Program::Nginx => Command::new(external("nginx").expect("nginx")),
        };
        command.arg("-c").arg(file).arg("-p").arg(self.dir.path());
        match (self.program, self.driver) {
            (Program::Nginx, _) => drop(command.args(["-g", "daemon off;", "-e", "stderr"])),
            (Program::Longsplice, Driver::Epoll) => drop(command.env("MONOIO_FORCE_LEGACY_DRIVER", "1")),
            (Program::Longsplice, Driver::IoUring) => {}
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
    pub fn start(mut self) -> Proxy {
        let file = self.write();
        let mut command = self.command(&file);
        let listening: Vec<u16> = self
            .values
            .iter()
            .filter(|(name, _)| !self.given.contains(*name))
            .filter_map(|(_, value)| value.rsplit(':').next()?.parse().ok())
            .collect();
        let running = Running::spawn(&mut command);
        let mut proxy = Proxy { running, dir: self.dir, values: self.values };
        for port in listening {
            assert!(
                eventually(|| ports::listened_on(port) || proxy.running.ended().is_some())
                    && proxy.running.ended().is_none(),
                "not listening on port {port}; it says:\n{}\nits file:\n{}",
                proxy.log(),
                fs::read_to_string(&file).unwrap_or_default()
            );
        }
        proxy
    }
}

/// `http`, `https_2`, `backend`: what may stand between two per cent signs.
fn is_placeholder(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// What a program that ended left behind.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    _dir: Option<TempDir>,
}

impl Finished {
    fn in_directory(mut self, dir: TempDir) -> Self {
        self._dir = Some(dir);
        self
    }

    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by signal {:?}: {}", self.status.signal(), self.stderr))
    }

    /// Everything it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code(), code, "it said:\n{}", self.said());
        self
    }

    #[track_caller]
    pub fn expect(&self, words: &[&str]) -> &Self {
        let said = self.said();
        for word in words {
            assert!(said.contains(word), "no {word:?} in:\n{said}");
        }
        self
    }
}

/// Runs a command to its end, in bounded time.
pub fn finish(command: &mut Command) -> Finished {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let output = [collect(child.stdout.take().expect("piped")), collect(child.stderr.take().expect("piped"))];
    let status = wait(&mut child, PATIENCE * 4);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    output.iter().for_each(Output::wait);
    let [stdout, stderr] = output.map(|output| output.text());
    let status = status.unwrap_or_else(|| panic!("{command:?} did not end by itself; it said:\n{stdout}{stderr}"));
    Finished { status, stdout, stderr, _dir: None }
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// What a process writes to one of its pipes, read by a thread.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

fn collect(output: impl Read + Send + 'static) -> Output {
    let bytes = Arc::<Mutex<Vec<u8>>>::default();
    let sink = bytes.clone();
    let reader = thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            sink.lock().unwrap().append(&mut line);
        }
    });
    Output { bytes, reader }
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// Until the pipe is closed: by the end of the process, mostly.
    fn wait(&self) {
        eventually(|| self.reader.is_finished());
    }
}

/// A process of ours and what it says.
pub struct Running {
    child: Child,
    output: [Output; 2],
    ended: Option<ExitStatus>,
    foreign: bool,
}

impl Running {
    pub fn spawn(command: &mut Command) -> Self {
        Self::reading(command, Stdio::null())
    }

    /// With its standard input in our hands: what is written to it was typed.
    pub fn spawn_interactive(command: &mut Command) -> (Self, ChildStdin) {
        let mut running = Self::reading(command, Stdio::piped());
        let keyboard = running.child.stdin.take().expect("piped");
        (running, keyboard)
    }

    fn reading(command: &mut Command, input: Stdio) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let output = [collect(child.stdout.take().expect("piped")), collect(child.stderr.take().expect("piped"))];
        Self { child, output, ended: None, foreign: false }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far, stdout first.
    pub fn said(&self) -> String {
        self.output[0].text() + &self.output[1].text()
    }

    /// Its status, once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("wait");
        }
        self.ended
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("a process of ours");
    }

    /// Its status within [`PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        if self.ended.is_none() {
            self.ended = wait(&mut self.child, PATIENCE);
        }
        self.ended.unwrap_or_else(|| panic!("still running; it says:\n{}", self.said()))
    }

    /// Ends it at once, whatever its status: for programs that are not ours.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.foreign = true;
    }

    fn check_end(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::SIGTERM);
        }
        let status = self.wait();
        self.output.iter().for_each(Output::wait);
        let said = self.said();
        assert!(status.success(), "ended with {status}; it says:\n{said}");
        assert!(!said.contains("panicked at"), "it panicked:\n{said}");
    }
}

impl Drop for Running {
    /// Every process must end by SIGTERM, with status 0 and without a panic in its log: each test checks that too.
    fn drop(&mut self) {
        if self.foreign {
            return;
        }
        if thread::panicking() {
            eprintln!("--- it said:\n{}---", self.said());
            let _ = self.child.kill();
            let _ = self.child.wait();
        } else {
            self.check_end();
        }
    }
}

/// The running program.
pub struct Proxy {
    running: Running,
    dir: TempDir,
    values: BTreeMap<String, String>,
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
            driver: Driver::IoUring,
            program: under_test(),
            values: BTreeMap::new(),
            given: BTreeSet::new(),
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
        self.values[name].parse().unwrap_or_else(|e| panic!("{name} = {}: {e}", self.values[name]))
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

    pub fn get(&self, target: &str) -> super::Response {
        self.connect().get(target)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
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

    /// Open descriptors of the process (nginx: of its master).
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the process lives").count()
    }

    /// Resident memory, bytes (proc(5), `statm`).
    pub fn resident_bytes(&self) -> usize {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("the process lives");
        let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
        pages * 4096
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
