//! A chat room: each line goes to everybody, with the name of who said it.

use std::{
    collections::HashMap,
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use tungstenite::{Message, Utf8Bytes, WebSocket, protocol::Role};

use super::{
    backend::{refuse_message, settings},
    shared::Shared,
};
use crate::limits::{DEMO_NAME_CHARS, DEMO_OUTBOX_LINES};

/// Everybody who is in.
#[derive(Debug, Default)]
pub(super) struct Room {
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    next: u64,
    outboxes: HashMap<u64, SyncSender<Utf8Bytes>>,
}

impl Room {
    /// Stays in the room until the client leaves. Lines are sent from a thread of their own, so that a slow reader holds up
    /// nobody.
    pub(super) fn join(&self, mut socket: WebSocket<Shared>) -> io::Result<()> {
        let writer = socket.get_ref().try_clone()?;
        let (outbox, lines) = sync_channel(DEMO_OUTBOX_LINES);
        let sender = thread::Builder::new().name("demo-outbox".to_owned()).spawn(move || send_all(&lines, writer))?;
        let id = self.enter(outbox);
        let mut name = format!("guest-{id}");
        self.tell(id, format!("* you are {name}; \"/name Ann\" changes that"));
        self.say(format!("* {name} came in"));
        while let Some(line) = next_line(&mut socket) {
            match line.strip_prefix("/name ").map(clean_name) {
                Some(Some(new)) if new == name => {}
                Some(Some(new)) => {
                    self.say(format!("* {name} is now {new}"));
                    name = new;
                }
                Some(None) => self.tell(id, "* a name has at least one letter".to_owned()),
                None => self.say(format!("{name}: {line}")),
            }
        }
        self.leave(id);
        self.say(format!("* {name} left"));
        // Its outbox is gone from the room, so the sender ends once it has sent what is there.
        let _ = sender.join();
        Ok(())
    }

    fn enter(&self, outbox: SyncSender<Utf8Bytes>) -> u64 {
        let mut members = self.lock();
        members.next += 1;
        let id = members.next;
        members.outboxes.insert(id, outbox);
        id
    }

    fn leave(&self, id: u64) {
        self.lock().outboxes.remove(&id);
    }

    fn tell(&self, id: u64, line: String) {
        if let Some(outbox) = self.lock().outboxes.get(&id) {
            let _ = outbox.try_send(line.into());
        }
    }

    /// Who does not read its lines is let go: its sender ends and closes the connection.
    fn say(&self, line: String) {
        let line = Utf8Bytes::from(line);
        self.lock().outboxes.retain(|_, outbox| match outbox.try_send(line.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        });
    }

    // Whoever panicked with the lock left at most a line unsent.
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends lines until there is no outbox any more, or the reader is gone or too slow.
fn send_all(lines: &Receiver<Utf8Bytes>, stream: Shared) {
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(settings()));
    while let Ok(line) = lines.recv() {
        if socket.send(Message::Text(line)).is_err() {
            break;
        }
    }
    // Ends the reading side too.
    socket.get_ref().shutdown();
}

/// The next line a client says; none when it has gone.
fn next_line(socket: &mut WebSocket<Shared>) -> Option<Utf8Bytes> {
    loop {
        match socket.read() {
            Ok(Message::Text(line)) if !line.trim().is_empty() => return Some(line),
            Ok(_) => {}
            Err(error) => {
                refuse_message(socket, &error);
                return None;
            }
        }
    }
}

/// A name as it may stand before a line; none when nothing is left of it.
fn clean_name(name: &str) -> Option<String> {
    let name: String = name.trim().chars().filter(|char| !char.is_control()).take(DEMO_NAME_CHARS).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_has_no_control_characters() {
        assert_eq!(clean_name("  Ann \n"), Some("Ann".to_owned()));
        assert_eq!(clean_name("\u{7}\u{1b}"), None);
        assert_eq!(clean_name(""), None);
        assert_eq!(clean_name(&"é".repeat(100)).map(|name| name.chars().count()), Some(DEMO_NAME_CHARS));
    }

    #[test]
    fn who_does_not_read_is_let_go() {
        let room = Room::default();
        let (outbox, lines) = sync_channel(1);
        room.enter(outbox);
        for _ in 0..3 {
            room.say("line".to_owned());
        }
        assert!(room.lock().outboxes.is_empty());
        assert_eq!(lines.iter().count(), 1, "the sender sends what is there and ends");
    }
}
