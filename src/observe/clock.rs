//! The local time as nginx's error log writes it.

use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::{Timestamp, tz::TimeZone};

use crate::variables::local_zone;

/// The last second formatted: a busy thread formats the time once a second, not once a line.
struct Formatted {
    second: i64,
    text: String,
}

thread_local! {
    static LAST: RefCell<Formatted> = const { RefCell::new(Formatted { second: i64::MIN, text: String::new() }) };
}

/// Appends `2026/11/21 22:09:28`, in the [`local_zone`].
pub(super) fn append_local_time(out: &mut Vec<u8>) {
    // A clock before 1970 is shown as 1970: a wrong clock must not keep a line from being written.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    LAST.with_borrow_mut(|last| {
        if last.second != now {
            *last = Formatted { second: now, text: format_second(now, local_zone()) };
        }
        out.extend_from_slice(last.text.as_bytes());
    });
}

fn format_second(second: i64, zone: TimeZone) -> String {
    let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone);
    format!(
        "{:04}/{:02}/{:02} {:02}:{:02}:{:02}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_has_nginx_shape_and_the_zone_applies() {
        assert_eq!(format_second(1_795_298_968, TimeZone::UTC), "2026/11/21 22:09:28");
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(format_second(1_795_298_968, zone), "2026/11/22 00:09:28");
        assert_eq!(format_second(i64::MAX, TimeZone::UTC), "1970/01/01 00:00:00");
    }

    #[test]
    fn two_lines_of_one_second_use_the_same_text() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        append_local_time(&mut first);
        append_local_time(&mut second);
        assert_eq!(first.len(), 19);
        assert_eq!(first[..16], second[..16]);
    }
}
