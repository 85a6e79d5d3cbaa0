//! Paths: one reading of them for locations and access rules, and what is forwarded is what was sent.
//!
//! `/closed/` is nobody's; what is below `/app/` is below `/` behind the proxy.

use super::{Case, arrives, forwarded, refused, request, rules};

rules![
    no_spelling_of_a_path_walks_out_of_its_location,
    a_path_does_not_leave_the_root,
    a_dot_segment_has_no_parameters,
    an_escape_is_two_digits_and_never_nul,
    what_is_forwarded_is_what_was_sent,
    nothing_decoded_is_written_as_it_is,
];

fn ask(path: &str) -> String {
    request(&format!("GET {path} HTTP/1.1"), "")
}

fn bad(path: &str, reason: &'static str) -> Case {
    refused(format!("`{path}`"), ask(path), 400, reason)
}

/// Reaches the backend as another path.
fn becomes(path: &str, other: &str) -> Case {
    forwarded(format!("`{path}`"), ask(path), arrives(&format!("GET {other} HTTP/1.1"), "", ""))
}

fn no_spelling_of_a_path_walks_out_of_its_location() -> Vec<Case> {
    let closed = |path: &str| refused(format!("`{path}`"), ask(path), 403, "access_denied");
    vec![
        closed("/closed/a"),
        closed("//closed//a"),
        closed("/./closed/a"),
        closed("/app/../closed/a"),
        closed("/app/..%2fclosed/a"),
        closed("/app/%2e%2e/closed/a"),
        closed("/app/%2e%2e%2fclosed%2fa"),
        closed("/app/.%2E/closed/a"),
        closed("/%63losed/a"),
        closed("/closed%2fa"),
        closed("/app/b/../../closed/"),
    ]
}

fn a_path_does_not_leave_the_root() -> Vec<Case> {
    let above = |path: &str| bad(path, "path_above_root");
    vec![
        above("/../etc"),
        above("/app/../../etc"),
        above("/app/%2e%2e%2f%2e%2e%2fetc"),
        above("/..%2fetc"),
        above("/.."),
        above("/%2e%2e"),
    ]
}

fn a_dot_segment_has_no_parameters() -> Vec<Case> {
    let parameters = |path: &str| bad(path, "dot_segment_parameters");
    vec![
        parameters("/app/..;/closed/a"),
        parameters("/app/..;x=1/closed/a"),
        parameters("/.;/closed/a"),
        parameters("/app/%2e%2e;/closed/a"),
        parameters("/app/..%3b/closed/a"),
        parameters("/app/..;"),
        becomes("/a;x=1/b", "/a;x=1/b"),
        becomes("/...;/b", "/...;/b"),
    ]
}

fn an_escape_is_two_digits_and_never_nul() -> Vec<Case> {
    vec![
        bad("/a%00b", "nul_in_path"),
        bad("/closed%00/a", "nul_in_path"),
        bad("/a%zz", "bad_escape"),
        bad("/a%2", "bad_escape"),
        bad("/a%", "bad_escape"),
        bad("/a%u002f", "bad_escape"),
    ]
}

fn what_is_forwarded_is_what_was_sent() -> Vec<Case> {
    vec![
        becomes("/a/../b", "/a/../b"),
        becomes("/a%2fb", "/a%2fb"),
        becomes("/%252e%252e%252fclosed/a", "/%252e%252e%252fclosed/a"),
        becomes("/%c0%ae%c0%ae/closed/a", "/%c0%ae%c0%ae/closed/a"),
        becomes("/..\\closed\\a", "/..\\closed\\a"),
        becomes("/closed;x/a", "/closed;x/a"),
        becomes("/a?../closed&%00", "/a?../closed&%00"),
    ]
}

fn nothing_decoded_is_written_as_it_is() -> Vec<Case> {
    vec![
        becomes("/a%0d%0aX:%201", "/a%0d%0aX:%201"),
        becomes("/app/a%0d%0aX:%201", "/a%0D%0AX:%201"),
        becomes("/app/a%20HTTP/1.1%0d%0aHost:%20y", "/a%20HTTP/1.1%0D%0AHost:%20y"),
        becomes("/app/a%3fb%23c", "/a%3Fb%23c"),
        becomes("/app/%252e%252e/a", "/%252e%252e/a"),
        becomes("/app/a%09b", "/a%09b"),
    ]
}
