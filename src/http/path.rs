//! Paths: the one normal form that both matching and access rules see.

use super::refusal::Flaw;

const BAD_ESCAPE: Flaw = Flaw::new("bad_escape", "a % in the path is not followed by two hexadecimal digits");
const NUL: Flaw = Flaw::new("nul_in_path", "the path has %00");
const DOT_PARAMETERS: Flaw =
    Flaw::new("dot_segment_parameters", "a segment of the path is . or .. with parameters behind a semicolon");
const ABOVE_ROOT: Flaw = Flaw::new("path_above_root", "the path leaves the root by ..");

/// The path for matching: percent-decoded once, dot segments resolved, slashes merged where asked; it begins with `/`.
///
/// As nginx (ngx_http_parse_complex_uri), an escaped slash or dot counts as one: `%2e%2e%2f` cannot hide from a location.
///
/// Backends that know path parameters (RFC 3986 section 3.3; Java's servlets do) read `..;x` as `..`, and nginx as a name: it would
/// leave a location behind everybody's back. No client has a use for it.
///
/// # Errors
/// A malformed escape, `%00`, `..` above the root, and a dot segment with parameters.
pub(crate) fn normalise(path: &[u8], merge_slashes: bool) -> Result<Vec<u8>, Flaw> {
    let decoded = decode(path)?;
    let mut normal = Vec::with_capacity(decoded.len() + 1);
    normal.push(b'/');
    let mut segments = decoded.strip_prefix(b"/").unwrap_or(&decoded).split(|byte| *byte == b'/').peekable();
    // `normal` ends with a slash whenever a segment is looked at.
    while let Some(segment) = segments.next() {
        match segment {
            b"." => {}
            b".." => pop_segment(&mut normal)?,
            b"" if merge_slashes => {}
            name if is_dots_with_parameters(name) => return Err(DOT_PARAMETERS),
            name => {
                normal.extend_from_slice(name);
                if segments.peek().is_some() {
                    normal.push(b'/');
                }
            }
        }
    }
    Ok(normal)
}

fn is_dots_with_parameters(segment: &[u8]) -> bool {
    let dots = segment.strip_prefix(b"..").or_else(|| segment.strip_prefix(b"."));
    dots.is_some_and(|rest| rest.starts_with(b";"))
}

/// Takes the last segment off a path that ends with a slash.
fn pop_segment(normal: &mut Vec<u8>) -> Result<(), Flaw> {
    let parent = normal.strip_suffix(b"/").and_then(|path| memchr::memrchr(b'/', path)).ok_or(ABOVE_ROOT)?;
    normal.truncate(parent + 1);
    Ok(())
}

pub(crate) fn decode(path: &[u8]) -> Result<Vec<u8>, Flaw> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(percent) = memchr::memchr(b'%', rest) {
        let (before, escape) = rest.split_at(percent);
        let [_, high, low, after @ ..] = escape else { return Err(BAD_ESCAPE) };
        decoded.extend_from_slice(before);
        match (hex(*high), hex(*low)) {
            (Some(0), Some(0)) => return Err(NUL),
            (Some(high), Some(low)) => decoded.push(high << 4 | low),
            _ => return Err(BAD_ESCAPE),
        }
        rest = after;
    }
    decoded.extend_from_slice(rest);
    Ok(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str) -> Result<String, &'static str> {
        normalise(path.as_bytes(), true).map(|path| String::from_utf8(path).expect("ASCII")).map_err(|flaw| flaw.reason)
    }

    #[test]
    fn dot_segments_are_resolved_and_slashes_merged() {
        for (path, expected) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("//a///b", "/a/b"),
            ("/a//", "/a/"),
            ("/.", "/"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/../b", "/b"),
            ("/a/b/../../c/", "/c/"),
            ("/a//../b", "/b"),
            ("/...", "/..."),
            ("/.a/..b", "/.a/..b"),
        ] {
            assert_eq!(normal(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn without_merging_every_slash_stays() {
        let kept = |path: &str| normalise(path.as_bytes(), false).map(|path| String::from_utf8(path).expect("ASCII"));
        assert_eq!(kept("//a///b/").as_deref(), Ok("//a///b/"));
        assert_eq!(kept("/a//../b").as_deref(), Ok("/a/b"));
        assert_eq!(kept("//..").as_deref(), Ok("/"));
    }

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(normal("/%61%2Fb").as_deref(), Ok("/a/b"));
        assert_eq!(normal("/%252e%252e/a").as_deref(), Ok("/%2e%2e/a"));
        assert_eq!(normal("/a%3fb%23c").as_deref(), Ok("/a?b#c"));
        assert_eq!(normalise(b"/%ff%C3", true), Ok(b"/\xff\xc3".to_vec()));
    }

    #[test]
    fn encoded_dots_and_slashes_cannot_walk_out_of_a_location() {
        assert_eq!(normal("/ws/%2e%2e%2fadmin").as_deref(), Ok("/admin"));
        assert_eq!(normal("/ws/%2E%2e/admin").as_deref(), Ok("/admin"));
        assert_eq!(normal("/ws/..%2fadmin").as_deref(), Ok("/admin"));
    }

    #[test]
    fn a_dot_segment_has_no_parameters() {
        for path in ["/..;/a", "/a/..;x=1/b", "/.;/a", "/a/%2e%2e;", "/a/..%3bx"] {
            assert_eq!(normal(path), Err("dot_segment_parameters"), "{path}");
        }
        for path in ["/a;x=1/b", "/a..;/b", "/...;/b", "/;/a", "/;../a"] {
            assert_eq!(normal(path).as_deref(), Ok(path), "{path}");
        }
    }

    #[test]
    fn leaving_the_root_is_refused() {
        for path in ["/..", "/../a", "/a/../..", "/%2e%2e", "/a/..%2f..%2fb", "/./../x"] {
            assert_eq!(normal(path), Err("path_above_root"), "{path}");
        }
    }

    #[test]
    fn nul_and_broken_escapes_are_refused() {
        assert_eq!(normal("/a%00"), Err("nul_in_path"));
        for path in ["/%", "/%a", "/%g0", "/%0g", "/%+1"] {
            assert_eq!(normal(path), Err("bad_escape"), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_is_rooted_and_has_no_dot_segments(path in "[/.%25eEfFa0]{0,24}", merge: bool) {
            if let Ok(normal) = normalise(path.as_bytes(), merge) {
                prop_assert!(normal.starts_with(b"/"));
                prop_assert!(!normal.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b".."));
                prop_assert!(!merge || !normal.windows(2).any(|pair| pair == b"//"));
            }
        }
    }
}
