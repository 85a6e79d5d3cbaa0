//! Where a head ends and whether it stays within its bounds, found by its line ends alone.

/// Bounds of a head, bytes with line ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Any one line.
    pub line: usize,
    /// All lines, the empty one that ends the head included.
    pub head: usize,
    /// Lines between the first and the empty one.
    pub fields: usize,
}

/// A head that came to its end within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Length of the head with the empty line.
    pub head: usize,
    /// Lines between the first and the empty one.
    pub fields: usize,
}

/// The bound that was passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    FirstLine,
    FieldLine,
    Head,
    Fields,
}

/// Measures the head at the front of `buffer`; none while its end has not come. Any prefix of an input that is refused either
/// needs more bytes or is refused for the same excess.
pub(super) fn measure(buffer: &[u8], bounds: Bounds) -> Result<Option<Extent>, Excess> {
    let (mut start, mut lines) = (0, 0);
    for newline in memchr::memchr_iter(b'\n', buffer) {
        let end = newline + 1;
        fits(start, end, lines, bounds)?;
        if lines > 0 && matches!(&buffer[start..end], b"\n" | b"\r\n") {
            return Ok(Some(Extent { head: end, fields: lines - 1 }));
        }
        lines += 1;
        if lines - 1 > bounds.fields {
            return Err(Excess::Fields);
        }
        start = end;
    }
    // The line that is still coming is at least one byte longer than what is here.
    fits(start, buffer.len() + 1, lines, bounds).map(|()| None)
}

fn fits(start: usize, end: usize, lines_before: usize, bounds: Bounds) -> Result<(), Excess> {
    let line = end - start;
    let left = bounds.head.saturating_sub(start);
    match lines_before {
        _ if line <= bounds.line.min(left) => Ok(()),
        // The smaller bound is the one that bytes arriving singly would pass first.
        _ if left < bounds.line => Err(Excess::Head),
        0 => Err(Excess::FirstLine),
        _ => Err(Excess::FieldLine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { line: 10, head: 24, fields: 2 };

    #[test]
    fn a_head_ends_at_its_empty_line() {
        assert_eq!(measure(b"GET\r\na\r\n\r\nrest", BOUNDS), Ok(Some(Extent { head: 10, fields: 1 })));
        assert_eq!(measure(b"GET\n\nrest", BOUNDS), Ok(Some(Extent { head: 5, fields: 0 })));
        assert_eq!(measure(b"GET\r\na\r\n\r", BOUNDS), Ok(None));
    }

    #[test]
    fn a_line_is_refused_before_its_end_arrives() {
        assert_eq!(measure(b"123456789", BOUNDS), Ok(None));
        assert_eq!(measure(b"1234567890", BOUNDS), Err(Excess::FirstLine));
        assert_eq!(measure(b"123456789\n", BOUNDS), Ok(None));
        assert_eq!(measure(b"a\n1234567890", BOUNDS), Err(Excess::FieldLine));
        assert_eq!(measure(b"a\n12345678\nABCDEFGHI\nx", BOUNDS), Ok(None));
        assert_eq!(measure(b"a\n12345678\nABCDEFGHI\nxy", BOUNDS), Ok(None));
        assert_eq!(measure(b"a\n12345678\nABCDEFGHI\nxyz", BOUNDS), Err(Excess::Head));
        assert_eq!(measure(b"a\nb\nc\nd\n", BOUNDS), Err(Excess::Fields));
    }
}
