//! What may be done from a status page: one tunnel closed, one backend drained.

use std::{
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::{Told, ask};
use crate::{
    config::{Level, Listener, Origin},
    generation::Generation,
    http::{path, refusal::Refusal},
    observe::{
        errand::Task,
        error_log::{self, About},
        tally::PeerTally,
    },
    request::{Address, Request},
    route::origin,
    worker::Worker,
};

/// The field that says that a script of ours, or a person, means it: no page of another site can send it unasked.
const FIELD: &str = "X-Longsplice-Admin";

/// Whoever asks may act: `status_admin` is on, and `allow` and `deny` let this client pass; where the file has neither, it must be one
/// of this host, by its own word and by that of any proxy that is believed.
pub fn may_act(request: &Request, admin: bool) -> bool {
    let is_loopback = |address: &Address| address.ip().is_none_or(|ip| ip.to_canonical().is_loopback());
    let is_local = is_loopback(&request.client.remote) && is_loopback(request.remote());
    admin && (!request.settings().access.is_empty() || is_local)
}

/// Does what a POST asks for.
///
/// # Errors
/// Whoever asks may not, or asks for nothing that can be done.
pub async fn act(worker: &Rc<Worker>, request: &Request, generation: &Generation) -> Result<Told, Refusal> {
    check(request)?;
    let action = Action::of(request)?;
    let (status, done) = match action {
        Action::Close(serial) => close(worker, serial).await,
        Action::Drain(server, percent) => drain(worker, generation, &server, percent)?,
        Action::Undrain(server) => undrain(generation, &server)?,
    };
    let message = format_args!("{FIELD}: {}", done.trim_end());
    error_log::event(&generation.logs, Level::Notice, &About::Request(request), message);
    Ok(Told { status, ..Told::now("text/plain; charset=utf-8", done) })
}

/// A browser does what any page tells it to, with its user's address: what a page of another site can send is not enough.
fn check(request: &Request) -> Result<(), Refusal> {
    let head = &request.head;
    let site = head.fields.get("Sec-Fetch-Site");
    let same = origin::origin_allowed(&[Origin::Same, Origin::None], head, request.scheme());
    if head.fields.get(FIELD) != Some(b"1") {
        return Err(Refusal::new(403, "admin_field", "an action needs the field `X-Longsplice-Admin: 1`"));
    }
    if !same || site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return Err(Refusal::new(403, "admin_origin", "an action must come from the status page itself"));
    }
    if !is_known(request) {
        // DNS rebinding: a name of somebody else's that leads here for a moment.
        return Err(Refusal::new(
            403,
            "admin_host",
            "an action needs a Host that is an address, localhost or a server_name",
        ));
    }
    Ok(())
}

fn is_known(request: &Request) -> bool {
    let Ok(host) = str::from_utf8(&request.head.host) else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let names = |listener: &Listener| {
        let found = listener.names.find(host.as_bytes()).is_some_and(|found| found.server == request.server);
        listener.servers.contains(&request.server) && found
    };
    bare.parse::<IpAddr>().is_ok() || host == "localhost" || request.config.listeners.iter().any(names)
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Close(u64),
    Drain(String, u8),
    Undrain(String),
}

impl Action {
    fn of(request: &Request) -> Result<Self, Refusal> {
        let value = |name: &str| {
            let mut arguments = request.args.split(|byte| *byte == b'&');
            let value = arguments.find_map(|argument| argument.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
            String::from_utf8(path::decode(value).ok()?).ok()
        };
        let percent = value("percent").map_or(Some(100), |text| text.parse().ok().filter(|percent| *percent <= 100));
        match (value("close"), value("drain"), value("undrain"), percent) {
            (Some(serial), None, None, _) => serial.parse().map(Self::Close).map_err(|_| NOTHING),
            (None, Some(server), None, Some(percent)) => Ok(Self::Drain(server, percent)),
            (None, None, Some(server), _) => Ok(Self::Undrain(server)),
            _ => Err(NOTHING),
        }
    }
}

const NOTHING: Refusal = Refusal::new(
    400,
    "admin_action",
    "one of ?close=CONNECTION, ?drain=UPSTREAM/SERVER with percent=0 to 100, ?undrain=UPSTREAM/SERVER",
);
const UNKNOWN: Refusal =
    Refusal::new(404, "admin_server", "no upstream server has this name: UPSTREAM/SERVER as in the file");

async fn close(worker: &Rc<Worker>, serial: u64) -> (u16, String) {
    let errand = ask(worker, Task::Close { serial, found: AtomicBool::new(false) }).await;
    match errand.has_found() {
        true => (202, format!("connection {serial} is closed\n")),
        false => (404, format!("there is no tunnel of connection {serial}\n")),
    }
}

fn drain(worker: &Rc<Worker>, generation: &Generation, server: &str, percent: u8) -> Result<(u16, String), Refusal> {
    let peers = set(generation, server, true)?;
    let open: u64 = peers.iter().map(|peer| peer.tunnels.now()).sum();
    if percent > 0 {
        for peer in peers {
            super::tell(worker, Task::Drain { peer, percent });
        }
    }
    let window = generation.config.main.drain.window.as_secs_f32();
    let message = format!(
        "{server} is drained: it gets nothing new, and {percent}% of its {open} tunnels are closed within {window} s\n"
    );
    Ok((202, message))
}

fn undrain(generation: &Generation, server: &str) -> Result<(u16, String), Refusal> {
    set(generation, server, false)?;
    Ok((200, format!("{server} is asked again\n")))
}

/// Marks every address of a server, in the present configuration and for those to come.
fn set(generation: &Generation, server: &str, drained: bool) -> Result<Vec<Arc<PeerTally>>, Refusal> {
    let mut peers = Vec::new();
    for (index, (upstream, group)) in generation.config.upstreams.iter().zip(&generation.upstreams.groups).enumerate() {
        let Some(wanted) = server.strip_prefix(&*upstream.name).and_then(|rest| rest.strip_prefix('/')) else {
            continue;
        };
        for (peer, (name, address)) in group.addresses().enumerate() {
            let tally = generation.tallies.number(index, peer).and_then(|number| generation.tallies.peer(number));
            if let Some(tally) = tally.filter(|_| wanted == name || wanted == &**address) {
                group.set_drained(peer, drained);
                tally.drained.store(drained, Relaxed);
                peers.push(Arc::clone(tally));
            }
        }
    }
    if peers.is_empty() { Err(UNKNOWN) } else { Ok(peers) }
}
