//! Frames, beside a reader that has the whole stream before it.

use super::pieces::{Chance, cuts, pieces};
use crate::websocket::{
    close::close_frame as write,
    frames::{Frames, Sender},
};

/// A stream of frames: whole, in pieces, and with payload that is moved unseen.
pub fn frames(data: &[u8]) {
    for sender in [Sender::Client, Sender::Server] {
        for rsv in [0, 0x40] {
            let stream = Stream { data, sender, rsv, read: read(data, sender, rsv) };
            stream.whole();
            stream.in_pieces();
            stream.moved_unseen();
            stream.to_the_next_boundary();
        }
    }
}

/// A close frame for any code and reason.
pub fn close_frame(data: &[u8]) {
    let Some((code, reason)) = data.split_first_chunk() else { return };
    let (code, reason) = (u16::from_be_bytes(*code), String::from_utf8_lossy(reason));
    for sender in [Sender::Server, Sender::Client] {
        let frame = write(sender, code, &reason);
        let read = read(&frame, sender, 0);
        assert_eq!((read.heads.len(), read.wrong, read.left), (1, None, 0));
        let head = read.heads[0].end;
        let key = if sender == Sender::Client { &frame[head..head + 4] } else { &[0; 4][..] };
        let payload = frame[frame.len() - usize::from(frame[1] & 0x7f)..].iter();
        let payload: Vec<u8> = payload.zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        assert_eq!((frame[0], &payload[..2]), (0x88, &code.to_be_bytes()[..]));
        let said = str::from_utf8(&payload[2..]).expect("UTF-8");
        let unsaid = reason.strip_prefix(said).expect("the front of the reason");
        assert!(unsaid.chars().next().is_none_or(|next| payload.len() + next.len_utf8() > 125));
    }
}

/// What a stream holds.
struct Read {
    /// Those whose last byte has come; in order.
    heads: Vec<Head>,
    /// The byte from which on the stream is no stream of frames.
    wrong: Option<usize>,
    /// Bytes of the last frame that have not come.
    left: u64,
}

struct Head {
    /// One past its last byte, masking key left out.
    end: usize,
    /// Where its frame ends, masking key and payload included.
    frame: u64,
    closes: bool,
}

/// Reads frame after frame by RFC 6455 section 5.2, as simply as can be.
fn read(data: &[u8], sender: Sender, rsv: u8) -> Read {
    let mut found = Read { heads: Vec::new(), wrong: None, left: 0 };
    let (mut at, mut in_message) = (0, false);
    while let Some(&[first, second]) = data.get(at..).and_then(|rest| rest.first_chunk()) {
        let (fin, opcode, length) = (first & 0x80 != 0, first & 0x0f, second & 0x7f);
        let known = match opcode {
            0 => in_message,
            1 | 2 => !in_message,
            8..=10 => fin && length < 126,
            _ => false,
        };
        if !known || first & 0x70 & !rsv != 0 || (second & 0x80 != 0) != (sender == Sender::Client) {
            found.wrong = Some(at + 1);
            return found;
        }
        if opcode < 3 {
            in_message = !fin;
        }
        let wide = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let end = at + 2 + wide;
        let Some(digits) = data.get(at + 2..end) else { break };
        let length = match wide {
            0 => u64::from(length),
            _ => digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit)),
        };
        if wide == 2 && length < 126 || wide == 8 && !(1 << 16..1 << 63).contains(&length) {
            found.wrong = Some(end - 1);
            return found;
        }
        let frame = end as u64 + if sender == Sender::Client { 4 } else { 0 } + length;
        found.heads.push(Head { end, frame, closes: opcode == 8 });
        found.left = frame.saturating_sub(data.len() as u64);
        match usize::try_from(frame) {
            Ok(frame) if frame <= data.len() => at = frame,
            _ => break,
        }
    }
    found
}

struct Stream<'a> {
    data: &'a [u8],
    sender: Sender,
    rsv: u8,
    read: Read,
}

