//! The live page of a `status` location: one file that needs nothing else, and the fields it is sent with.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD};

const PAGE: &str = include_str!("status_page/page.html");

/// The page. It asks its own address with `?json` once a second.
pub fn html() -> &'static [u8] {
    PAGE.as_bytes()
}

/// The fields of the response with the page, but for its length and its date.
pub fn fields() -> [(&'static str, &'static str); 5] {
    [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", &POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    ]
}

/// The page shows names that come from files and from clients, and has buttons that act: no script runs but its own, it asks
/// nobody but its own server, nobody may frame it, and no text may become markup (Trusted Types, CSP 3).
static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        hash(between("<script>", "</script>")),
        hash(between("<style>", "</style>")),
    )
});

/// A source expression of CSP 3 for exactly this text.
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// The inside of the page's only element of a kind.
fn between(open: &str, close: &str) -> &'static str {
    let inside = PAGE.split_once(open).and_then(|(_, rest)| rest.split_once(close));
    inside.map_or("", |(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_brings_everything_it_needs() {
        for outside in ["src=", "@import", "url(", "http://", "https://"] {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "").contains(outside);
            assert!(!found, "{outside}: nothing from elsewhere");
        }
        assert!(PAGE.len() < 60_000, "{} bytes", PAGE.len());
    }

    #[test]
    fn what_the_server_says_is_text_and_never_markup() {
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!PAGE.contains(markup), "{markup}");
        }
        for handler in [" onclick=", " onload=", " onerror=", " onsubmit=", "javascript:", " style=\""] {
            assert!(!PAGE.contains(handler), "{handler}: the policy forbids it");
        }
    }

    #[test]
    fn the_policy_allows_what_the_page_has_and_nothing_else() {
        for tag in ["<script", "</script>", "<style", "</style>"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
        assert!(between("<script>", "</script>").len() > 1000 && between("<style>", "</style>").len() > 1000);
        let policy = fields().into_iter().find(|(name, _)| *name == "Content-Security-Policy").unwrap().1;
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    }

    #[test]
    fn a_hash_is_the_one_browsers_compute() {
        // The example of the CSP documentation for `alert('Hello, world.');`.
        assert_eq!(hash("alert('Hello, world.');"), "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng=");
    }
}
