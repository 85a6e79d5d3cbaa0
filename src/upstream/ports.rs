//! Local ports of connections to backends.
//!
//! The kernel needs another local port for each connection from one address of ours to one address of a backend; those to other
//! addresses may have the same. How many are in use is counted here, where connections are opened and closed: to read it from the
//! kernel would be a walk over all of its sockets.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::File,
    net::{IpAddr, SocketAddr},
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use crate::limits::{PORT_FILE_BYTES, PORT_REMARKS, PORT_TUPLES};

/// Of a hundred ports so many in use are worth a warning,
const WARN_PERCENT: u64 = 80;
/// and so many must be left before the next: one warning, however the number sways.
const CALM_PERCENT: u64 = 70;

/// Ports that an outgoing connection may have: `net.ipv4.ip_local_port_range` less `net.ipv4.ip_local_reserved_ports` (ip(7)), both
/// of IPv6 too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range {
    first: u16,
    /// The last one, included.
    last: u16,
    /// First and last of those that are left out.
    reserved: Vec<(u16, u16)>,
}

impl Range {
    /// From the texts of both files; none where the first has no range.
    pub fn parse(range: &str, reserved: &str) -> Option<Self> {
        let mut ports = range.split_ascii_whitespace().map(str::parse);
        let (Some(Ok(first)), Some(Ok(last))) = (ports.next(), ports.next()) else { return None };
        // As the kernel writes it: sorted, without overlaps (`8080,9000-9010`).
        let part = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        };
        Some(Self { first, last, reserved: reserved.split(',').filter_map(part).collect() })
    }

    /// The first and the last.
    pub fn ends(&self) -> (u16, u16) {
        (self.first, self.last)
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        let between = |first: u16, last: u16| (u32::from(last) + 1).saturating_sub(u32::from(first));
        let reserved = |part: &(u16, u16)| between(part.0.max(self.first), part.1.min(self.last));
        between(self.first, self.last).saturating_sub(self.reserved.iter().map(reserved).sum())
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True of a port that `net.ipv4.ip_local_reserved_ports` names.
    pub fn reserves(&self, port: u16) -> bool {
        self.reserved.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// True of a port between the first and the last, reserved or not.
    pub fn spans(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// The files of both: opened once, since a worker may not open files.
#[derive(Debug)]
struct Files {
    range: Option<File>,
    reserved: Option<File>,
}

impl Default for Files {
    fn default() -> Self {
        let open = |name| File::open(format!("/proc/sys/net/ipv4/{name}")).ok();
        Self { range: open("ip_local_port_range"), reserved: open("ip_local_reserved_ports") }
    }
}

impl Files {
    fn read(&self) -> Option<Range> {
        let text = |file: &Option<File>| {
            let mut bytes = vec![0; PORT_FILE_BYTES];
            let length = file.as_ref()?.read_at(&mut bytes, 0).ok()?;
            Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
        };
        Range::parse(&text(&self.range)?, &text(&self.reserved).unwrap_or_default())
    }
}

/// From where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Ends {
    /// None: whatever address the kernel takes.
    source: Option<IpAddr>,
    backend: SocketAddr,
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.iter().try_for_each(|source| write!(f, "from {source} "))?;
        write!(f, "to {}", self.backend)
    }
}

/// The connections between two addresses.
#[derive(Debug)]
pub(super) struct Tuple {
    ends: Ends,
    open: AtomicU32,
    /// Ports there are, as they were last read.
    max: AtomicU32,
    /// The warning has been given, and the number has not been small since.
    warned: AtomicBool,
}

impl Tuple {
    pub(super) fn open(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self) {
        self.open.fetch_sub(1, Relaxed);
        if self.warned.load(Relaxed) && !self.is_past(CALM_PERCENT) {
            self.warned.store(false, Relaxed);
        }
    }

    fn is_past(&self, percent: u64) -> bool {
        let (open, max) = (u64::from(self.open.load(Relaxed)), u64::from(self.max.load(Relaxed)));
        max > 0 && open * 100 >= max * percent
    }
}

/// A connection's port: in use as long as this lives.
#[derive(Debug)]
pub struct Port(Option<Arc<Tuple>>);

impl Port {
    fn of(tuple: Option<Arc<Tuple>>) -> Self {
        tuple.iter().for_each(|tuple| tuple.open());
        Self(tuple)
    }

    /// In what it is counted; none where there are too many to count.
    pub(super) fn tuple(&self) -> Option<&Arc<Tuple>> {
        self.0.as_ref()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.0.iter().for_each(|tuple| tuple.end());
    }
}

/// How many ports two addresses use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortsSeen {
    /// From which address of ours; none: the kernel's choice.
    pub source: Option<IpAddr>,
    /// To which of a backend.
    pub backend: SocketAddr,
    /// In use.
    pub used: u32,
    /// There are.
    pub max: u32,
}

