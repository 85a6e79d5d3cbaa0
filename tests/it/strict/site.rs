//! The site that every case goes through, the backend behind it, and what was logged and counted.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs,
    io::ErrorKind,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use crate::util::{Driver, PATIENCE, Program, Proxy, Wire, proxy::under_test, tls};

/// The site as longsplice and nginx are given it. `/closed/` is nobody's, `/app/` has another name behind the proxy, and the
/// connections of `/kept` may wait for other requests.
pub const FILE: &str = r#"
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    upstream app { server %backend%; }
    upstream kept { server %backend%; keepalive 8; }
    server {
        listen %http%;
        listen %https% ssl;
        ssl_certificate %dir%/site.crt;
        ssl_certificate_key %dir%/site.key;
        client_body_timeout 2s;
        proxy_read_timeout 2s;
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        location / { proxy_pass http://app; }
        location /app/ { proxy_pass http://app/; }
        location /kept { proxy_pass http://kept; proxy_set_header Connection ""; }
        location /closed/ { deny all; }
        location = /probe { return 204; }
    }
"#;

/// How a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Plain,
    Tls,
}

pub struct Site {
    pub proxy: Proxy,
    backend: TcpListener,
    tls: tls::Client,
    /// How much of the error log was read.
    log_read: Cell<usize>,
    /// What [`Site::rose`] saw.
    seen: RefCell<HashMap<&'static str, u64>>,
}

impl Site {
    /// The site by the program under test, with its counters to be read.
    pub fn start(driver: Driver) -> Self {
        Self::with("", driver)
    }

    /// The same with more directives of the http context.
    pub fn with(directives: &str, driver: Driver) -> Self {
        Self::of(under_test(), directives, driver)
    }

    /// The site by one of two programs that read the same file.
    pub fn of(program: Program, directives: &str, driver: Driver) -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").expect("bind");
        backend.set_nonblocking(true).expect("non-blocking");
        let metrics = match program {
            Program::Longsplice => "server { listen %status%; location / { metrics; } }",
            Program::Nginx => "",
        };
        let proxy = Proxy::config(&format!("{directives}{FILE}{metrics}"))
            .main("worker_processes 1; error_log %dir%/error.log info;")
            .set("backend", backend.local_addr().expect("its address"))
            .certificate("site", &["x"])
            .by(program)
            .on(driver)
            .start();
        let site =
            Self { proxy, backend, tls: tls::Client::default(), log_read: Cell::default(), seen: RefCell::default() };
        if program == Program::Longsplice {
            // What it says of itself, and of what this host lacks, comes behind its listening.
            site.proxy.written("error.log", &[" ready: "]);
            site.new_lines();
        }
        site
    }

    pub fn connect(&self, channel: Channel) -> Wire {
        match channel {
            Channel::Plain => self.proxy.connect(),
            Channel::Tls => tls::connect(self.proxy.address("https"), "x", &self.tls),
        }
    }

    /// Comes back when the one worker has looked at all that was sent before.
    pub fn probe(&self) {
        assert_eq!(self.proxy.get("/probe").status(), 204);
    }

    /// The proxy's next connection to the backend.
    pub fn accept(&self) -> Wire {
        accept(&self.backend, PATIENCE).expect("the proxy connects to its backend")
    }

    /// The backend has heard of nothing that was not looked at.
    pub fn is_quiet(&self) -> bool {
        self.probe();
        accept(&self.backend, Duration::ZERO).is_none()
    }

    /// Lines that the error log has got since the last look.
    pub fn new_lines(&self) -> Vec<String> {
        let log = fs::read_to_string(self.proxy.dir().join("error.log")).unwrap_or_default();
        let new = log.get(self.log_read.get()..).unwrap_or_default();
        let whole = new.rfind('\n').map_or(0, |end| end + 1);
        self.log_read.set(self.log_read.get() + whole);
        new[..whole].lines().map(str::to_owned).collect()
    }

    /// How much the count of this reason rose since it was last asked for here.
    pub fn rose(&self, reason: &'static str) -> u64 {
        let now = self.counted(reason);
        now - self.seen.borrow_mut().insert(reason, now).unwrap_or_default()
    }

    /// How often this reason was counted, for a refusal or for the end of a tunnel.
    pub fn counted(&self, reason: &str) -> u64 {
        let text = Wire::connect(self.proxy.address("status")).get("/").text();
        let count = |series: &str| -> Option<u64> {
            let name = format!("{series}_total{{reason=\"{reason}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(name.as_str()))?.parse().ok()
        };
        ["longsplice_refusals", "longsplice_tunnels_closed"].iter().filter_map(|series| count(series)).sum()
    }
}

/// The next connection within `patience`.
pub fn accept(listener: &TcpListener, patience: Duration) -> Option<Wire> {
    let deadline = Instant::now() + patience;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("blocking");
                stream.set_nodelay(true).expect("TCP_NODELAY");
                return Some(Wire::over(stream));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_micros(200));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("accept: {error}"),
        }
    }
}
