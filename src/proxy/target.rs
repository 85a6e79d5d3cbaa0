//! Where `proxy_pass` leads: a group of the file, or an address that variables came to.

use std::{net::SocketAddr, sync::Arc};

use super::Client;
use crate::{
    config::{Bind, ProxyPass, ProxyTarget, Sources},
    forward::{self, VariableTarget},
    http::refusal::Refusal,
    request::Request,
    upstream::{Backend, Group},
};

/// Where a request goes.
pub(super) struct Target<'a> {
    group: Route<'a>,
    /// Over TLS: the name to send and to verify.
    pub(super) tls_name: Option<String>,
    /// Which `upstream` of the configuration it is.
    pub(super) upstream: Option<usize>,
    /// `proxy_bind`: from where.
    pub(super) sources: Option<Arc<Sources>>,
}

enum Route<'a> {
    /// A group of the file, its state shared by all workers.
    Group(&'a Group),
    /// An address that a `proxy_pass` with variables came to.
    Address(Group),
}

impl Target<'_> {
    /// Its servers.
    pub(super) fn group(&self) -> &Group {
        match &self.group {
            Route::Group(group) => group,
            Route::Address(group) => group,
        }
    }
}

/// Finds it. Sets `$proxy_host` and `$proxy_port`.
///
/// # Errors
/// 500 where variables come to no address, 502 where they come to a name, which is resolved only at start.
pub(super) fn target<'a>(client: Client<'a>, request: &mut Request, pass: &ProxyPass) -> Result<Target<'a>, Refusal> {
    let groups = &client.generation.upstreams.groups;
    let (name, tls, upstream) = match &pass.target {
        ProxyTarget::Upstream(index, name) => (name.clone(), pass.tls, Some(*index)),
        ProxyTarget::Variable(template) => {
            let VariableTarget { address, tls, .. } = forward::variable_target(&template.expand(request), pass.tls)?;
            let declared = request.config.upstreams.iter().position(|group| group.declared && group.name == address);
            (address, tls, declared)
        }
    };
    let group = match upstream {
        Some(index) => Route::Group(&groups[index]),
        None => Route::Address(Group::single(literal(&name, tls)?)),
    };
    name_target(request, name, tls);
    let tls_name = tls.then(|| tls_name(request));
    let sources = sources(request)?;
    Ok(Target { group, tls_name, upstream, sources })
}

/// Where connections come from; as in nginx, variables that come to nothing leave it to the kernel.
fn sources(request: &mut Request) -> Result<Option<Arc<Sources>>, Refusal> {
    let settings = Arc::clone(request.settings());
    let text = match &settings.bind {
        None => return Ok(None),
        Some(Bind::Pool(sources)) => return Ok(Some(Arc::clone(sources))),
        Some(Bind::Variable(template)) => template.expand(request),
    };
    if text.is_empty() {
        return Ok(None);
    }
    let address = str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
    // Not unbound instead, as nginx: whoever names addresses has a rule for them somewhere.
    let Some(address) = address else {
        let detail = format!("`proxy_bind` came to \"{}\", which is no address", text.escape_ascii());
        return Err(Refusal::private(500, "bind_address", detail));
    };
    Ok(Some(Arc::new(Sources::new([address]))))
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
