//! Host names with nginx's wildcards: the part that `server_name` and `map ... { hostnames; }` share.

use std::collections::HashMap;

/// What a name or wildcard stands for, found in nginx's order: the exact name, the longest `*.x`, the longest `x.*`.
#[derive(Debug)]
pub(super) struct Hostnames<T> {
    exact: HashMap<Box<[u8]>, T>,
    /// `*.x` and `.x`, by x.
    leading: Wildcards<Leading<T>>,
    /// `x.*`, by x.
    trailing: Wildcards<T>,
}

#[derive(Debug)]
struct Leading<T> {
    value: T,
    /// Written `.x`: x itself matches as well.
    itself: bool,
}

/// A name that cannot be one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid;

impl<T: Copy> Hostnames<T> {
    /// Adds a name in lower case. False, and nothing changed, when the same name is there already.
    pub(super) fn insert(&mut self, name: &[u8], value: T) -> Result<bool, Invalid> {
        let stars = name.iter().filter(|byte| **byte == b'*').count();
        if stars > 1 || name.windows(2).any(|pair| pair == b"..") || name.contains(&0) {
            return Err(Invalid);
        }
        let plain = |rest: &[u8]| if rest.is_empty() || rest.contains(&b'*') { Err(Invalid) } else { Ok(()) };
        if let Some(parent) = name.strip_prefix(b".") {
            plain(parent)?;
            if self.exact.contains_key(parent) {
                return Ok(false);
            }
            Ok(self.leading.insert(parent, Leading { value, itself: true }))
        } else if let Some(parent) = name.strip_prefix(b"*.") {
            plain(parent)?;
            Ok(self.leading.insert(parent, Leading { value, itself: false }))
        } else if let Some(stem) = name.strip_suffix(b".*") {
            plain(stem)?;
            Ok(self.trailing.insert(stem, value))
        } else if stars > 0 {
            Err(Invalid)
        } else {
            Ok(self.insert_exact(name, value))
        }
    }

    /// Adds a name in which nothing is a wildcard.
    pub(super) fn insert_exact(&mut self, name: &[u8], value: T) -> bool {
        if self.exact.contains_key(name) || self.leading.get(name).is_some_and(|found| found.itself) {
            return false;
        }
        self.exact.insert(name.into(), value);
        true
    }

    /// The value for a host name in lower case.
    pub(super) fn find(&self, host: &[u8]) -> Option<T> {
        self.exact.get(host).copied().or_else(|| self.find_leading(host)).or_else(|| self.find_trailing(host))
    }

    fn find_leading(&self, host: &[u8]) -> Option<T> {
        if let Some(found) = self.leading.get(host).filter(|found| found.itself) {
            return Some(found.value);
        }
        let parents = dots(host).map(|at| &host[at + 1..]);
        parents.filter_map(|parent| self.leading.get(parent)).map(|found| found.value).next()
    }

    fn find_trailing(&self, host: &[u8]) -> Option<T> {
        let stems = dots(host).rev().map(|at| &host[..at]);
        stems.filter_map(|stem| self.trailing.get(stem)).copied().next()
    }
}

impl<T> Default for Hostnames<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), leading: Wildcards::default(), trailing: Wildcards::default() }
    }
}

/// Where the dots of a name are.
fn dots(name: &[u8]) -> impl DoubleEndedIterator<Item = usize> {
    name.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at)
}

#[derive(Debug)]
struct Wildcards<T> {
    by_name: HashMap<Box<[u8]>, T>,
    /// Nothing longer is looked up, so that a host of thousands of dots costs no more than the file's own names.
    longest: usize,
}

impl<T> Wildcards<T> {
    fn insert(&mut self, name: &[u8], value: T) -> bool {
        if self.by_name.contains_key(name) {
            return false;
        }
        self.longest = self.longest.max(name.len());
        self.by_name.insert(name.into(), value);
        true
    }

    fn get(&self, name: &[u8]) -> Option<&T> {
        if name.len() > self.longest { None } else { self.by_name.get(name) }
    }
}

impl<T> Default for Wildcards<T> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), longest: 0 }
    }
}
