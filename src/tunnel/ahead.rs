//! Frame heads that lie ahead in a socket's receive queue, read without taking anything out.
//!
//! A splice may then go on past the end of a frame, with the place in the stream of frames still known: two small system calls a
//! frame, where copying would touch all of its bytes.

use std::{io, os::fd::BorrowedFd};

use super::{SHORT_FRAME, SPLICE_FROM};
use crate::{
    limits::{HEADS_AHEAD, PIPE_BYTES},
    sys,
    websocket::frames::{Frames, Sender},
};

/// Longest head of a frame (RFC 6455 section 5.2).
pub(super) const FRAME_HEAD_BYTES: usize = 14;

/// Heads of frames, in the order in which they lie ahead.
#[derive(Debug, Default)]
pub struct Ahead {
    heads: Vec<Head>,
    /// The kernel cannot: TCP has SO_PEEK_OFF since Linux 6.9 (socket(7)).
    unsupported: bool,
}

#[derive(Debug)]
struct Head {
    /// Bytes between the socket's read position and this head.
    at: u64,
    bytes: [u8; FRAME_HEAD_BYTES],
    length: usize,
}

impl Head {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Ahead {
    /// Looks for the heads behind the current frame. Returns how many bytes may be moved unseen: at most a pipe, and no further than
    /// frames could be followed.
    pub fn look(&mut self, socket: BorrowedFd<'_>, frames: &Frames, sender: Sender, rsv: u8) -> u64 {
        self.heads.clear();
        let mut frames = *frames;
        let mut at = frames.payload_left();
        if at >= PIPE_BYTES as u64 || self.unsupported {
            return at.min(PIPE_BYTES as u64);
        }
        let available = sys::available(socket).unwrap_or(0).min(PIPE_BYTES) as u64;
        while at < available && self.heads.len() < HEADS_AHEAD && !self.unsupported {
            let mut head = Head { at, bytes: [0; FRAME_HEAD_BYTES], length: 0 };
            match sys::peek(socket, at as usize, &mut head.bytes) {
                Ok(length) => head.length = length,
                Err(error) => self.unsupported = error.kind() == io::ErrorKind::Unsupported,
            }
            frames.skip(frames.payload_left());
            // A head that is not there yet, or is none, or is that of a frame too short to matter: for whoever copies.
            if frames.advance(head.bytes(), sender, rsv).is_err() || frames.payload_left() == 0 {
                break;
            }
            at += head.length as u64 + frames.payload_left();
            self.heads.push(head);
        }
        at.min(PIPE_BYTES as u64)
    }

    /// True when the frames seen are so long that moving them beats copying them.
    pub fn pays(&self, bytes: u64) -> bool {
        bytes >= SPLICE_FROM as u64 && bytes >= self.heads.len() as u64 * SHORT_FRAME
    }

    /// Follows the frames over `bytes` that were moved, of those [`Ahead::look`] allowed; how many began in them.
    pub fn follow(&self, frames: &mut Frames, bytes: u64, sender: Sender, rsv: u8) -> u32 {
        let (mut followed, mut begun) = (0, 0);
        for head in self.heads.iter().take_while(|head| head.at < bytes) {
            frames.skip(head.at - followed);
            let here = head.bytes();
            let moved = here.len().min((bytes - head.at) as usize);
            // What was peeked has been judged already.
            begun += frames.advance(&here[..moved], sender, rsv).unwrap_or(0);
            followed = head.at + moved as u64;
        }
        frames.skip(bytes - followed);
        begun
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
    };

    use super::*;

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (far, listener.accept().unwrap().0)
    }

    fn frame(length: u16) -> Vec<u8> {
        let mut frame = vec![0x82, 126];
        frame.extend(length.to_be_bytes());
        frame.resize(frame.len() + usize::from(length), 7);
        frame
    }

    #[test]
    fn a_place_is_followed_wherever_the_move_stops() {
        let stream: Vec<u8> = [9000, 10_000, 11_000].into_iter().flat_map(frame).collect();
        let (mut far, mut near) = connection();
        far.write_all(&stream).unwrap();
        let mut ahead = Ahead::default();
        while sys::available(near.as_fd()).unwrap() < stream.len() {}
        let limit = ahead.look(near.as_fd(), &Frames::default(), Sender::Server, 0);
        if ahead.unsupported {
            assert_eq!(limit, 0);
            return;
        }
        assert_eq!(limit, stream.len() as u64);
        for moved in (0..=stream.len()).filter(|moved| moved % 97 == 0 || (8990..9020).contains(moved)) {
            let (mut followed, mut read) = (Frames::default(), Frames::default());
            let begun = ahead.follow(&mut followed, moved as u64, Sender::Server, 0);
            assert_eq!(read.advance(&stream[..moved], Sender::Server, 0), Ok(begun));
            assert_eq!(followed, read, "after {moved} bytes");
        }
        let mut taken = vec![0; stream.len()];
        near.read_exact(&mut taken).unwrap();
        assert!(taken == stream, "peeking took something away");
    }

    #[test]
    fn what_is_no_head_or_half_a_head_is_left_to_the_copy() {
        for tail in [&[0xff, 0xff, 0xff][..], &[0x82], &[0x82, 126, 9]] {
            let (mut far, near) = connection();
            let stream = [&frame(9000)[..], tail].concat();
            far.write_all(&stream).unwrap();
            while sys::available(near.as_fd()).unwrap() < stream.len() {}
            let mut ahead = Ahead::default();
            let limit = ahead.look(near.as_fd(), &Frames::default(), Sender::Server, 0);
            assert!(ahead.unsupported || limit == 9004, "{limit}");
        }
    }
}
