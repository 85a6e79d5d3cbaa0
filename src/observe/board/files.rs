//! Files of /proc that tell of this process, opened while it may open files, and read as often as somebody asks.

use std::{fs::File, os::unix::fs::FileExt};

/// Longer than any of them is.
const BYTES: usize = 128;

/// One that cannot be opened tells nothing.
#[derive(Debug)]
pub(super) struct Files {
    statm: Option<File>,
}

impl Default for Files {
    fn default() -> Self {
        Self { statm: File::open("/proc/self/statm").ok() }
    }
}

impl Files {
    /// proc(5), `statm`: pages.
    pub(super) fn statm(&self) -> String {
        text(self.statm.as_ref())
    }
}

/// The kernel makes the text anew for each read from its beginning.
fn text(file: Option<&File>) -> String {
    let mut bytes = [0; BYTES];
    let length = file.and_then(|file| file.read_at(&mut bytes, 0).ok()).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reading_is_of_now() {
        let files = Files::default();
        let pages = || files.statm().split(' ').next().and_then(|pages| pages.parse::<usize>().ok()).unwrap();
        let before = pages();
        // Addresses only: what other tests give back meanwhile is less.
        let more = Vec::<u8>::with_capacity(4 << 30);
        assert!(pages() > before, "{} bytes more", more.capacity());
    }
}