/// The ports of all connections to backends.
#[derive(Debug, Default)]
pub struct Ports {
    files: Files,
    /// Ports there are between any two addresses, as they were last read; 0: never.
    max: AtomicU32,
    tuples: Mutex<HashMap<Ends, Weak<Tuple>>>,
    /// Source addresses that this host has not.
    missing: Mutex<HashSet<IpAddr>>,
    is_missing_some: AtomicBool,
    remarks: Mutex<Vec<String>>,
    has_remarks: AtomicBool,
}

impl Ports {
    /// A connection is about to be made: it has a port until what is returned is dropped.
    pub fn take(&self, source: Option<IpAddr>, backend: SocketAddr) -> Port {
        let port = Port::of(self.tuple(Ends { source, backend }));
        if let Some(tuple) = port.0.as_ref().filter(|tuple| tuple.is_past(WARN_PERCENT)) {
            self.warn(tuple);
        }
        port
    }

    /// True when there is no port left between these addresses. The kernel would find out by trying each.
    pub fn are_used_up(&self, source: IpAddr, backend: SocketAddr) -> bool {
        let known = locked(&self.tuples).get(&Ends { source: Some(source), backend }).and_then(Weak::upgrade);
        known.filter(|tuple| tuple.is_past(100)).is_some_and(|tuple| {
            tuple.max.store(self.look(), Relaxed);
            tuple.is_past(100)
        })
    }

    /// Every pair of addresses that has connections, those with the most first.
    pub fn seen(&self) -> Vec<PortsSeen> {
        let max = self.look();
        let tuples: Vec<_> = locked(&self.tuples).values().filter_map(Weak::upgrade).collect();
        let mut seen: Vec<_> = tuples
            .iter()
            .map(|tuple| {
                tuple.max.store(max, Relaxed);
                let Ends { source, backend } = tuple.ends;
                PortsSeen { source, backend, used: tuple.open.load(Relaxed), max }
            })
            .filter(|seen| seen.used > 0)
            .collect();
        seen.sort_unstable_by_key(|seen| (u32::MAX - seen.used, seen.backend, seen.source));
        seen
    }

    /// Ports there are between any two addresses, as it is now; 0: not known.
    pub fn look(&self) -> u32 {
        let max = self.files.read().map_or(0, |range| range.len());
        self.max.store(max, Relaxed);
        max
    }

    /// Takes note that this host has not a source address (bind(2): EADDRNOTAVAIL), or has it again.
    pub fn note_source(&self, source: IpAddr, there: bool) {
        if there && !self.is_missing_some.load(Relaxed) {
            return;
        }
        let mut missing = locked(&self.missing);
        let is_news = if there { missing.remove(&source) } else { missing.insert(source) };
        self.is_missing_some.store(!missing.is_empty(), Relaxed);
        drop(missing);
        if is_news && !there {
            self.remark(format!(
                "bind() to {source} failed (99: Cannot assign requested address): this host has no such address, `proxy_bind` passes it \
                 over until it has"
            ));
        } else if is_news {
            self.remark(format!("this host has the address {source} of `proxy_bind` again"));
        }
    }

    /// What is to be said of them in the error log, since the last call.
    pub fn remarks(&self) -> Vec<String> {
        if !self.has_remarks.swap(false, Relaxed) {
            return Vec::new();
        }
        std::mem::take(&mut *locked(&self.remarks))
    }

    fn remark(&self, text: String) {
        let mut remarks = locked(&self.remarks);
        if remarks.len() < PORT_REMARKS {
            remarks.push(text);
        }
        self.has_remarks.store(true, Relaxed);
    }

    /// None: there are too many to count.
    fn tuple(&self, ends: Ends) -> Option<Arc<Tuple>> {
        let mut tuples = locked(&self.tuples);
        if let Some(tuple) = tuples.get(&ends).and_then(Weak::upgrade) {
            return Some(tuple);
        }
        if tuples.len() >= PORT_TUPLES {
            tuples.retain(|_, tuple| tuple.strong_count() > 0);
        }
        if tuples.len() >= PORT_TUPLES {
            return None;
        }
        let max = match self.max.load(Relaxed) {
            0 => self.look(),
            max => max,
        };
        let (open, warned) = (AtomicU32::new(0), AtomicBool::new(false));
        let tuple = Arc::new(Tuple { ends, open, max: AtomicU32::new(max), warned });
        tuples.insert(ends, Arc::downgrade(&tuple));
        Some(tuple)
    }

    /// Warns, unless the range was made wider meanwhile.
    fn warn(&self, tuple: &Tuple) {
        if tuple.warned.load(Relaxed) {
            return;
        }
        let max = self.look();
        tuple.max.store(max, Relaxed);
        if !tuple.is_past(WARN_PERCENT) || tuple.warned.swap(true, Relaxed) {
            return;
        }
        self.remark(format!(
            "{} of {max} local ports {} are in use, past the last of them clients get 502: give the upstream more addresses (other ports, \
             other hosts, a unix socket), `proxy_bind` more addresses of this host, or widen net.ipv4.ip_local_port_range",
            tuple.open.load(Relaxed),
            tuple.ends
        ));
    }
}

