//! The header fields of a head, kept as the bytes that arrived plus ranges into them.

/// Header fields in the order they arrived, in one allocation.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    raw: Box<[u8]>,
    entries: Box<[Entry]>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    name: (u32, u32),
    value: (u32, u32),
}

impl Fields {
    /// Builds from pairs; each name must be a token and each value free of CR, LF and NUL.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut raw = Vec::new();
        let mut entries = Vec::new();
        for (name, value) in pairs {
            let start = raw.len() as u32;
            raw.extend_from_slice(name);
            let middle = raw.len() as u32;
            raw.extend_from_slice(value);
            entries.push(Entry { name: (start, middle), value: (middle, raw.len() as u32) });
        }
        Self { raw: raw.into(), entries: entries.into() }
    }

    /// All fields in order, as (name as sent, value without surrounding blanks).
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| (self.slice(entry.name), self.slice(entry.value)))
    }

    /// The values of every line of this name (any case).
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The first value of this name (any case).
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The value of a field that may stand on one line only.
    ///
    /// # Errors
    /// More than one line.
    pub fn single<'a>(&'a self, name: &'a str) -> Result<Option<&'a [u8]>, Repeated> {
        let mut lines = self.all(name);
        match (lines.next(), lines.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Repeated),
        }
    }

    /// The members of a list field, over all its lines.
    pub fn members<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name).flat_map(list)
    }

    /// True where a list field has this member (any case).
    pub fn lists<'a>(&'a self, name: &'a str, member: &str) -> bool {
        self.members(name).any(|found| found.eq_ignore_ascii_case(member.as_bytes()))
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any line.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn slice(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.raw[start as usize..end as usize]
    }
}

/// A field stood on more than one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated;

/// The members of a comma-separated list field, blanks trimmed, empty members left out (RFC 9110 section 5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// tchar (RFC 9110 section 5.6.2): what names, methods and tokens are made of.
pub const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// True for one or more tchar.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_tchar(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_values_keep_their_order() {
        let fields = Fields::from_pairs([(&b"A"[..], &b"1"[..]), (b"b", b"2"), (b"a", b"3")]);
        assert_eq!(fields.len(), 3);
        assert_eq!(fields.get("B"), Some(&b"2"[..]));
        assert_eq!(fields.all("a").collect::<Vec<_>>(), [b"1", b"3"]);
        assert_eq!(fields.single("a"), Err(Repeated));
        assert_eq!(fields.single("b"), Ok(Some(&b"2"[..])));
        assert_eq!(fields.single("c"), Ok(None));
    }

    #[test]
    fn list_members_are_trimmed_and_empty_ones_left_out() {
        let fields =
            Fields::from_pairs([(&b"Connection"[..], &b" keep-alive ,, Upgrade\t"[..]), (b"connection", b"x")]);
        assert_eq!(fields.members("connection").collect::<Vec<_>>(), [&b"keep-alive"[..], b"Upgrade", b"x"]);
        assert!(fields.lists("Connection", "upgrade"));
        assert!(!fields.lists("Connection", "upgrad"));
    }
}
