//! `proxy_redirect`: the backend's own addresses in Location and Refresh become ours.

use super::fields::value;
use crate::{config::Redirect, request::Request, route::rewrite::Rewritable};

/// The field's new value, if it has an address and a `proxy_redirect` applies to it. The first that does wins.
/// As the backend sent it, a relative Location stays relative; one that became a path here is made absolute, as in nginx.
pub(super) fn rewritten(request: &mut Request, redirects: &[Redirect], name: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let at = address(name, text)?;
    let (front, address) = text.split_at(at);
    let new = redirects.iter().find_map(|redirect| apply(request, redirect, address))?;
    let new = if front.is_empty() { request.absolute(new) } else { new };
    Some(value(&[front, &new].concat()))
}

/// Where the address begins: a Location is one; a Refresh has it behind `url=`.
fn address(name: &[u8], text: &[u8]) -> Option<usize> {
    if name.eq_ignore_ascii_case(b"location") {
        return Some(0);
    }
    const URL: &[u8] = b"url=";
    let url = || text.windows(URL.len()).position(|part| part.eq_ignore_ascii_case(URL)).map(|at| at + URL.len());
    name.eq_ignore_ascii_case(b"refresh").then(url).flatten()
}

fn apply(request: &mut Request, redirect: &Redirect, address: &[u8]) -> Option<Vec<u8>> {
    match redirect {
        Redirect::Prefix(from, to) => {
            let rest = address.strip_prefix(&*from.expand(request))?;
            Some([&to.expand(request), rest].concat())
        }
        Redirect::Regex(regex, to) => {
            let captures = regex.captures(address)?;
            request.set_captures(captures, false);
            Some(to.expand(request))
        }
    }
}
