//! Percent-encoding, in the sets of nginx's `ngx_escape_uri`.

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends a decoded path as it may stand in a request line or a Location (nginx's NGX_ESCAPE_URI).
pub fn path(text: &[u8], out: &mut Vec<u8>) {
    escape(text, out, not_in_path);
}

/// Appends decoded text as it may stand as a value among arguments (nginx's NGX_ESCAPE_ARGS).
pub fn argument(text: &[u8], out: &mut Vec<u8>) {
    escape(text, out, |byte| not_in_path(byte) || matches!(byte, b'&' | b'+' | b';'));
}

/// Appends text that should be a URI already, with only those bytes encoded that would end or break a header field.
/// nginx writes them as they are, so that `return 302 https://$host$uri;` lets a client inject fields (CRLF injection).
pub fn field(text: &[u8], out: &mut Vec<u8>) {
    escape(text, out, |byte| byte <= b' ' || byte >= 0x7f);
}

/// Appends text that should be a request target already, with only those bytes encoded that no target may have.
pub fn target(text: &[u8], out: &mut Vec<u8>) {
    escape(text, out, |byte| byte <= b' ' || byte >= 0x7f || byte == b'#');
}

/// Appends text as it may stand as the value of a field: only control bytes but TAB are encoded.
pub fn control(text: &[u8], out: &mut Vec<u8>) {
    escape(text, out, |byte| byte.is_ascii_control() && byte != b'\t');
}

fn not_in_path(byte: u8) -> bool {
    byte <= b' '
        || byte >= 0x7f
        || matches!(byte, b'"' | b'#' | b'%' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
}

fn escape(text: &[u8], out: &mut Vec<u8>, unsafe_byte: impl Fn(u8) -> bool) {
    out.reserve(text.len());
    for byte in text {
        if unsafe_byte(*byte) {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            out.push(*byte);
        }
    }
}

/// Decodes what need not be encoded in a Location (nginx's NGX_UNESCAPE_REDIRECT): the characters above `%`, up to the
/// first `?`. Unlike nginx `%3F` stays, since decoded it would begin the arguments.
pub fn unescape_redirect(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        match (first, decoded(tail)) {
            (b'?', _) => break,
            (b'%', Some(byte)) if byte > b'%' && byte < 0x7f && byte != b'?' => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

fn decoded(digits: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*digits.get(index)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(function: fn(&[u8], &mut Vec<u8>), text: &str) -> String {
        let mut out = Vec::new();
        function(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_place_has_its_own_set() {
        assert_eq!(with(path, "/a b?c&d+e%é\r\n"), "/a%20b%3Fc&d+e%25%C3%A9%0D%0A");
        assert_eq!(with(argument, "a&b+c;d=e/f"), "a%26b%2Bc%3Bd=e/f");
        assert_eq!(with(field, "http://x/?a=%41 b\r\nSet-Cookie: y"), "http://x/?a=%41%20b%0D%0ASet-Cookie:%20y");
    }

    #[test]
    fn a_redirect_keeps_what_must_stay_encoded() {
        assert_eq!(unescape_redirect(b"/%41%2F%20%3F%25%zz%4?%41"), b"/A/%20%3F%25%zz%4?%41");
    }
}
