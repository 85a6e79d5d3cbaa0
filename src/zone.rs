//! The zones of `limit_conn` and `limit_req`: what is known by key of all clients, shared by all workers, and by configurations that
//! follow each other.
//!
//! A zone is one lock, as in nginx: it is held for a look-up and an addition, once a handshake. Its keys are fingerprints of one
//! size, so that its memory is reckoned and not measured, and no client can fill it with long keys, or be uncounted for one.

mod bucket;
mod connections;
mod key;
mod requests;
mod tally;

use std::{fmt, sync::Arc};

pub use self::{
    bucket::Bucket,
    connections::{Connections, Place, Unplaced},
    key::Key,
    requests::{Paced, Requests, Verdict, judge},
    tally::Tally,
};
use crate::config::{Config, Zone};

/// The zones of a configuration, by their numbers there.
#[derive(Debug, Default)]
pub struct Zones {
    /// Of `limit_conn_zone`.
    pub connections: Vec<Arc<Connections>>,
    /// Of `limit_req_zone`.
    pub requests: Vec<Arc<Requests>>,
}

impl Zones {
    /// The zones of a configuration. Those of the one before it go on, with all they hold, where name, key and size stay.
    pub fn follow(config: &Config, before: &Self) -> Self {
        let connections = config.connection_zones.iter().map(|zone| {
            let known = before.connections.iter().find(|known| known.identity.is(zone));
            known.map_or_else(|| Arc::new(Connections::new(zone)), Arc::clone)
        });
        let requests = config.request_zones.iter().map(|(zone, _)| {
            let known = before.requests.iter().find(|known| known.identity.is(zone));
            known.map_or_else(|| Arc::new(Requests::new(zone)), Arc::clone)
        });
        Self { connections: connections.collect(), requests: requests.collect() }
    }
}

/// What makes a zone the same in two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: Box<str>,
    /// Its key, as written.
    pub key: Box<str>,
    /// Its size.
    pub bytes: usize,
}

impl Identity {
    fn of(zone: &Zone) -> Self {
        Self { name: zone.name.clone(), key: zone.key_text.clone(), bytes: zone.bytes }
    }

    fn is(&self, zone: &Zone) -> bool {
        (&self.name, &self.key, self.bytes) == (&zone.name, &zone.key_text, zone.bytes)
    }
}

/// What became of a request at its limits: `$limit_conn_status`, `$limit_req_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Within them.
    Passed,
    /// Had to wait.
    Delayed,
    /// Refused.
    Rejected,
    /// Would have had to wait.
    DelayedDryRun,
    /// Would have been refused.
    RejectedDryRun,
}

impl Limited {
    /// nginx's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passed => "PASSED",
            Self::Delayed => "DELAYED",
            Self::Rejected => "REJECTED",
            Self::DelayedDryRun => "DELAYED_DRY_RUN",
            Self::RejectedDryRun => "REJECTED_DRY_RUN",
        }
    }
}

impl fmt::Display for Limited {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::config;

    /// A zone that holds a few hundred keys.
    pub(super) fn zone(name: &str, key: &str, bytes: usize) -> Zone {
        Zone { name: name.into(), key: crate::variables::Template::default(), key_text: key.into(), bytes }
    }

    fn zones_of(zones: &[Zone], before: &Zones) -> Zones {
        let mut config = config(Vec::new(), Vec::new());
        config.connection_zones = zones.to_vec();
        config.request_zones = zones.iter().map(|zone| (zone.clone(), 1_000)).collect();
        Zones::follow(&config, before)
    }

    #[test]
    fn a_zone_goes_on_where_name_key_and_size_stay() {
        let first = zones_of(&[zone("a", "$x", 32768), zone("b", "$y", 32768)], &Zones::default());
        let place = first.connections[1].enter(Key::of(b"k"), 1).unwrap();
        let next = zones_of(&[zone("b", "$y", 32768), zone("a", "$z", 32768)], &first);
        assert!(Arc::ptr_eq(&next.connections[0], &first.connections[1]), "another place in the file");
        assert!(Arc::ptr_eq(&next.requests[0], &first.requests[1]));
        assert!(!Arc::ptr_eq(&next.connections[1], &first.connections[0]), "another key");
        assert!(next.connections[0].enter(Key::of(b"k"), 1).is_err(), "what it holds goes on");
        drop(place);
        assert!(next.connections[0].enter(Key::of(b"k"), 1).is_ok());
        let larger = zones_of(&[zone("b", "$y", 65536)], &next);
        assert!(!Arc::ptr_eq(&larger.connections[0], &next.connections[0]), "another size");
    }
}
