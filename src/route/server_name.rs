//! `server_name`: exact, `*.x`, `x.*`, `.x`, `~regex`, and nginx's order among them.

use super::{
    hostnames::{Hostnames, Invalid},
    regex::Regex,
};
use crate::variables::{Slot, hostname};

/// Index of a server block in the configuration.
pub type ServerId = usize;

/// Every name of one listener, ready to look up.
#[derive(Debug, Default)]
pub struct ServerNames {
    hosts: Hostnames<ServerId>,
    /// In the order of the file: the first that matches wins.
    expressions: Vec<(Regex, ServerId)>,
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
    /// Adds a name as written in `server_name` (already in lower case unless a regex); `$hostname` is this machine's.
    /// `slot_of` gives the slot of a named capture. The same name twice on one listener: the first stays, and false is returned.
    ///
    /// # Errors
    /// What is wrong with the name or its regular expression, for a diagnostic.
    pub fn insert(
        &mut self,
        name: &str,
        server: ServerId,
        slot_of: &mut dyn FnMut(&str) -> Slot,
    ) -> Result<bool, String> {
        let name = if name.eq_ignore_ascii_case("$hostname") { hostname() } else { name };
        let Some(source) = name.strip_prefix('~') else {
            let added = self.hosts.insert(name.as_bytes(), server);
            return added.map_err(|Invalid| format!("invalid server name or wildcard \"{name}\""));
        };
        if source.is_empty() {
            return Err("empty regex in server name \"~\"".to_owned());
        }
        // Host names come in lower case, so nginx makes an expression with a capital letter ignore case.
        let ignore_case = source.bytes().any(|byte| byte.is_ascii_uppercase());
        self.expressions.push((Regex::new(source, ignore_case, slot_of)?, server));
        Ok(true)
    }

    /// The server for a host name (lower case, no port, no trailing dot); none: the default server.
    /// A request without host name has the empty one, which only `server_name "";` matches.
    pub fn find(&self, host: &[u8]) -> Option<NameMatch> {
        if let Some(server) = self.hosts.find(host) {
            return Some(NameMatch { server, ..NameMatch::default() });
        }
        if host.is_empty() {
            return None;
        }
        self.expressions.iter().find_map(|(regex, server)| {
            let captures = regex.captures(host)?;
            Some(NameMatch { server: *server, captures: captures.numbered, named: captures.named })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, each of the server with its index.
    fn names(list: &[&str]) -> ServerNames {
        let mut names = ServerNames::default();
        for (server, name) in list.iter().enumerate() {
            names.insert(name, server, &mut |_| 0).unwrap();
        }
        names
    }

    fn server(names: &ServerNames, host: &str) -> Option<ServerId> {
        names.find(host.as_bytes()).map(|found| found.server)
    }

    #[test]
    fn exact_then_longest_leading_then_longest_trailing_then_first_regex() {
        let names = names(&[
            "~^www\\.",
            "www.*",
            "www.example.*",
            "*.com",
            "*.example.com",
            "www.example.com",
            "~^www\\.example\\.",
        ]);
        assert_eq!(server(&names, "www.example.com"), Some(5));
        assert_eq!(server(&names, "a.b.example.com"), Some(4));
        assert_eq!(server(&names, "example.com"), Some(3));
        assert_eq!(server(&names, "www.other.com"), Some(3));
        assert_eq!(server(&names, "www.example.org"), Some(2));
        assert_eq!(server(&names, "www.x.org"), Some(1));
        assert_eq!(server(&names, "www"), None);
    }

    #[test]
    fn a_leading_dot_stands_for_the_name_and_everything_below() {
        let names = names(&[".example.com", "*.example.org"]);
        assert_eq!(server(&names, "example.com"), Some(0));
        assert_eq!(server(&names, "a.b.example.com"), Some(0));
        assert_eq!(server(&names, "badexample.com"), None);
        assert_eq!(server(&names, "example.org"), None);
        assert_eq!(server(&names, "a.example.org"), Some(1));
    }

    #[test]
    fn a_trailing_wildcard_needs_something_behind_it() {
        let names = names(&["mail.*"]);
        assert_eq!(server(&names, "mail.example.org"), Some(0));
        assert_eq!(server(&names, "mail"), None);
        assert_eq!(server(&names, "x.mail.example"), None);
    }

    #[test]
    fn the_empty_name_is_for_requests_without_host() {
        let names = names(&["~.*", "", "_"]);
        assert_eq!(server(&names, ""), Some(1));
        assert_eq!(server(&names, "_"), Some(2));
        assert_eq!(server(&names, "x"), Some(0));
    }

    #[test]
    fn the_first_of_two_equal_names_stays() {
        let mut names = names(&["example.com", "*.example.org", "mail.*"]);
        for name in ["example.com", ".example.com", "*.example.org", ".example.org", "mail.*"] {
            assert_eq!(names.insert(name, 9, &mut |_| 0), Ok(false), "{name}");
        }
        assert_eq!(names.insert(".new.com", 3, &mut |_| 0), Ok(true));
        assert_eq!(names.insert("new.com", 9, &mut |_| 0), Ok(false));
        assert_eq!(server(&names, "new.com"), Some(3));
    }

    #[test]
    fn names_that_can_never_match_are_errors() {
        let mut names = ServerNames::default();
        for name in ["*", "*.", ".", "a*.com", "*.a.*", "a..com", "*a.com", "*.a*", "~", "~(", "~(?=x)"] {
            assert!(names.insert(name, 0, &mut |_| 0).is_err(), "{name}");
        }
    }

    #[test]
    fn a_regex_captures_by_number_and_name() {
        let mut names = ServerNames::default();
        names.insert("~^(www\\.)?(?<domain>.+)$", 4, &mut |_| 8).unwrap();
        let found = names.find(b"www.example.com").unwrap();
        assert_eq!(found.captures, [b"www.".to_vec(), b"example.com".to_vec()]);
        assert_eq!(found.named, [(8, b"example.com".to_vec())]);
    }

    #[test]
    fn a_regex_with_a_capital_letter_ignores_case() {
        assert_eq!(server(&names(&["~^API\\."]), "api.example.com"), Some(0));
    }

    #[test]
    fn the_machines_own_name_can_be_asked_for() {
        assert_eq!(server(&names(&["$hostname"]), hostname()), Some(0));
    }

    #[test]
    fn a_host_of_nothing_but_dots_is_looked_up_quickly() {
        let names = names(&["*.example.com", "www.*"]);
        assert_eq!(server(&names, &".".repeat(1 << 20)), None);
    }
}
