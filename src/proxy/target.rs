//! Where `proxy_pass` leads: a group of the file, or an address that variables came to.

use std::{net::SocketAddr, sync::Arc};

use super::Client;
use crate::{
    config::{ProxyPass, ProxyTarget},
    forward::{self, VariableTarget},
    http::refusal::Refusal,
    observe::tally::Tallies,
    request::Request,
    upstream::{Backend, Group},
};

/// Where a request goes.
pub(super) struct Target<'a> {
    group: Route<'a>,
    /// Over TLS: the name to send and to verify.
    pub(super) tls_name: Option<String>,
}

enum Route<'a> {
    /// A group of the file, its state shared by all workers, and its number.
    Group(&'a Group, usize),
    /// An address that a `proxy_pass` with variables came to.
    Address(Group),
}

impl Target<'_> {
    /// Its servers.
    pub(super) fn group(&self) -> &Group {
        match &self.group {
            Route::Group(group, _) => group,
            Route::Address(group) => group,
        }
    }

    /// The number of one of them among all of the file; none of an address that is not in it.
    pub(super) fn number(&self, peer: usize, tallies: &Tallies) -> Option<u32> {
        match self.group {
            Route::Group(_, group) => tallies.number(group, peer),
            Route::Address(_) => None,
        }
    }
}

/// Finds it. Sets `$proxy_host` and `$proxy_port`.
///
/// # Errors
/// 500 where variables come to no address, 502 where they come to a name, which is resolved only at start.
pub(super) fn target<'a>(client: Client<'a>, request: &mut Request, pass: &ProxyPass) -> Result<Target<'a>, Refusal> {
    let groups = &client.generation.upstreams.groups;
    let (name, tls, group) = match &pass.target {
        ProxyTarget::Upstream(index, name) => (name.clone(), pass.tls, Route::Group(&groups[*index], *index)),
        ProxyTarget::Variable(template) => {
            let VariableTarget { address, tls, .. } = forward::variable_target(&template.expand(request), pass.tls)?;
            let declared = request.config.upstreams.iter().position(|group| group.declared && group.name == address);
            let group = match declared {
                Some(index) => Route::Group(&groups[index], index),
                None => Route::Address(Group::single(literal(&address, tls)?)),
            };
            (address, tls, group)
        }
    };
    name_target(request, name, tls);
    let tls_name = tls.then(|| tls_name(request));
    Ok(Target { group, tls_name })
}

/// `proxy_ssl_name`, else `$proxy_host` without its port.
fn tls_name(request: &mut Request) -> String {
    let settings = Arc::clone(request.settings());
    match &settings.backend_tls_name {
        Some(name) => String::from_utf8_lossy(&name.expand(request)).into_owned(),
        None => host_of(&request.proxy_host).to_owned(),
    }
}

/// The address a text is, since names are resolved only at start.
fn literal(address: &str, tls: bool) -> Result<Backend, Refusal> {
    if let Some(path) = address.strip_prefix("unix:") {
        return Ok(Backend::Unix(path.into()));
    }
    let port = if tls { 443 } else { 80 };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let socket = address.parse().or_else(|_| bare.parse().map(|ip| SocketAddr::new(ip, port)));
    socket.map(Backend::Tcp).map_err(|_| Refusal {
        status: 502,
        reason: "no_resolver",
        detail: format!("no resolver defined to resolve {address}").into(),
    })
}

/// `$proxy_host` and `$proxy_port`.
fn name_target(request: &mut Request, name: Box<str>, tls: bool) {
    let default = if tls { "443" } else { "80" };
    let port = name.strip_prefix(host_of(&name)).and_then(|rest| rest.strip_prefix(':')).unwrap_or(default);
    request.proxy_port = port.into();
    request.proxy_host = name;
}

/// `host` of `host:port`, `[::1]` of `[::1]:80`.
fn host_of(name: &str) -> &str {
    match name.rfind(':') {
        Some(colon) if !name.ends_with(']') && !name.starts_with("unix:") => &name[..colon],
        _ => name,
    }
}
