//! `proxy_bind`: where connections to backends come from.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::variables::Template;

/// `proxy_bind`.
#[derive(Debug, Clone)]
pub enum Bind {
    /// Addresses of the file.
    Pool(Arc<Sources>),
    /// A text with variables that comes to one, or to nothing: the kernel's choice then.
    Variable(Template),
}

/// Addresses of this host, of which each connection takes the next. They take turns, since connections of one location live about as
/// long as each other, and ports of all then run out together; a hash of the client would do no more for it, and less evenly.
#[derive(Debug)]
pub struct Sources {
    v4: Box<[IpAddr]>,
    v6: Box<[IpAddr]>,
    turn: AtomicUsize,
}

impl Sources {
    /// These.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
        Self { v4: v4.into(), v6: v6.into(), turn: AtomicUsize::new(0) }
    }

    /// All of the family of `backend`, beginning with the one whose turn it is.
    pub fn in_turn(&self, backend: IpAddr) -> impl Iterator<Item = IpAddr> {
        let family = self.family(backend);
        let first = self.turn.fetch_add(1, Relaxed).checked_rem(family.len()).unwrap_or_default();
        let (before, from) = family.split_at(first);
        from.iter().chain(before).copied()
    }

    /// Those that a backend can be reached from.
    pub fn family(&self, backend: IpAddr) -> &[IpAddr] {
        if backend.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    /// All.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.iter().chain(&self.v6).copied()
    }
}

impl PartialEq for Sources {
    /// The same addresses, whosever turn it is.
    fn eq(&self, other: &Self) -> bool {
        (&self.v4, &self.v6) == (&other.v4, &other.v6)
    }
}

impl Eq for Sources {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_takes_the_next_address_of_its_family() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let sources = Sources::new(["10.0.0.1", "::1", "10.0.0.2", "10.0.0.3"].map(ip));
        let turn = |backend: &str| sources.in_turn(ip(backend)).collect::<Vec<_>>();
        assert_eq!(turn("192.0.2.1"), ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(ip));
        assert_eq!(turn("192.0.2.1"), ["10.0.0.2", "10.0.0.3", "10.0.0.1"].map(ip));
        assert_eq!(turn("2001:db8::1"), [ip("::1")]);
        assert_eq!(Sources::new([ip("10.0.0.1")]).in_turn(ip("::1")).count(), 0);
    }
}
