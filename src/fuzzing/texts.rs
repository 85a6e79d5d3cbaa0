//! Small texts: paths, hosts, what is escaped, regular expressions.

use crate::{
    config::Escape,
    http::{host::host_of, path},
    observe::escape::{append_printable, escape_from},
    route::{escape, regex::Regex},
};

/// Paths and hosts: one normal form, and what is escaped comes back.
pub fn uri(data: &[u8]) {
    for merge in [false, true] {
        let normal = path::normalise(data, merge).ok();
        assert_eq!(normal, normalised(data, merge));
        // A NUL as it stands is refused with the request line.
        if let Some(normal) = normal.filter(|normal| !normal.contains(&0)) {
            let mut again = Vec::new();
            escape::path(&normal, &mut again);
            assert_eq!(path::normalise(&again, merge).ok(), Some(normal), "what a backend would make of it");
        }
    }
    if let Some(host) = host_of(data) {
        assert_eq!(host_of(&host), Some(host.clone()));
        assert!(data.to_ascii_lowercase().starts_with(&host));
    }
    for escape in [escape::path, escape::argument] {
        let mut escaped = Vec::new();
        escape(data, &mut escaped);
        assert!(escaped.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#'));
        assert_eq!(path::decode(&escaped).ok(), (!data.contains(&0)).then(|| data.to_vec()));
    }
    for escape in [escape::field, escape::target] {
        let mut escaped = Vec::new();
        escape(data, &mut escaped);
        assert!(escaped.iter().all(u8::is_ascii_graphic));
    }
    assert!(escape::unescape_redirect(data).len() <= data.len());
}

/// nginx's way in other words: the text is decoded, and rewritten until there is nothing to rewrite (RFC 3986 section 5.2.4).
fn normalised(path: &[u8], merge: bool) -> Option<Vec<u8>> {
    let mut text = decoded(path)?;
    if text.first() != Some(&b'/') {
        text.insert(0, b'/');
    }
    while let Some(at) = memchr::memmem::find(&text, b"//").filter(|_| merge) {
        text.remove(at);
    }
    // Beyond nginx's: a backend that knows parameters would read these as dot segments.
    if text.split(|byte| *byte == b'/').any(|segment| segment.starts_with(b".;") || segment.starts_with(b"..;")) {
        return None;
    }
    // A slash at the end makes a segment of every last word.
    let open = [&b"/.."[..], b"/."].into_iter().any(|end| text.ends_with(end));
    if open {
        text.push(b'/');
    }
    while let Some(at) = memchr::memmem::find(&text, b"/./") {
        text.drain(at..at + 2);
    }
    while let Some(at) = memchr::memmem::find(&text, b"/../") {
        let parent = memchr::memrchr(b'/', &text[..at])?;
        text.drain(parent..at + 3);
    }
    Some(text)
}

fn decoded(path: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::new(), path.iter());
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(*rest.next()?).to_digit(16);
        out.push(match byte {
            b'%' => match digit()? << 4 | digit()? {
                0 => return None,
                byte => byte as u8,
            },
            byte => *byte,
        });
    }
    Some(out)
}

/// Values in a log line: no escape leaves its line or its quotes, and each can be taken back.
pub fn log_escape(data: &[u8]) {
    let escaped = |how| {
        let mut line = b"\"kept \x01".to_vec();
        let start = line.len();
        line.extend_from_slice(data);
        escape_from(&mut line, start, how);
        assert!(line.starts_with(b"\"kept \x01"));
        line.split_off(start)
    };
    assert_eq!(escaped(Escape::None), data);
    let default = escaped(Escape::Default);
    assert!(default.iter().all(|byte| (0x20..0x7f).contains(byte) && *byte != b'"'));
    assert_eq!(unescaped(&default).as_deref(), Some(data));
    let json = [b"\"", &escaped(Escape::Json)[..], b"\""].concat();
    let value: String = serde_json::from_slice(&json).expect("a string of JSON");
    assert_eq!(value, String::from_utf8_lossy(data));
    let mut printable = Vec::new();
    append_printable(data, &mut printable);
    assert!(printable.iter().all(|byte| !byte.is_ascii_control()));
}

/// `\xHH` is a byte.
fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        (rest, _) = match (first, tail) {
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digits = [*high, *low];
                (tail, out.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?))
            }
            (b'\\', _) => return None,
            (byte, tail) => (tail, out.push(*byte)),
        };
    }
    Some(out)
}

/// An expression, and what it is asked to match: up to the first line feed, and behind it.
pub fn regex(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (source, subject) = text.split_once('\n').unwrap_or((&text, "/ws/room?a=b"));
    let ignore_case = data.len().is_multiple_of(2);
    let mut names = 0;
    let made = Regex::new(source, ignore_case, &mut |_| {
        names += 1;
        names
    });
    let plain = source.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'/' || byte == b' ');
    let regex = match made {
        Ok(regex) => regex,
        Err(why) => return assert!(!plain && !why.is_empty()),
    };
    let captures = regex.captures(subject.as_bytes());
    assert_eq!(captures.is_some(), regex.is_match(subject.as_bytes()));
    if plain && !ignore_case {
        assert_eq!(captures.is_some(), subject.contains(source));
    }
    if let Some(captures) = captures {
        assert!(captures.named.len() == names && captures.numbered.len() >= names);
    }
}
