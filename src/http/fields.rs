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

/// The members of a comma-separated list field, blanks trimmed, empty members left out (RFC 9110 section 5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}
