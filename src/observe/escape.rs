//! How a value that came from outside is written into a log line (nginx's `ngx_http_log_escape` and `ngx_escape_json`).

use crate::config::Escape;

const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Escapes `line[start..]` in place. As JSON, what is no UTF-8 becomes U+FFFD: nginx leaves it, and no parser takes the line.
pub(crate) fn escape_from(line: &mut Vec<u8>, start: usize, how: Escape) {
    if how == Escape::Json
        && let Some(Err(_)) = line.get(start..).map(std::str::from_utf8)
    {
        let value = line.split_off(start);
        line.extend_from_slice(String::from_utf8_lossy(&value).as_bytes());
    }
    let needs: fn(&u8) -> bool = match how {
        Escape::None => return,
        Escape::Default => |byte| is_special(*byte),
        Escape::Json => |byte| matches!(byte, 0..=0x1f | b'"' | b'\\'),
    };
    // Nearly every value is clean: look before copying.
    let Some(first) = line.get(start..).and_then(|value| value.iter().position(needs)) else { return };
    let rest = line.split_off(start + first);
    for byte in rest {
        match how {
            _ if !needs(&byte) => line.push(byte),
            Escape::Json => push_json(byte, line),
            Escape::Default | Escape::None => push_hex(b"\\x", byte, line),
        }
    }
}

/// Appends text for the error log: a control byte must not be able to begin a line of its own or to speak to a terminal.
pub(crate) fn append_printable(text: &[u8], line: &mut Vec<u8>) {
    for byte in text {
        match byte {
            0..=0x1f | 0x7f => push_hex(b"\\x", *byte, line),
            other => line.push(*other),
        }
    }
}

fn is_special(byte: u8) -> bool {
    !(0x20..0x7f).contains(&byte) || byte == b'"' || byte == b'\\'
}

fn push_json(byte: u8, line: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => line.extend([b'\\', byte]),
        b'\n' => line.extend(b"\\n"),
        b'\r' => line.extend(b"\\r"),
        b'\t' => line.extend(b"\\t"),
        0x08 => line.extend(b"\\b"),
        0x0c => line.extend(b"\\f"),
        other => push_hex(b"\\u00", other, line),
    }
}

fn push_hex(prefix: &[u8], byte: u8, line: &mut Vec<u8>) {
    line.extend_from_slice(prefix);
    line.extend([byte >> 4, byte & 0xf].iter().filter_map(|digit| UPPER_HEX.get(usize::from(*digit))));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(value: &[u8], how: Escape) -> Vec<u8> {
        let mut line = b"\"kept ".to_vec();
        let start = line.len();
        line.extend_from_slice(value);
        escape_from(&mut line, start, how);
        line.split_off(start)
    }

    #[test]
    fn default_is_nginx_table() {
        assert_eq!(
            escaped(b"GET /a\"b\\c\x00\x1f\x7f\xc3\xa9 ~", Escape::Default),
            br"GET /a\x22b\x5Cc\x00\x1F\x7F\xC3\xA9 ~"
        );
    }

    #[test]
    fn json_is_nginx_table() {
        assert_eq!(
            escaped(b"a\"\\\n\r\t\x08\x0c\x01\x1f\x7f\xc3\xa9/", Escape::Json),
            b"a\\\"\\\\\\n\\r\\t\\b\\f\\u0001\\u001F\x7f\xc3\xa9/"
        );
    }

    #[test]
    fn json_has_no_bytes_that_are_no_utf_8() {
        assert_eq!(escaped(b"a\xff\xc3\"", Escape::Json), "a\u{fffd}\u{fffd}\\\"".as_bytes());
    }

    #[test]
    fn none_is_as_it_is() {
        assert_eq!(escaped(b"\"\\\n", Escape::None), b"\"\\\n");
    }

    proptest! {
        #[test]
        fn a_default_escaped_value_never_leaves_its_quotes_or_its_line(value: Vec<u8>) {
            let line = escaped(&value, Escape::Default);
            prop_assert!(line.iter().all(|byte| (0x20..0x7f).contains(byte) && *byte != b'"'));
        }

        #[test]
        fn a_json_escaped_value_never_leaves_its_string(value in any::<String>()) {
            let line = escaped(value.as_bytes(), Escape::Json);
            let mut bytes = line.iter();
            while let Some(byte) = bytes.next() {
                prop_assert!(*byte >= 0x20 && *byte != b'"');
                if *byte == b'\\' {
                    bytes.next();
                }
            }
        }

        #[test]
        fn printable_text_has_no_control_byte(text: Vec<u8>) {
            let mut line = Vec::new();
            append_printable(&text, &mut line);
            prop_assert!(line.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f));
        }
    }
}
