//! Figures in words: as the status page has them, so that the two can be compared.

/// `12.3k`: three digits that matter.
pub(super) fn count(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T"])
}

/// `1.50 MiB`
pub(super) fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB"])
}

/// `1.2k/s`; small ones to a tenth.
pub(super) fn rate(value: Option<f64>) -> String {
    value.map_or_else(none, |value| format!("{}/s", count(tenths_below_100(value))))
}

/// `1.50 MiB/s`
pub(super) fn speed(value: Option<f64>) -> String {
    value.map_or_else(none, |value| format!("{}/s", bytes(value.round())))
}

/// `43%`
pub(super) fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}

/// `0.42 ms`, `21 ms`, `1.5 s`
pub(super) fn millis(ms: Option<f64>) -> String {
    match ms {
        None => none(),
        Some(ms) if ms >= 10_000.0 => format!("{:.0} s", ms / 1000.0),
        Some(ms) if ms >= 1000.0 => format!("{:.1} s", ms / 1000.0),
        Some(ms) if ms >= 10.0 => format!("{ms:.0} ms"),
        Some(ms) if ms >= 1.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{ms:.2} ms"),
    }
}

/// `45s`, `12m05s`, `3h07m`, `12d4h`
pub(super) fn span(seconds: f64) -> String {
    // A float becomes an integer by saturation: below zero and NaN are 0.
    let s = seconds as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{}h", s / 86_400, s / 3600 % 24),
    }
}

/// What stands where nothing is known.
pub(super) fn none() -> String {
    "-".to_owned()
}

fn tenths_below_100(value: f64) -> f64 {
    if value < 100.0 { (value * 10.0).round() / 10.0 } else { value }
}

fn scaled(mut value: f64, base: f64, units: &[&str]) -> String {
    if !value.is_finite() {
        return none();
    }
    let mut unit = 0;
    // 999.96 would be shown as 1000.
    while value >= base * 0.9995 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 && value.fract() == 0.0 => 0,
        99.95.. => 0,
        9.995.. => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_three_digits_that_matter() {
        assert_eq!([0.0, 999.0, 1000.0, 12_345.0, 999_960.0].map(count), ["0", "999", "1.00k", "12.3k", "1.00M"]);
        assert_eq!([0.0, 1023.0, 1536.0, 1e18].map(bytes), ["0 B", "1023 B", "1.50 KiB", "888 PiB"]);
        assert_eq!(rate(Some(0.04)), "0/s");
        assert_eq!(rate(Some(3.16)), "3.20/s");
        assert_eq!(speed(None), "-");
        assert_eq!(count(f64::NAN), "-");
    }

    #[test]
    fn times_say_what_a_person_would() {
        assert_eq!([0.0, 59.9, 61.0, 11_220.0, 1_050_000.0].map(span), ["0s", "59s", "1m01s", "3h07m", "12d3h"]);
        assert_eq!(span(-1.0), "0s");
        let shown = [0.4, 2.5, 21.4, 1500.0, 12_000.0].map(|ms| millis(Some(ms)));
        assert_eq!(shown, ["0.40 ms", "2.5 ms", "21 ms", "1.5 s", "12 s"]);
    }
}
