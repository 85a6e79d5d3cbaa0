//! `map`: a value chosen by a value; exact, `hostnames` wildcards, regular expressions, `default`.

use crate::variables::{Slot, Template};

/// One `map` block.
#[derive(Debug, Default)]
pub struct Map {
    /// The variable's name, without `$`.
    pub name: Box<str>,
    /// The text that is looked up.
    pub source: Template,
    /// `volatile`: computed at every use.
    pub volatile: bool,
    // hostnames flag, exact table, wildcards, regexes in order, default
}

/// A map's answer.
#[derive(Debug)]
pub struct MapValue<'a> {
    /// The value; may contain variables.
    pub value: &'a Template,
    /// Captures when a regular expression with captures matched.
    pub captures: Option<Vec<Vec<u8>>>,
    /// Named captures.
    pub named: Vec<(Slot, Vec<u8>)>,
}

impl Map {
    /// A map without entries.
    pub fn new(_name: &str, _source: Template, _hostnames: bool, _volatile: bool) -> Self {
        unimplemented!()
    }

    /// Adds a line: `key` as written after unquoting (`default`, `\default`, `~re`, `~*re`, text; `*.x`, `.x`, `x.*` with `hostnames`).
    ///
    /// # Errors
    /// A duplicate, or an expression that does not compile.
    pub fn insert(
        &mut self,
        _key: &str,
        _value: Template,
        _slot_of: &mut dyn FnMut(&str) -> Slot,
    ) -> Result<(), String> {
        unimplemented!()
    }

    /// The value for a key (case-insensitive, as nginx). None: nothing matched and no default: empty.
    pub fn find(&self, _key: &[u8]) -> Option<MapValue<'_>> {
        unimplemented!()
    }
}
