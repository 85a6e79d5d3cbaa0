//! The Date of answers we originate, and of those whose backend has no clock.

use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

/// The time as IMF-fixdate (RFC 9110 section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`. None for a clock outside the years 0 to 9999.
pub fn imf_fixdate(time: Timestamp) -> Option<String> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_9110() {
        let time = Timestamp::from_second(784_111_777).expect("in range");
        assert_eq!(imf_fixdate(time).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    }
}
