//! Names of backends to addresses, once, before anything listens.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use super::{Backend, Group, Unresolved};
use crate::{
    config::{BackendAddress, Upstream},
    limits,
};

/// How a name is looked up; blocks.
pub(super) type Lookup = fn(&str) -> io::Result<Vec<IpAddr>>;

type Answers = HashMap<Box<str>, Result<Vec<IpAddr>, String>>;

/// getaddrinfo(3), IPv4 first and without IPv6 on a host that has none, as nginx asks it (`ngx_inet_resolve_host`).
pub(super) fn system(name: &str) -> io::Result<Vec<IpAddr>> {
    let addresses: Vec<IpAddr> = (name, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    Ok(ordered(addresses, has_ipv6()))
}

/// Groups of all their servers' addresses.
///
/// # Errors
/// Every name that has none.
pub(super) fn groups(upstreams: &[Upstream], lookup: Lookup) -> Result<Vec<Group>, Vec<Unresolved>> {
    let names: HashSet<Box<str>> = upstreams
        .iter()
        .flat_map(|upstream| &upstream.servers)
        .filter_map(|server| match &server.address {
            BackendAddress::Name(name, _) => Some(name.clone()),
            BackendAddress::Ip(_) | BackendAddress::Unix(_) => None,
        })
        .collect();
    let answers = resolve(names, lookup, Duration::from_secs(limits::RESOLVE_TIMEOUT_SECS));
    let (mut groups, mut unresolved) = (Vec::new(), Vec::new());
    for upstream in upstreams {
        match members(upstream, &answers) {
            Ok(members) => groups.push(Group::new(upstream.servers.iter().zip(members))),
            Err(errors) => unresolved.extend(errors),
        }
    }
    if unresolved.is_empty() { Ok(groups) } else { Err(unresolved) }
}

/// The addresses of each server of a group.
fn members(upstream: &Upstream, answers: &Answers) -> Result<Vec<Vec<Backend>>, Vec<Unresolved>> {
    let (mut members, mut errors) = (Vec::new(), Vec::new());
    for server in &upstream.servers {
        members.push(match &server.address {
            BackendAddress::Ip(address) => vec![Backend::Tcp(*address)],
            BackendAddress::Unix(path) => vec![Backend::Unix(path.clone())],
            BackendAddress::Name(name, port) => match answers.get(name) {
                Some(Ok(ips)) => ips.iter().map(|ip| Backend::Tcp(SocketAddr::new(*ip, *port))).collect(),
                answer => {
                    let reason = answer.and_then(|answer| answer.as_ref().err()).map_or("no answer", String::as_str);
                    errors.push(Unresolved {
                        place: upstream.place.to_string(),
                        message: format!("host not found in upstream \"{}\": {reason}", server.name),
                    });
                    continue;
                }
            },
        });
    }
    if errors.is_empty() { Ok(members) } else { Err(errors) }
}

/// Looks up all names at the same time, as far as [`limits::RESOLVERS`] allows, and gives up when no answer has come for
/// `patience`. A thread whose getaddrinfo hangs longer than that is left to end by itself: it cannot be stopped.
fn resolve(names: HashSet<Box<str>>, lookup: Lookup, patience: Duration) -> Answers {
    let mut answers = Answers::with_capacity(names.len());
    let threads = names.len().min(limits::RESOLVERS);
    let waiting: Vec<Box<str>> = names.iter().cloned().collect();
    let waiting = Arc::new(Mutex::new(waiting));
    let (tell, told) = mpsc::channel();
    for _ in 0..threads {
        let (waiting, tell) = (waiting.clone(), tell.clone());
        let resolver = move || {
            let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
            while let Some(name) = next() {
                let answer = answer(lookup(&name));
                if tell.send((name, answer)).is_err() {
                    break; // Nobody waits any longer.
                }
            }
        };
        // Where the system allows no thread at all, the names stay without answer, and are reported so.
        if thread::Builder::new().name("resolver".into()).spawn(resolver).is_err() {
            break;
        }
    }
    drop(tell);
    let failure = loop {
        match told.recv_timeout(patience) {
            Ok((name, answer)) => answers.insert(name, answer),
            Err(mpsc::RecvTimeoutError::Timeout) => break format!("no answer within {} s", patience.as_secs()),
            Err(mpsc::RecvTimeoutError::Disconnected) => break "no thread to resolve it".into(),
        };
    };
    for name in names {
        answers.entry(name).or_insert_with(|| Err(failure.clone()));
    }
    answers
}

/// Each address once and not too many of them, or the resolver's reason without what libstd puts before it.
fn answer(found: io::Result<Vec<IpAddr>>) -> Result<Vec<IpAddr>, String> {
    let mut seen = HashSet::new();
    let mut ips = found.map_err(|error| {
        let text = error.to_string();
        text.strip_prefix("failed to lookup address information: ").map_or_else(|| text.clone(), str::to_owned)
    })?;
    ips.retain(|ip| seen.insert(*ip));
    ips.truncate(limits::ADDRESSES_PER_NAME);
    if ips.is_empty() { Err("it has no address".into()) } else { Ok(ips) }
}

/// IPv4 before IPv6, and no IPv6 where the host could not use it, unless there is nothing else.
fn ordered(mut ips: Vec<IpAddr>, has_ipv6: bool) -> Vec<IpAddr> {
    ips.sort_by_key(IpAddr::is_ipv6);
    if !has_ipv6 && ips.first().is_some_and(IpAddr::is_ipv4) {
        ips.retain(IpAddr::is_ipv4);
    }
    ips
}

/// An IPv6 address other than loopback's on some interface: the test of getaddrinfo's AI_ADDRCONFIG, which libstd does not set.
/// Without it `localhost` would be two backends in every container, one of which refuses.
fn has_ipv6() -> bool {
    const LOOPBACK: &str = "00000000000000000000000000000001";
    // An address per line, its 32 digits first; no such file: no IPv6 at all.
    fs::read_to_string("/proc/net/if_inet6").is_ok_and(|table| table.lines().any(|line| !line.starts_with(LOOPBACK)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamServer;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn upstream(name: &str, servers: &[BackendAddress]) -> Upstream {
        let server = |address: &BackendAddress| {
            let name = match address {
                BackendAddress::Ip(ip) => ip.to_string(),
                BackendAddress::Name(name, port) => format!("{name}:{port}"),
                BackendAddress::Unix(path) => format!("unix:{}", path.display()),
            };
            UpstreamServer::new(address.clone(), &name)
        };
        Upstream {
            name: name.into(),
            place: format!("{name}.conf:1:1").into(),
            servers: servers.iter().map(server).collect(),
            declared: true,
            keepalive: None,
        }
    }

    fn named(name: &str) -> BackendAddress {
        BackendAddress::Name(name.into(), 3000)
    }

    fn fake(name: &str) -> io::Result<Vec<IpAddr>> {
        match name {
            "two" => Ok(ips(&["10.0.0.1", "10.0.0.2", "10.0.0.1"])),
            "many" => Ok((0..=255u8).map(|n| IpAddr::from([10, 0, 1, n])).collect()),
            "empty" => Ok(Vec::new()),
            "slow" => {
                thread::sleep(Duration::from_secs(3));
                Ok(ips(&["10.0.0.3"]))
            }
            _ => Err(io::Error::other("failed to lookup address information: Name or service not known")),
        }
    }

    #[test]
    fn addresses_pass_and_names_become_all_their_addresses_once() {
        let literal = BackendAddress::Ip("[::1]:80".parse().expect("an address"));
        let groups = groups(&[upstream("a", &[literal, BackendAddress::Unix("/run/x".into()), named("two")])], fake)
            .expect("resolved");
        let names: Vec<_> = (0..groups[0].len()).map(|peer| groups[0].name(peer)).collect();
        assert_eq!(names, ["[::1]:80", "unix:/run/x", "two:3000", "two:3000"]);
    }

    #[test]
    fn every_unknown_name_is_reported_at_its_place_in_nginx_words() {
        let groups = groups(
            &[
                upstream("a", &[named("nowhere"), named("two")]),
                upstream("b", &[named("empty")]),
                upstream("c", &[named("gone")]),
            ],
            fake,
        );
        let errors = groups.expect_err("three");
        let expected = [
            ("a.conf:1:1", "host not found in upstream \"nowhere:3000\": Name or service not known"),
            ("b.conf:1:1", "host not found in upstream \"empty:3000\": it has no address"),
            ("c.conf:1:1", "host not found in upstream \"gone:3000\": Name or service not known"),
        ];
        for (error, (place, message)) in errors.iter().zip(expected) {
            assert_eq!((&*error.place, &*error.message), (place, message));
        }
        assert_eq!(errors.len(), 3);
    }

    #[test]
    fn addresses_of_a_name_are_bounded() {
        let groups = groups(&[upstream("a", &[named("many")])], fake).expect("resolved");
        assert_eq!(groups[0].len(), limits::ADDRESSES_PER_NAME);
    }

    #[test]
    fn a_hanging_resolver_is_given_up_and_does_not_hold_the_others() {
        let names = ["slow", "two"].map(Box::from).into();
        let answers = resolve(names, fake, Duration::from_millis(300));
        assert!(answers["two"].is_ok());
        assert!(answers["slow"].as_ref().is_err_and(|reason| reason.contains("no answer within")));
    }

    #[test]
    fn more_names_than_threads_are_all_answered() {
        let names: HashSet<Box<str>> = (0..10 * limits::RESOLVERS).map(|n| format!("n{n}").into()).collect();
        assert_eq!(resolve(names.clone(), fake, Duration::from_secs(5)).len(), names.len());
        assert!(resolve(HashSet::new(), fake, Duration::from_secs(5)).is_empty());
    }

    #[test]
    fn ipv4_comes_first_and_unusable_ipv6_is_left_out() {
        let both = ips(&["::1", "127.0.0.1"]);
        assert_eq!(ordered(both.clone(), true), ips(&["127.0.0.1", "::1"]));
        assert_eq!(ordered(both, false), ips(&["127.0.0.1"]));
        assert_eq!(ordered(ips(&["::1"]), false), ips(&["::1"]));
    }

    #[test]
    fn the_system_knows_localhost() {
        assert!(system("localhost").expect("known").contains(&IpAddr::from([127, 0, 0, 1])));
        assert!(system("name.invalid").is_err());
    }
}
