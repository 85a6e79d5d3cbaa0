//! The backends: processes of their own, so that they can be killed. Each is this test program once more.

use std::{
    env,
    net::{SocketAddr, TcpListener},
    process::Command,
    thread,
    time::Duration,
};

use super::{
    ends::{self, End, Plan},
    script::{Random, payload},
};
use crate::util::{Head, Wire, checksum, eventually, frames, ports, process::Running};

/// Says where a backend listens.
const ADDRESS: &str = "LONGSPLICE_SOAK_BACKEND";
/// What a backend says of what must not be.
const WRONG: &str = "soak: wrong:";

/// No test: what [`Process::start`] starts.
#[test]
#[ignore = "a part of the soak"]
fn of_the_soak() {
    let Ok(address) = env::var(ADDRESS) else { return };
    let listener = TcpListener::bind(address).expect("bind");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = stream.set_nodelay(true);
            let serve = move || serve(Wire::over(stream));
            thread::Builder::new().stack_size(512 << 10).spawn(serve).expect("a thread");
        }
    });
    // The test that started it may have been ended by somebody.
    let parent = nix::unistd::getppid();
    while nix::unistd::getppid() == parent {
        thread::sleep(Duration::from_millis(200));
    }
}

/// Requests, until one asks for a WebSocket.
fn serve(mut wire: Wire) {
    wire.patience(Duration::from_secs(120));
    while let Some(head) = wire.try_head() {
        let Some(plan) = head.target().split_once('?').and_then(|(_, query)| Plan::parse(query)) else { return };
        if head.get("sec-websocket-key").is_some() {
            if wire.try_send(frames::switching(&head)).is_ok() {
                tunnel(wire, &plan);
            }
            return;
        }
        if answer(&mut wire, &head, &plan).is_err() {
            return;
        }
    }
}

fn tunnel(wire: Wire, plan: &Plan) {
    match ends::run(wire, plan.backend()) {
        Ok((End::Short | End::Reset, _)) if plan.is_whole() => {
            eprintln!("{WRONG} a backend heard too little of {plan:?}");
        }
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
}

impl Process {
    pub fn start(address: SocketAddr) -> Self {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args(["--ignored", "--exact", "--nocapture", "soak::backend::of_the_soak"]);
        let running = Running::spawn(command.env(ADDRESS, address.to_string()));
        assert!(eventually(|| ports::listened_on(address.port())), "no backend: {}", running.said());
        Self { running: Some(running), address }
    }

    /// What it found wrong.
    pub fn complaints(&self) -> Vec<String> {
        let said = self.running.as_ref().map(Running::said).unwrap_or_default();
        said.lines().filter(|line| line.contains(WRONG) || line.contains("panicked")).map(str::to_owned).collect()
    }
}

impl Drop for Process {
    /// SIGKILL.
    fn drop(&mut self) {
        self.running.take().into_iter().for_each(Running::kill);
    }
}