impl Stream<'_> {
    fn advance(&self, frames: &mut Frames, bytes: &[u8]) -> Option<usize> {
        frames.advance(bytes, self.sender, self.rsv).ok().map(|begun| begun as usize)
    }

    fn whole(&self) {
        let mut frames = Frames::default();
        let begun = self.advance(&mut frames, self.data);
        assert_eq!(begun, self.read.wrong.is_none().then_some(self.read.heads.len()));
        self.stands_at(&frames, self.data.len());
        // Once lost, nothing is wrong any more.
        if begun.is_none() {
            assert_eq!(self.advance(&mut frames, self.data), Some(0));
        }
    }

    fn in_pieces(&self) {
        let (mut frames, mut at) = (Frames::default(), 0);
        for piece in pieces(self.data) {
            let end = at + piece.len();
            let begun = self.advance(&mut frames, piece);
            match self.read.wrong {
                Some(wrong) if wrong < end => return assert_eq!(begun, None, "noticed with the byte that tells"),
                _ => assert_eq!(begun, Some(self.heads_within(at, end))),
            }
            self.stands_at(&frames, end);
            at = end;
        }
    }

    fn moved_unseen(&self) {
        let (mut frames, mut at, mut begun) = (Frames::default(), 0, 0);
        let mut chance = Chance::of(self.data);
        while at < self.data.len() {
            let unseen = frames.payload_left().min((self.data.len() - at) as u64) as usize;
            if unseen > 0 {
                let step = 1 + chance.below(unseen);
                frames.skip(step as u64);
                at += step;
                continue;
            }
            let Some(more) = self.advance(&mut frames, &self.data[at..=at]) else {
                return assert_eq!(self.read.wrong, Some(at));
            };
            begun += more;
            at += 1;
        }
        assert_eq!(begun, self.read.heads.len());
        self.stands_at(&frames, at);
    }

    fn to_the_next_boundary(&self) {
        for cut in cuts(self.data) {
            let mut frames = Frames::default();
            if self.advance(&mut frames, &self.data[..cut]).is_none() {
                continue;
            }
            let next = self.boundaries().find(|boundary| *boundary >= cut);
            let stepped = frames.advance_to_boundary(&self.data[cut..], self.sender, self.rsv);
            match (next, self.read.wrong) {
                (Some(next), _) => {
                    assert_eq!(stepped, Ok((next - cut, self.heads_within(cut, next) as u32)));
                    assert!(frames.at_boundary());
                }
                (None, None) => assert!(stepped.is_ok_and(|(used, _)| used == self.data.len() - cut)),
                (None, Some(_)) => assert!(stepped.is_err()),
            }
        }
    }

    fn heads_within(&self, start: usize, end: usize) -> usize {
        self.read.heads.iter().filter(|head| head.end > start && head.end <= end).count()
    }

    /// The places between two frames that have come.
    fn boundaries(&self) -> impl Iterator<Item = usize> {
        let ends = self.read.heads.iter().filter_map(|head| usize::try_from(head.frame).ok());
        std::iter::once(0).chain(ends).filter(|end| *end <= self.data.len())
    }

    /// After the first `at` bytes.
    fn stands_at(&self, frames: &Frames, at: usize) {
        if self.read.wrong.is_some_and(|wrong| wrong < at) {
            return assert!(frames.is_lost() && !frames.at_boundary() && !frames.has_closed());
        }
        let begun = self.read.heads.iter().take_while(|head| head.end <= at);
        assert_eq!(frames.at_boundary(), self.boundaries().any(|boundary| boundary == at));
        let left = begun.clone().last().map_or(0, |head| head.frame.saturating_sub(at as u64));
        assert_eq!(frames.payload_left(), left);
        // Noticed with the second byte of its head.
        let closed = self.read.heads.iter().any(|head| head.closes && head.end <= at);
        assert_eq!(frames.has_closed(), closed);
        assert!(!frames.is_lost());
    }
}