/// Nothing panics while one of these is held.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: &str = "10.0.0.5:3000";

    /// Ports of a made-up range.
    fn ports(range: &str) -> (Ports, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), range).unwrap();
        let files = Files { range: File::open(file.path()).ok(), reserved: None };
        (Ports { files, ..Ports::default() }, file)
    }

    fn take(ports: &Ports, count: usize) -> Vec<Port> {
        (0..count).map(|_| ports.take(None, BACKEND.parse().unwrap())).collect()
    }

    #[test]
    fn a_range_is_read_as_the_kernel_writes_it() {
        let len = |range, reserved| Range::parse(range, reserved).map(|range| range.len());
        assert_eq!(len("32768\t60999\n", "\n"), Some(28_232));
        assert_eq!(len("1000 1099", "80,1010,1020-1029,1090-2000"), Some(100 - 1 - 10 - 10));
        assert_eq!((len("0 65535", ""), len("2 1", ""), len("1000 1009", "1-65535")), (Some(65_536), Some(0), Some(0)));
        assert_eq!((len("", ""), len("a b", ""), len("1 70000", "")), (None, None, None));
        let range = Range::parse("8000 9000", "8080,8500-8510").unwrap();
        assert!(range.reserves(8080) && range.reserves(8505) && !range.reserves(8511));
        assert!(range.spans(9000) && !range.spans(9001));
    }

    #[test]
    fn connections_are_counted_by_both_addresses() {
        let (ports, _file) = ports("1000 1099");
        let [near, far] = ["10.0.0.1", "10.0.0.2"].map(|source| source.parse().ok());
        let backend = BACKEND.parse().unwrap();
        let first = ports.take(near, backend);
        let _others = [ports.take(near, backend), ports.take(far, backend), ports.take(None, backend)];
        let seen = |source, used| PortsSeen { source, backend, used, max: 100 };
        assert_eq!(ports.seen(), [seen(near, 2), seen(None, 1), seen(far, 1)]);
        drop(first);
        assert_eq!(ports.seen()[0].used, 1);
    }

    #[test]
    fn the_warning_comes_once_for_each_crossing() {
        let (ports, _file) = ports("1000 1099");
        let mut taken = take(&ports, 79);
        assert_eq!(ports.remarks(), Vec::<String>::new());
        taken.extend(take(&ports, 1));
        let said = ports.remarks();
        assert!(
            said.len() == 1 && said[0].starts_with("80 of 100 local ports to 10.0.0.5:3000 are in use"),
            "{said:?}"
        );
        for words in ["proxy_bind", "ip_local_port_range", "unix socket"] {
            assert!(said[0].contains(words), "{said:?}");
        }
        // It sways, and comes near the end.
        taken.truncate(75);
        taken.extend(take(&ports, 20));
        assert_eq!(ports.remarks(), Vec::<String>::new());
        taken.truncate(69);
        taken.extend(take(&ports, 11));
        assert_eq!(ports.remarks().len(), 1, "again, after it was calm");
    }

    #[test]
    fn a_range_that_was_widened_is_no_reason_to_warn() {
        let (ports, file) = ports("1000 1099");
        let _taken = take(&ports, 79);
        std::fs::write(file.path(), "1000 1999").unwrap();
        let _more = take(&ports, 100);
        assert_eq!((ports.remarks(), ports.look()), (Vec::new(), 1000));
    }

    #[test]
    fn a_source_without_ports_is_known() {
        let (ports, file) = ports("1000 1003");
        let [source, other]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|source| source.parse().unwrap());
        let backend = BACKEND.parse().unwrap();
        let mut taken: Vec<_> = (0..4).map(|_| ports.take(Some(source), backend)).collect();
        assert!(ports.are_used_up(source, backend) && !ports.are_used_up(other, backend));
        taken.pop();
        assert!(!ports.are_used_up(source, backend));
        taken.push(ports.take(Some(source), backend));
        assert!(ports.are_used_up(source, backend));
        std::fs::write(file.path(), "1000 1004").unwrap();
        assert!(!ports.are_used_up(source, backend), "the range was widened");
    }

    #[test]
    fn addresses_that_come_and_go_do_not_fill_the_memory() {
        let (ports, _file) = ports("1000 1099");
        let take = |number: usize| {
            let ip = u32::try_from(number).unwrap().to_be_bytes();
            ports.take(None, (ip, 80).into())
        };
        (0..2 * PORT_TUPLES).for_each(|number| drop(take(number)));
        let all: Vec<_> = (0..PORT_TUPLES + 10).map(take).collect();
        assert_eq!((ports.seen().len(), locked(&ports.tuples).len()), (PORT_TUPLES, PORT_TUPLES));
        drop(all);
    }

    #[test]
    fn an_address_that_is_not_ours_is_said_once() {
        let ports = Ports::default();
        let source = "198.51.100.1".parse().unwrap();
        ports.note_source(source, true);
        assert_eq!(ports.remarks().len(), 0);
        (0..3).for_each(|_| ports.note_source(source, false));
        assert_eq!(ports.remarks().len(), 1);
        (0..3).for_each(|_| ports.note_source(source, true));
        assert_eq!(ports.remarks().len(), 1);
    }
}
