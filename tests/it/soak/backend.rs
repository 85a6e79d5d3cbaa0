//! The backends: processes of their own, so that they can be killed. Each is this test program once more.

use std::{
    env,
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use super::{
    ends::{self, End, Plan},
    script::{Random, payload},
};
use crate::util::{Head, Wire, checksum, eventually, frames, ports, process::Running, tls::Server};

/// Says where a backend listens,
const ADDRESS: &str = "LONGSPLICE_SOAK_BACKEND";
/// and where it does by TLS.
const TLS_ADDRESS: &str = "LONGSPLICE_SOAK_TLS_BACKEND";
/// What a backend says of what must not be,
const WRONG: &str = "soak: wrong:";
/// and of a tunnel whose client did not come to its end: the target.
const CUT_SHORT: &str = "soak: cut short: ";

/// No test: what [`Process::start`] starts.
#[test]
#[ignore = "a part of the soak"]
fn of_the_soak() {
    let (Ok(plain), Ok(tls)) = (env::var(ADDRESS), env::var(TLS_ADDRESS)) else { return };
    listen(&plain, |stream| Some(Wire::over(stream)));
    let server = Server::new(&["x"]);
    // One that goes away within the handshake is nobody's fault.
    listen(&tls, move |stream| server.accept(stream).ok().map(|(wire, _)| wire));
    // The test that started it may have been ended by somebody.
    let parent = nix::unistd::getppid();
    while nix::unistd::getppid() == parent {
        thread::sleep(Duration::from_millis(200));
    }
}

/// Serves whoever comes, each by a thread.
fn listen(address: &str, accept: impl Fn(TcpStream) -> Option<Wire> + Send + Sync + 'static) {
    let listener = TcpListener::bind(address).expect("bind");
    let accept = Arc::new(accept);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = stream.set_nodelay(true);
            let accept = Arc::clone(&accept);
            let serve = move || accept(stream).into_iter().for_each(serve);
            thread::Builder::new().stack_size(512 << 10).spawn(serve).expect("a thread");
        }
    });
}

/// Requests, until one asks for a WebSocket.
fn serve(mut wire: Wire) {
    wire.patience(Duration::from_secs(120));
    while let Some(head) = wire.try_head() {
        let Some(plan) = Plan::of(head.target()) else { return };
        if head.get("sec-websocket-key").is_some() {
            if wire.try_send(frames::switching(&head)).is_ok() {
                tunnel(wire, &plan, head.target());
            }
            return;
        }
        if answer(&mut wire, &head, &plan).is_err() {
            return;
        }
    }
}

fn tunnel(wire: Wire, plan: &Plan, target: &str) {
    match ends::run(wire, plan.backend()) {
        Ok((end, _)) if end != End::Whole && plan.is_whole() => eprintln!("{CUT_SHORT}{target}"),
        Ok(_) => {}
        // One that misbehaves may send anything.
        Err(_) if plan.client_cut == Some(0) => {}
        Err(error) => eprintln!("{WRONG} a backend: {error}: {plan:?}"),
    }
}

/// What the client was to send and to get follows from the plan.
fn answer(wire: &mut Wire, head: &Head, plan: &Plan) -> std::io::Result<()> {
    let body = wire.body(head);
    if body != payload(plan.seed, plan.up as usize) {
        eprintln!("{WRONG} a body of {} bytes, {:x}: {plan:?}", body.len(), checksum(&body));
    }
    let body = payload(plan.seed ^ 1, plan.down as usize);
    let length = body.len();
    let answer = match Random::new(plan.seed).percent(50) && length > 0 {
        true => {
            [format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n").as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
        }
        false => [format!("Content-Length: {length}\r\n\r\n").as_bytes(), body].concat(),
    };
    wire.try_send([b"HTTP/1.1 200 OK\r\n".to_vec(), answer].concat())
}

/// A running backend.
pub struct Process {
    running: Option<Running>,
    pub address: SocketAddr,
    pub tls_address: SocketAddr,
}

impl Process {
    pub fn start(address: SocketAddr, tls_address: SocketAddr) -> Self {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args(["--ignored", "--exact", "--nocapture", "soak::backend::of_the_soak"]);
        command.env(ADDRESS, address.to_string()).env(TLS_ADDRESS, tls_address.to_string());
        let running = Running::spawn(&mut command);
        let listens = || [address, tls_address].iter().all(|address| ports::listened_on(address.port()));
        assert!(eventually(listens), "no backend: {}", running.said());
        Self { running: Some(running), address, tls_address }
    }

    fn said(&self) -> String {
        self.running.as_ref().map(Running::said).unwrap_or_default()
    }

    /// What it found wrong.
    pub fn complaints(&self) -> Vec<String> {
        let said = self.said();
        said.lines().filter(|line| line.contains(WRONG) || line.contains("panicked")).map(str::to_owned).collect()
    }

    /// Targets of tunnels of which it heard too little, though neither end was to break off.
    pub fn cut_short(&self) -> Vec<String> {
        self.said().lines().filter_map(|line| line.strip_prefix(CUT_SHORT)).map(str::to_owned).collect()
    }
}

impl Drop for Process {
    /// SIGKILL.
    fn drop(&mut self) {
        self.running.take().into_iter().for_each(Running::kill);
    }
}
