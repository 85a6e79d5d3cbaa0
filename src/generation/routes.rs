//! Whether a tunnel of an earlier configuration would be opened again as it is.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::Generation;
use crate::{
    config::{Content, ProxyTarget},
    route::{location::LocationId, server_name::ServerId},
};

/// Locations by their names.
type Places = HashMap<Box<str>, Vec<(ServerId, LocationId)>>;

/// The routes of a generation, by the names of server and location. Names may be there more than once.
pub struct Routes {
    generation: Arc<Generation>,
    by_name: HashMap<Box<str>, Places>,
    /// Backends that are `down` or `drain` now, by their groups.
    let_go: HashMap<Box<str>, HashSet<Arc<str>>>,
}

impl Routes {
    /// Those of this one.
    pub fn of(generation: &Arc<Generation>) -> Self {
        let mut by_name = HashMap::<_, Places>::new();
        for (id, server) in generation.config.servers.iter().enumerate() {
            let locations = by_name.entry(server.name.clone()).or_default();
            for (number, location) in server.locations.iter().enumerate() {
                locations.entry(location.name.clone()).or_default().push((id, number));
            }
        }
        let groups = generation.config.upstreams.iter().zip(&generation.upstreams.groups);
        let let_go = groups.map(|(upstream, group)| (upstream.name.clone(), group.let_go().cloned().collect()));
        let let_go = let_go.filter(|(_, addresses): &(_, HashSet<_>)| !addresses.is_empty()).collect();
        Self { generation: Arc::clone(generation), by_name, let_go }
    }

    /// True when some backend is `down` or `drain`.
    pub fn let_some_go(&self) -> bool {
        !self.let_go.is_empty()
    }

    /// True when the backend at `address`, of the group that a location passed to, is `down` or `drain` now.
    pub fn let_go(&self, address: &str, before: &Generation, server: ServerId, location: LocationId) -> bool {
        let location = before.config.servers.get(server).and_then(|server| server.locations.get(location));
        let Some(Content::Proxy(pass)) = location.map(|location| &location.content) else { return false };
        let ProxyTarget::Upstream(group, _) = &pass.target else { return false };
        let group = before.config.upstreams.get(*group).and_then(|group| self.let_go.get(&group.name));
        group.is_some_and(|addresses| addresses.contains(address))
    }

    /// True when the way that led to the backend at `address` is there still: a server and a location of the same names, passed to the
    /// same, and the address among its backends.
    pub fn lead_to(&self, address: &str, before: &Generation, server: ServerId, location: LocationId) -> bool {
        let Some(server) = before.config.servers.get(server) else { return false };
        let Some(location) = server.locations.get(location) else { return false };
        let known = self.by_name.get(&server.name).and_then(|locations| locations.get(&location.name));
        known.into_iter().flatten().any(|(server, number)| {
            let now = &self.generation.config.servers[*server].locations[*number];
            self.is_same_way(&location.content, &now.content, address)
        })
    }

    fn is_same_way(&self, before: &Content, now: &Content, address: &str) -> bool {
        let (Content::Proxy(before), Content::Proxy(now)) = (before, now) else { return false };
        let is_same_target = match (&before.target, &now.target) {
            (ProxyTarget::Upstream(_, before), ProxyTarget::Upstream(group, name)) => {
                before == name
                    && self.generation.upstreams.groups.get(*group).is_some_and(|group| group.serves(address))
            }
            (ProxyTarget::Variable(before), ProxyTarget::Variable(now)) => before == now,
            _ => false,
        };
        is_same_target && before.tls == now.tls && before.uri == now.uri
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{self, LoadOptions, Source},
        generation::tests::generation,
    };

    fn read(text: &str) -> Arc<Generation> {
        let file = Source::Text { name: "test".to_owned(), text: text.to_owned() };
        let options = LoadOptions { file, prefix: "/".into(), globals: None, conf_error_log: None };
        generation(Arc::new(config::load(&options).config.unwrap()))
    }

    #[test]
    fn a_way_is_its_names_its_target_and_its_backend() {
        let file = "upstream app { server 10.0.0.1:80; server 10.0.0.2:80; }
            server { listen 1; server_name a; location / { return 204; } location /ws { proxy_pass http://app; } }";
        let before = read(file);
        let location = before.config.servers[0].locations.iter().position(|location| &*location.name == "/ws").unwrap();
        let stays = |file: &str| Routes::of(&read(file)).lead_to("10.0.0.2:80", &before, 0, location);
        assert!(stays(file));
        // What has nothing to do with it, and another place in the file.
        assert!(stays(&file.replace("10.0.0.1:80", "10.0.0.9:80").replace("204", "404")));
        assert!(stays(&format!("server {{ listen 2; return 204; }} {file}")));
        for (from, to) in [
            ("server_name a", "server_name b"),
            ("location /ws", "location /wss"),
            ("10.0.0.2:80", "10.0.0.3:80"),
            ("10.0.0.2:80", "10.0.0.2:80 down"),
            ("http://app", "https://app"),
            ("http://app", "http://10.0.0.2:80"),
            ("http://app", "http://app/x"),
            ("proxy_pass http://app", "return 204"),
        ] {
            assert!(!stays(&file.replace(from, to)), "{from} -> {to}");
        }
        let goes = |address: &str, file: &str| Routes::of(&read(file)).let_go(address, &before, 0, location);
        for word in ["down", "drain"] {
            let file = file.replace("10.0.0.2:80", &format!("10.0.0.2:80 {word}"));
            assert!(goes("10.0.0.2:80", &file) && !goes("10.0.0.1:80", &file));
            assert!(!goes("10.0.0.2:80", &file.replace("app", "other")));
        }
        assert!(!goes("10.0.0.2:80", file) && !Routes::of(&before).let_some_go());
    }
}
