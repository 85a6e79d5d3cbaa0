//! What a host tells of itself: files of /proc and /sys, read and never written.

use std::{
    fs::{self, File},
    io::Read,
    path::PathBuf,
    str::FromStr,
};

use crate::limits::HOST_FILE_BYTES;

/// The files of a host, below a prefix: `/` for this one, a directory of made-up files in tests.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self { root: "/".into() }
    }
}

impl Files {
    /// The files below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A file's text without the white space around it. None: not there, not for us, or not visible in this container.
    pub fn text(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.root.join(path)).ok()?.take(HOST_FILE_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A sysctl by the name sysctl(8) gives it.
    pub fn sysctl(&self, key: &str) -> Option<String> {
        self.text(&format!("proc/sys/{}", key.replace('.', "/")))
    }

    /// A sysctl that is one number.
    pub fn sysctl_number(&self, key: &str) -> Option<u64> {
        self.sysctl(key).and_then(|text| numbers(&text).next())
    }

    /// A sysctl's numbers, as many as there are.
    pub fn sysctl_numbers(&self, key: &str) -> Option<Vec<u64>> {
        self.sysctl(key).map(|text| numbers(&text).collect())
    }

    /// The number behind `NAME:` of a file of such lines: /proc/meminfo, /proc/PID/status.
    pub fn field(&self, path: &str, name: &str) -> Option<u64> {
        let text = self.text(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        numbers(line).next()
    }

    /// The names in a directory, sorted.
    pub fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// True when there is such a file or directory.
    pub fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

/// The numbers a text begins with.
pub fn numbers<T: FromStr>(text: &str) -> impl Iterator<Item = T> {
    text.split_ascii_whitespace().map_while(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/sys/net/ipv4")).unwrap();
        fs::write(root.path().join("proc/sys/net/ipv4/tcp_mem"), "288459\t384612\t576918\n").unwrap();
        fs::write(root.path().join("proc/meminfo"), "MemTotal:       24731708 kB\nMemFree: 1 kB\n").unwrap();
        let files = Files::below(root.path());
        assert_eq!(files.sysctl_number("net.ipv4.tcp_mem"), Some(288_459));
        assert_eq!(files.sysctl_numbers("net.ipv4.tcp_mem"), Some(vec![288_459, 384_612, 576_918]));
        assert_eq!(files.field("proc/meminfo", "MemTotal"), Some(24_731_708));
        assert_eq!(files.field("proc/meminfo", "Mem"), None);
        assert_eq!(files.sysctl("net.core.somaxconn"), None);
        assert_eq!(files.list("proc/sys/net"), ["ipv4"]);
        assert!(files.list("sys").is_empty());
    }
}
