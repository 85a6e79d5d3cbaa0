//! Resumed sessions: tickets and a cache, both as long-lived as `ssl_session_timeout` says.
//!
//! rustls uses one of the two for TLS 1.3: tickets if they are on, else the cache. With TLS 1.2 a client that offers tickets
//! gets one, any other a session id that is looked up in the cache. Each server block has its own keys and its own cache, and
//! rustls compares the server name besides: what one virtual host issued opens no other (nginx CVE-2025-23419).

use std::{
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
};
use rustls::{
    pki_types::UnixTime,
    server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions},
    ticketer::TicketRotator,
};

use super::TlsConfigError;

/// RFC 8446 section 4.6.1: no ticket lives longer than seven days.
const LONGEST_SECS: u32 = 7 * 24 * 60 * 60;

/// `ssl_session_timeout` in seconds, at least one.
fn lifetime_secs(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_secs()).unwrap_or(LONGEST_SECS).clamp(1, LONGEST_SECS)
}

/// Notes the time behind a session, seconds since 1970.
fn stamp(mut session: Vec<u8>, now: u64) -> Vec<u8> {
    session.extend_from_slice(&now.to_be_bytes());
    session
}

/// Takes the time off again; None when the session is too old.
fn fresh(mut session: Vec<u8>, now: u64, lifetime_secs: u32) -> Option<Vec<u8>> {
    let (_, made) = session.split_last_chunk::<8>()?;
    let age = now.saturating_sub(u64::from_be_bytes(*made));
    session.truncate(session.len() - 8);
    (age <= u64::from(lifetime_secs)).then_some(session)
}

/// Bytes of a file of `ssl_session_ticket_key`: nginx's, for AES-128 and AES-256.
const KEY_FILE_BYTES: [usize; 2] = [48, 80];
/// Bytes that name a key in front of its tickets.
const KEY_NAME_BYTES: usize = 16;

/// The keys that `ssl_session_ticket_key` names; none: keys of our own. Several machines with the same files open each other's tickets.
#[derive(Default, Clone, PartialEq, Eq)]
pub(super) struct TicketKeys(Vec<[u8; 32]>);

impl TicketKeys {
    /// Reads the files. What is in them is taken for a secret as a whole: the keys are made of its hash, since the tickets are not
    /// OpenSSL's either.
    ///
    /// # Errors
    /// One that cannot be read, or has another length than nginx wants.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self, TlsConfigError> {
        let error = |index, message| TlsConfigError { directive: "ssl_session_ticket_key", index, message };
        let keys = files.iter().enumerate().map(|(index, path)| secret(path).map_err(|why| error(index, why)));
        keys.collect::<Result<_, _>>().map(Self)
    }
}

fn secret(path: &Path) -> Result<[u8; 32], String> {
    let mut bytes = Vec::new();
    let longest = KEY_FILE_BYTES[1] as u64;
    File::open(path)
        .and_then(|file| file.take(longest + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot open \"{}\": {error}", path.display()))?;
    if !KEY_FILE_BYTES.contains(&bytes.len()) {
        return Err(format!(
            "\"{}\" must have 48 or 80 bytes; make it with `openssl rand 80 > {}`",
            path.display(),
            path.display()
        ));
    }
    let mut secret = [0; 32];
    secret.copy_from_slice(digest(&SHA256, &bytes).as_ref());
    Ok(secret)
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({})", self.0.len())
    }
}

/// Ticket keys of a server block. One of our own is used for `ssl_session_timeout` and kept as long again, so that every ticket can be
/// opened until its own time is over.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: Keys,
    lifetime_secs: u32,
}

#[derive(Debug)]
enum Keys {
    Own(TicketRotator),
    Given(Box<[Given]>),
}

/// A key of a file, and its name.
#[derive(Debug)]
struct Given {
    name: [u8; KEY_NAME_BYTES],
    key: TicketKey,
}

impl Given {
    fn new(secret: &[u8; 32]) -> Result<Self, rustls::crypto::GetRandomFailed> {
        let of = |what: &[u8]| digest(&SHA256, &[what, secret].concat());
        let mut name = [0; KEY_NAME_BYTES];
        name.copy_from_slice(&of(b"longsplice ticket name").as_ref()[..KEY_NAME_BYTES]);
        Ok(Self { name, key: TicketKey::of(of(b"longsplice ticket key").as_ref())? })
    }
}

impl Tickets {
    /// These keys, or fresh ones where there are none.
    ///
    /// # Errors
    /// The kernel gave no randomness.
    pub(super) fn new(timeout: Duration, given: &TicketKeys) -> Result<Self, rustls::Error> {
        let lifetime_secs = lifetime_secs(timeout);
        let new_key = || TicketKey::new().map(|key| Box::new(key) as Box<dyn ProducesTickets>);
        let keys = match given.0.as_slice() {
            [] => Keys::Own(TicketRotator::new(lifetime_secs, new_key)?),
            given => Keys::Given(given.iter().map(Given::new).collect::<Result<_, _>>()?),
        };
        Ok(Self { keys, lifetime_secs })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lifetime_secs
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let session = stamp(session.to_vec(), UnixTime::now().as_secs());
        match &self.keys {
            Keys::Own(keys) => keys.encrypt(&session),
            Keys::Given(keys) => {
                let Given { name, key } = keys.first()?;
                Some([name.as_slice(), &key.encrypt(&session)?].concat())
            }
        }
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let session = match &self.keys {
            Keys::Own(keys) => keys.decrypt(ticket)?,
            Keys::Given(keys) => {
                let (name, ticket) = ticket.split_at_checked(KEY_NAME_BYTES)?;
                keys.iter().find(|given| given.name == name)?.key.decrypt(ticket)?
            }
        };
        fresh(session, UnixTime::now().as_secs(), self.lifetime_secs)
    }
}

