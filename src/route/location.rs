//! `location`: `=`, `^~`, prefix, `~`, `~*`, nested and `@named`, chosen in nginx's order.

use crate::variables::Slot;

/// Index of a location in its server.
pub type LocationId = usize;

/// How a location is matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `location = /x`
    Exact(Box<[u8]>),
    /// `location /x`; `no_regex` for `^~`.
    Prefix {
        /// The prefix.
        path: Box<[u8]>,
        /// `^~`: regular expressions are not tried when this is the longest prefix.
        no_regex: bool,
    },
    /// `location ~ x` and `~* x`.
    Regex {
        /// The expression as written.
        source: Box<str>,
        /// `~*`
        ignore_case: bool,
    },
    /// `location @x`
    Named(Box<str>),
}

/// The locations of one server, ready to look up.
#[derive(Debug, Default)]
pub struct Locations {}

/// A location found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub location: LocationId,
    /// `$1`... when found by a regular expression.
    pub captures: Option<Vec<Vec<u8>>>,
    /// Named captures.
    pub named: Vec<(Slot, Vec<u8>)>,
    /// nginx's automatic slash: the path lacks the final `/` of a prefix location that proxies; answer 301 with it.
    pub add_slash: bool,
}

impl Locations {
    /// Adds a location. `parent` is the location it is nested in. `auto_slash`: it has a proxy_pass, so that the
    /// request for `/x` of `location /x/` is answered 301.
    ///
    /// # Errors
    /// A duplicate, a regular expression that does not compile, a nesting nginx refuses.
    pub fn insert(
        &mut self,
        _id: LocationId,
        _pattern: Pattern,
        _parent: Option<LocationId>,
        _auto_slash: bool,
        _slot_of: &mut dyn FnMut(&str) -> Slot,
    ) -> Result<(), String> {
        unimplemented!()
    }

    /// nginx's search for a normalised path (ngx_http_core_find_location).
    pub fn find(&self, _path: &[u8]) -> Option<Found> {
        unimplemented!()
    }

    /// The location `@name`.
    pub fn named(&self, _name: &str) -> Option<LocationId> {
        unimplemented!()
    }
}
