//! The request target a backend gets, as nginx builds it (ngx_http_proxy_create_request).

use crate::{
    config::{ProxyPass, ProxyTarget},
    http::{
        host::host_of,
        refusal::{Flaw, Refusal},
    },
    request::Request,
    route::escape,
    variables::{Scope, Variable},
};

const BAD_VARIABLE: Flaw =
    Flaw::new("bad_proxy_pass", "the variables of proxy_pass expand to no host, unix: path or upstream");

/// The host part of a `proxy_pass` with variables, once they are expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableTarget {
    /// `https://` stands in front.
    pub tls: bool,
    /// `host[:port]`, `unix:path` or the name of an upstream group, as expanded: `$proxy_host`.
    pub address: Box<str>,
    /// What stands behind it: sent as the whole request target.
    pub uri: Option<Vec<u8>>,
}

/// Takes the expansion of [`ProxyTarget::Variable`] apart. `tls` holds where the expansion brings no scheme.
///
/// # Errors
/// 500, as in nginx, where it is no address: the file is at fault, or the client found a way to write it.
pub fn variable_target(expansion: &[u8], tls: bool) -> Result<VariableTarget, Refusal> {
    let (tls, rest) = match (strip_scheme(expansion, "http://"), strip_scheme(expansion, "https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => (tls, expansion),
    };
    let (address, uri) = match rest.strip_prefix(b"unix:") {
        // `unix:/path:/uri`: the colon goes with neither.
        Some(path) => match memchr::memchr(b':', path) {
            Some(colon) => (&rest[..5 + colon], &path[colon + 1..]),
            None => (rest, &b""[..]),
        },
        None => rest.split_at(memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len())),
    };
    let valid = if address.starts_with(b"unix:") { address.len() > 5 } else { host_of(address).is_some() };
    let address = str::from_utf8(address).ok().filter(|_| valid).ok_or(BAD_VARIABLE.refuse(500))?;
    let uri = (!uri.is_empty()).then(|| uri.to_vec());
    Ok(VariableTarget { tls, address: address.into(), uri })
}

fn strip_scheme<'a>(text: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    text.split_at_checked(scheme.len())
        .filter(|(front, _)| front.eq_ignore_ascii_case(scheme.as_bytes()))
        .map(|(_, rest)| rest)
}

/// The request target for the backend.
pub(super) fn request_target(request: &mut Request, pass: &ProxyPass) -> Result<Vec<u8>, Refusal> {
    if let Some(uri) = variable_uri(request, pass)? {
        return Ok(as_it_is(&uri));
    }
    let replacement = pass.uri.as_ref().and_then(|uri| uri.constant());
    if replacement.is_none() && !request.uri_changed {
        return Ok(request.head.origin_form().into_owned());
    }
    let (replacement, matched) = match replacement {
        Some(replacement) if request.prefix_matched => (replacement, pass.prefix),
        _ => (&b""[..], 0),
    };
    let mut target = replacement.to_vec();
    escape::path(request.uri.get(matched..).unwrap_or_default(), &mut target);
    if !request.args.is_empty() {
        target.push(b'?');
        escape::target(&request.args, &mut target);
    }
    Ok(rooted(target))
}

/// The URI part of a `proxy_pass` with variables, which is the whole target.
fn variable_uri(request: &mut Request, pass: &ProxyPass) -> Result<Option<Vec<u8>>, Refusal> {
    match (&pass.uri, &pass.target) {
        (Some(uri), _) if uri.constant().is_none() => Ok(Some(uri.expand(&mut Encoded(request)))),
        (None, ProxyTarget::Variable(target)) => {
            let expansion = target.expand(&mut Encoded(request));
            Ok(variable_target(&expansion, pass.tls)?.uri)
        }
        _ => Ok(None),
    }
}

/// A request whose decoded values come out encoded again. (nginx writes them as they are: `/%2541` would reach a backend behind
/// `proxy_pass http://backend$uri` as `/%41`, and mean `/A` there.)
struct Encoded<'a>(&'a mut Request);

impl Scope for Encoded<'_> {
    fn append(&mut self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let found = self.0.append(variable, out);
        if self.0.is_decoded(variable) {
            let decoded = out.split_off(start);
            escape::path(&decoded, out);
        }
        found
    }
}

/// Text that is a target already. Variables in it may be decoded (`$uri`), so what would break the request line is encoded.
fn as_it_is(uri: &[u8]) -> Vec<u8> {
    let mut target = Vec::with_capacity(uri.len());
    escape::target(uri, &mut target);
    rooted(target)
}

/// With the slash that `http://backend?x` and an empty variable lack.
fn rooted(target: Vec<u8>) -> Vec<u8> {
    if target.starts_with(b"/") { target } else { [b"/", &target[..]].concat() }
}
