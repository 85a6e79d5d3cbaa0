//! `server_name`: exact, `*.x`, `x.*`, `.x`, `~regex`, and nginx's order among them.

use crate::variables::Slot;

/// Index of a server block in the configuration.
pub type ServerId = usize;

/// Every name of one listener, ready to look up.
#[derive(Debug, Default)]
pub struct ServerNames {
    // exact: HashMap, leading wildcard, trailing wildcard, regexes in order of appearance
}

/// A server found by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NameMatch {
    /// The server.
    pub server: ServerId,
    /// `$1`... of a regular expression, in order.
    pub captures: Vec<Vec<u8>>,
    /// Named captures.
    pub named: Vec<(Slot, Vec<u8>)>,
}

impl ServerNames {
    /// Adds a name as written in `server_name` (already in lower case unless a regex).
    /// `slot_of` gives the slot of a named capture. The same name twice on one listener: the first stays, and false is returned.
    ///
    /// # Errors
    /// What is wrong with the name or its regular expression, for a diagnostic.
    pub fn insert(
        &mut self,
        _name: &str,
        _server: ServerId,
        _slot_of: &mut dyn FnMut(&str) -> Slot,
    ) -> Result<bool, String> {
        unimplemented!()
    }

    /// The server for a host name (lower case, no port, no trailing dot); none: the default server.
    pub fn find(&self, _host: &[u8]) -> Option<NameMatch> {
        unimplemented!()
    }
}
