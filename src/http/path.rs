//! Paths: the one normal form that both matching and access rules see, and the way back into a request target.

use super::refusal::Flaw;

const BAD_ESCAPE: Flaw = Flaw::new("bad_escape", "a % in the path is not followed by two hexadecimal digits");
const NUL: Flaw = Flaw::new("nul_in_path", "the path has %00");
const ABOVE_ROOT: Flaw = Flaw::new("path_above_root", "the path leaves the root by ..");

/// The path for matching: percent-decoded once, dot segments resolved, slashes merged where asked; it begins with `/`.
///
/// As nginx (ngx_http_parse_complex_uri), an escaped slash or dot counts as one: `%2e%2e%2f` cannot hide from a location.
///
/// # Errors
/// A malformed escape, `%00`, and `..` above the root.
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

/// Takes the last segment off a path that ends with a slash.
fn pop_segment(normal: &mut Vec<u8>) -> Result<(), Flaw> {
    let parent = normal.strip_suffix(b"/").and_then(|path| memchr::memrchr(b'/', path)).ok_or(ABOVE_ROOT)?;
    normal.truncate(parent + 1);
    Ok(())
}

fn decode(path: &[u8]) -> Result<Vec<u8>, Flaw> {
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

/// Appends a decoded path so that it may stand in a request target: nginx's `ngx_escape_uri` with `NGX_ESCAPE_URI` (1.21.1
/// and later), which encodes controls, high bytes, space and `"#%<>?\^`{|}`.
pub(crate) fn escape_into(path: &[u8], target: &mut Vec<u8>) {
    encode_into(path, target, |byte| {
        !byte.is_ascii_graphic()
            || matches!(byte, b'"' | b'#' | b'%' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    });
}

/// Appends text that is meant to be a request target, or a part of one, already: escapes in it stay, and only what can never
/// stand in a target (control, space, `#`, high byte) is encoded.
pub(crate) fn escape_target_into(text: &[u8], target: &mut Vec<u8>) {
    encode_into(text, target, |byte| !byte.is_ascii_graphic() || byte == b'#');
}

/// Appends text with the bytes that `encoded` picks as `%XX`.
pub(crate) fn encode_into(text: &[u8], out: &mut Vec<u8>, encoded: impl Fn(u8) -> bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        if encoded(byte) {
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
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

    #[test]
    fn what_nginx_escapes_is_escaped() {
        let mut out = Vec::new();
        escape_into(b"/a b\r\n%?#\"<>\\^`{|}\x7f\xff~!$&'()*+,;=:@[]", &mut out);
        assert_eq!(out, b"/a%20b%0D%0A%25%3F%23%22%3C%3E%5C%5E%60%7B%7C%7D%7F%FF~!$&'()*+,;=:@[]");
    }

    #[test]
    fn a_target_keeps_its_escapes_but_no_space_or_control() {
        let mut out = Vec::new();
        escape_target_into(b"/a%20b?c=%zz\r\nX: y#", &mut out);
        assert_eq!(out, b"/a%20b?c=%zz%0D%0AX:%20y%23");
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

        #[test]
        fn escaping_a_normal_path_and_normalising_it_gives_it_back(path in proptest::collection::vec(1u8.., 0..32)) {
            let path = [b"/", &path[..]].concat();
            let mut raw = Vec::new();
            escape_into(&path, &mut raw);
            if let Ok(normal) = normalise(&raw, true) {
                let mut escaped = Vec::new();
                escape_into(&normal, &mut escaped);
                prop_assert_eq!(normalise(&escaped, true), Ok(normal));
            }
        }
    }
}
