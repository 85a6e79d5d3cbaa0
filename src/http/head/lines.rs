//! The lines of a head behind its first one, tokenised by httparse and kept.

use crate::http::{fields::Fields, refusal::Flaw};

const OBS_FOLD: Flaw = Flaw::new("obs_fold", "a field goes on over a second line");
const BARE_CR: Flaw = Flaw::new("bare_cr", "a CR without LF");
const NUL: Flaw = Flaw::new("nul_in_field", "a NUL in a field");
const BAD_NAME: Flaw = Flaw::new("bad_field_name", "a field name is no token directly followed by a colon");
const BAD_VALUE: Flaw = Flaw::new("bad_field_value", "a control byte in a field value");

/// Reads `count` field lines and the empty line behind them, which is all that `raw` has. Fields for whose name `kept` is false
/// are left out.
pub(super) fn fields(raw: &[u8], count: usize, kept: impl Fn(&str) -> bool) -> Result<Fields, Flaw> {
    let mut headers = vec![httparse::EMPTY_HEADER; count];
    match httparse::parse_headers(raw, &mut headers) {
        Ok(httparse::Status::Complete((used, headers))) if used == raw.len() => {
            let kept = headers.iter().filter(|header| kept(header.name));
            Ok(Fields::from_pairs(kept.map(|header| (header.name.as_bytes(), header.value))))
        }
        // It ended elsewhere than where the line ends say: no such input is known, but two readings of it must not exist.
        Ok(_) => Err(BAD_NAME),
        Err(error) => Err(flaw(raw, error)),
    }
}

/// The name of what httparse stumbled over. It calls a folded line and a blank before the colon a bad name, and a bare CR
/// whatever it was in at the time.
fn flaw(raw: &[u8], error: httparse::Error) -> Flaw {
    if memchr::memchr_iter(b'\r', raw).any(|at| raw.get(at + 1) != Some(&b'\n')) {
        return BARE_CR;
    }
    if memchr::memchr(0, raw).is_some() {
        return NUL;
    }
    if raw.split(|byte| *byte == b'\n').any(|line| matches!(line.first(), Some(b' ' | b'\t'))) {
        return OBS_FOLD;
    }
    match error {
        httparse::Error::HeaderValue => BAD_VALUE,
        _ => BAD_NAME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(raw: &str) -> &'static str {
        let count = raw.matches('\n').count() - 1;
        fields(raw.as_bytes(), count, |_| true).expect_err(raw).reason
    }

    #[test]
    fn each_flaw_of_a_field_has_its_name() {
        assert_eq!(reason("A: b\r\n c\r\n\r\n"), "obs_fold");
        assert_eq!(reason(" A: b\r\n\r\n"), "obs_fold");
        assert_eq!(reason("A: b\rc\r\n\r\n"), "bare_cr");
        assert_eq!(reason("A\r: b\r\n\r\n"), "bare_cr");
        assert_eq!(reason("A: b\0c\r\n\r\n"), "nul_in_field");
        assert_eq!(reason("A\0: b\r\n\r\n"), "nul_in_field");
        assert_eq!(reason("A : b\r\n\r\n"), "bad_field_name");
        assert_eq!(reason("A\t: b\r\n\r\n"), "bad_field_name");
        assert_eq!(reason(": b\r\n\r\n"), "bad_field_name");
        assert_eq!(reason("A\r\n\r\n"), "bad_field_name");
        assert_eq!(reason("A(: b\r\n\r\n"), "bad_field_name");
        assert_eq!(reason("é: b\r\n\r\n"), "bad_field_name");
        assert_eq!(reason("A: b\u{1}\r\n\r\n"), "bad_field_value");
        assert_eq!(reason("A: b\u{7f}\r\n\r\n"), "bad_field_value");
    }

    #[test]
    fn values_lose_the_blanks_around_them_and_keep_those_within() {
        let fields = fields(b"A:  b\tc \t\r\nB:\r\nC: \n\r\n", 3, |_| true).expect("well formed");
        let pairs: Vec<_> = fields.iter().collect();
        assert_eq!(pairs, [(&b"A"[..], &b"b\tc"[..]), (b"B", b""), (b"C", b"")]);
    }
}
