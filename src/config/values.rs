//! Arguments as nginx reads them: `on|off`, sizes, offsets, times, numbers. No value: it is not one.

use std::time::Duration;

/// A kind of argument: how it is read, and how it is described to who wrote another.
#[derive(Debug, Clone, Copy)]
pub struct Form<T> {
    /// The reader.
    pub read: fn(&str) -> Option<T>,
    /// What was expected.
    pub expected: &'static str,
}

/// `on` or `off`.
pub const FLAG: Form<bool> = Form { read: flag, expected: "it must be `on` or `off`" };
/// A time with milliseconds.
pub const TIME: Form<Duration> = Form {
    read: time,
    expected: "a time is written like 30s, 5m, 1h30m, 1d or 500ms; without a unit it is in seconds",
};
/// A time in whole seconds, which may have months and years.
pub const SECONDS: Form<Duration> = Form {
    read: seconds,
    expected: "a time is written like 30s, 5m, 1h30m, 7d or 1y; without a unit it is in seconds",
};
/// Bytes with `k` and `m`.
pub const SIZE: Form<u64> = Form { read: size, expected: "a size is written like 8192, 8k or 1m" };
/// Bytes with `k`, `m` and `g`.
pub const OFFSET: Form<u64> =
    Form { read: offset, expected: "a size is written like 8192, 8k, 1m or 1g; 0 is no limit" };
/// A number.
pub const NUMBER: Form<u64> = Form { read: number, expected: "a number, 0 or more" };

/// `on` or `off`, in any case.
pub fn flag(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("on") {
        Some(true)
    } else if text.eq_ignore_ascii_case("off") {
        Some(false)
    } else {
        None
    }
}

/// A decimal number (`ngx_atoi`): digits only.
pub fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|value| *value <= i64::MAX as u64)
}

/// `ngx_parse_size`.
pub fn size(text: &str) -> Option<u64> {
    match text.as_bytes().last()? {
        b'k' | b'K' => scaled(text, 1 << 10),
        b'm' | b'M' => scaled(text, 1 << 20),
        _ => number(text),
    }
}

/// `ngx_parse_offset`.
pub fn offset(text: &str) -> Option<u64> {
    match text.as_bytes().last()? {
        b'g' | b'G' => scaled(text, 1 << 30),
        _ => size(text),
    }
}

fn scaled(text: &str, scale: u64) -> Option<u64> {
    let digits = text.get(..text.len() - 1)?;
    number(digits)?.checked_mul(scale).filter(|value| *value <= i64::MAX as u64)
}

/// `ngx_parse_time` of a directive in milliseconds: weeks to milliseconds.
pub fn time(text: &str) -> Option<Duration> {
    parse_time(text, Step::Month).map(Duration::from_millis)
}

/// `ngx_parse_time` of a directive in seconds: years to seconds.
pub fn seconds(text: &str) -> Option<Duration> {
    parse_time(text, Step::Start).map(Duration::from_secs)
}

/// Units must get smaller from left to right; each is allowed once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Start,
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Last,
}

/// Reads a time; in seconds when `step` is `Start`, else in milliseconds.
fn parse_time(text: &str, mut step: Step) -> Option<u64> {
    let in_seconds = step == Step::Start;
    let one_second = if in_seconds { 1 } else { 1_000 };
    let mut total = 0u64;
    let mut value: Option<u64> = None;
    let mut seen = false;
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte.is_ascii_digit() {
            value = Some(value.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(byte - b'0'))?);
            seen = true;
            continue;
        }
        let (unit, scale) = match byte {
            b'y' => (Step::Year, 31_536_000 * one_second),
            b'M' => (Step::Month, 2_592_000 * one_second),
            b'w' => (Step::Week, 604_800 * one_second),
            b'd' => (Step::Day, 86_400 * one_second),
            b'h' => (Step::Hour, 3_600 * one_second),
            b'm' if bytes.peek() == Some(&b's') && !in_seconds => {
                bytes.next();
                (Step::Millisecond, 1)
            }
            b'm' => (Step::Minute, 60 * one_second),
            b's' => (Step::Second, one_second),
            b' ' => (Step::Last, one_second),
            _ => return None,
        };
        // A bare number in front of a space is seconds; it may follow minutes, not seconds.
        let latest = if unit == Step::Last { Step::Second } else { unit };
        if step >= latest {
            return None;
        }
        step = unit;
        total = total.checked_add(value.take()?.checked_mul(scale)?)?;
        while bytes.next_if_eq(&b' ').is_some() {}
    }
    let rest = value.unwrap_or(0).checked_mul(one_second)?;
    total.checked_add(rest).filter(|total| seen && *total <= i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(text: &str) -> Option<u128> {
        time(text).map(|time| time.as_millis())
    }

    #[test]
    fn times_are_nginx_s() {
        assert_eq!(ms("65"), Some(65_000));
        assert_eq!(ms("3600s"), Some(3_600_000));
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("1h 30m"), Some(5_400_000));
        assert_eq!(ms("1h30m10s5ms"), Some(5_410_005));
        assert_eq!(ms("7d"), Some(604_800_000));
        assert_eq!(ms("1m 30"), Some(90_000));
        assert_eq!(ms("0"), Some(0));
        for wrong in ["", "s30", "abc", "-1", "1x", "30m1h", "1s1s", "1.5s", "1M", "1y", "99999999999999999999"] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
        assert_eq!(seconds("1y").map(|time| time.as_secs()), Some(31_536_000));
        assert_eq!(seconds("1M").map(|time| time.as_secs()), Some(2_592_000));
        assert_eq!(seconds("500ms"), None);
    }

    #[test]
    fn sizes_are_nginx_s() {
        assert_eq!(size("8k"), Some(8_192));
        assert_eq!(size("1M"), Some(1 << 20));
        assert_eq!(size("1g"), None);
        assert_eq!(offset("1g"), Some(1 << 30));
        assert_eq!(offset("0"), Some(0));
        for wrong in ["", "k", "-1", "1kb", "1 k", "+1", "9223372036854775808", "9999999999999999k"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn flags_are_on_and_off_only() {
        assert_eq!(flag("ON"), Some(true));
        assert_eq!(flag("off"), Some(false));
        assert_eq!(flag("true"), None);
    }

    proptest! {
        #[test]
        fn any_text_ends_without_panic(text in "\\PC*|[0-9yMwdhms ]*") {
            let _ = (time(&text), seconds(&text), size(&text), offset(&text), number(&text));
        }

        #[test]
        fn seconds_and_milliseconds_agree(value in 0u64..1_000_000) {
            prop_assert_eq!(time(&value.to_string()), seconds(&format!("{value}s")));
        }
    }
}