/// One key: AES-256-GCM with a random nonce in front of the ticket, good for 2^32 tickets (NIST SP 800-38D section 8.3).
struct TicketKey(RandomizedNonceKey);

impl TicketKey {
    fn new() -> Result<Self, rustls::crypto::GetRandomFailed> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rustls::crypto::GetRandomFailed)?;
        Self::of(&bytes)
    }

    fn of(bytes: &[u8]) -> Result<Self, rustls::crypto::GetRandomFailed> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes).map(Self).map_err(|_| rustls::crypto::GetRandomFailed)
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}

impl ProducesTickets for TicketKey {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LONGEST_SECS
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = session.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::empty(), &mut sealed).ok()?;
        Some([&nonce.as_ref()[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_at_checked(NONCE_LEN)?;
        let mut session = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = self.0.open_in_place(nonce, Aad::empty(), &mut session).ok()?.len();
        session.truncate(length);
        Some(session)
    }
}

/// `ssl_session_cache`: sessions of a server block, the oldest forgotten first. One lock for all workers: it is taken twice in
/// a handshake, which is thousands of times as long.
#[derive(Debug)]
pub(super) struct SessionCache {
    sessions: Arc<ServerSessionMemoryCache>,
    lifetime_secs: u32,
}

impl SessionCache {
    /// Room for `sessions` of them.
    pub(super) fn new(sessions: usize, timeout: Duration) -> Self {
        Self { sessions: ServerSessionMemoryCache::new(sessions), lifetime_secs: lifetime_secs(timeout) }
    }

    fn fresh(&self, session: Vec<u8>) -> Option<Vec<u8>> {
        fresh(session, UnixTime::now().as_secs(), self.lifetime_secs)
    }
}

impl StoresServerSessions for SessionCache {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        self.sessions.put(id, stamp(session, UnixTime::now().as_secs()))
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.sessions.get(id).and_then(|session| self.fresh(session))
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.sessions.take(id).and_then(|session| self.fresh(session))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_good_for_its_timeout_and_no_longer() {
        let session = stamp(b"secret".to_vec(), 1000);
        assert_eq!(fresh(session.clone(), 1000, 300).as_deref(), Some(&b"secret"[..]));
        assert_eq!(fresh(session.clone(), 1300, 300).as_deref(), Some(&b"secret"[..]));
        assert_eq!(fresh(session.clone(), 1301, 300), None);
        // A clock set back makes nothing older.
        assert!(fresh(session, 10, 300).is_some());
        assert_eq!(fresh(b"short".to_vec(), 0, 300), None);
    }

    #[test]
    fn a_ticket_opens_with_its_own_keys_only() {
        let own = || Tickets::new(Duration::from_secs(300), &TicketKeys::default()).expect("random");
        let (tickets, others) = (own(), own());
        let ticket = tickets.encrypt(b"session").expect("sealed");
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(others.decrypt(&ticket), None);
        assert_ne!(tickets.encrypt(b"session"), Some(ticket.clone()), "a nonce was used twice");
        for cut in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..cut]), None);
        }
    }

    #[test]
    fn tickets_of_given_keys_open_wherever_the_keys_are() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, byte: u8, length: usize| {
            let path = directory.path().join(name);
            std::fs::write(&path, vec![byte; length]).unwrap();
            path
        };
        let files = [file("a", 1, 48), file("b", 2, 80)];
        let keys = |order: &[usize]| {
            let files: Vec<_> = order.iter().map(|index| files[*index].clone()).collect();
            Tickets::new(Duration::from_secs(300), &TicketKeys::read(&files).unwrap()).unwrap()
        };
        let ticket = keys(&[0]).encrypt(b"session").unwrap();
        // The next key is in front, and the one before it still opens; without it, nothing does.
        assert_eq!(keys(&[1, 0]).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(keys(&[1]).decrypt(&ticket), None);
        assert_eq!(keys(&[0]).decrypt(&ticket[..KEY_NAME_BYTES]), None);
        let error = TicketKeys::read(&[files[0].clone(), file("c", 3, 47)]).unwrap_err();
        assert_eq!((error.directive, error.index), ("ssl_session_ticket_key", 1));
        assert!(error.message.contains("openssl rand 80"), "{}", error.message);
        assert!(TicketKeys::read(&["/nonexistent".into()]).is_err());
    }

    #[test]
    fn lifetimes_stay_within_what_tls_allows() {
        assert_eq!(lifetime_secs(Duration::ZERO), 1);
        assert_eq!(lifetime_secs(Duration::from_secs(86_400)), 86_400);
        assert_eq!(lifetime_secs(Duration::from_secs(u64::MAX)), LONGEST_SECS);
    }

    #[test]
    fn the_cache_forgets_the_oldest() {
        let cache = SessionCache::new(2, Duration::from_secs(300));
        for id in 0..3u8 {
            assert!(cache.put(vec![id], vec![id]));
        }
        assert_eq!(cache.get(&[0]), None);
        assert_eq!(cache.get(&[2]), Some(vec![2]));
        assert_eq!(cache.take(&[2]), Some(vec![2]));
        assert_eq!(cache.take(&[2]), None);
    }
}
