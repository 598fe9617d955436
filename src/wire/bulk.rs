//! Posts, acknowledgements and items in bulk, for measuring: whoever loads a server must spend less on a message than the server
//! does. So a post is written without a value of it, and of an answer only the numbers are read that show whether it is the next
//! one. The formats are those of [`client`](super::client) and [`command`](super::command); the tests here hold them together.

use super::{frame, varint};
use crate::types::{ClientSeq, Lamport, Position, RoomId, Seq, SessionId};

/// The numbers of `Request::Command`, `Response::Acks` and `Response::Item`.
const COMMAND: u8 = 3;
const ACKS: u8 = 3;
const ITEM: u8 = 12;
/// Kind and version of a post, as they stand in front of its length.
const POST: [u8; 4] = [1, 0, 1, 0];
/// Bytes of kind, version and length.
const ENVELOPE_BYTES: usize = 8;

/// A message to be posted.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// Its session.
    pub session: SessionId,
    /// Its number there.
    pub seq: ClientSeq,
    /// The lowest number whose outcome isn't known.
    pub unacknowledged: ClientSeq,
    /// The highest timestamp seen.
    pub lamport: Lamport,
    /// The room.
    pub room: RoomId,
    /// The session's name.
    pub user: &'a str,
    /// What it says, in UTF-8.
    pub text: &'a [u8],
}

/// Appends the frame of a post.
pub fn push_post(post: &Post<'_>, out: &mut Vec<u8>) {
    let numbers = [
        post.session.0,
        post.seq.0,
        post.unacknowledged.0,
        post.lamport.0,
        post.room.0,
    ];
    let texts = [post.user.as_bytes(), post.text];
    let bytes_of = |text: &&[u8]| varint::bytes(text.len() as u64) + text.len();
    // Behind the text: no idempotency key.
    let body = numbers.iter().map(|n| varint::bytes(*n)).sum::<usize>() + texts.iter().map(bytes_of).sum::<usize>() + 1;
    let command = (ENVELOPE_BYTES + body) as u64;
    let length = 1 + varint::bytes(command) + ENVELOPE_BYTES + body;
    out.reserve(frame::LENGTH_BYTES + length);
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.push(COMMAND);
    varint::push(command, out);
    out.extend_from_slice(&POST);
    out.extend_from_slice(&(body as u32).to_le_bytes());
    for n in numbers {
        varint::push(n, out);
    }
    for text in texts {
        varint::push(text.len() as u64, out);
        out.extend_from_slice(text);
    }
    out.push(0);
}

/// The acknowledgement of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The post's number in the session.
    pub seq: ClientSeq,
    /// The room.
    pub room: RoomId,
    /// The message's number there.
    pub message: Seq,
    /// Its place there.
    pub position: Position,
    /// Its timestamp.
    pub lamport: Lamport,
}

/// Reads the body of a frame that is nothing but acknowledgements of posts. False if it isn't, or not all of it; those before
/// were told then.
pub fn each_posted(body: &[u8], mut tell: impl FnMut(Posted)) -> bool {
    let Some((&ACKS, mut rest)) = body.split_first() else {
        return false;
    };
    let Some(count) = varint::take(&mut rest) else {
        return false;
    };
    for _ in 0..count {
        let Some(posted) = posted(&mut rest) else { return false };
        tell(posted);
    }
    rest.is_empty()
}

fn posted(rest: &mut &[u8]) -> Option<Posted> {
    let seq = varint::take(rest)?;
    let 0 = varint::take(rest)? else { return None };
    let posted = Posted {
        seq: ClientSeq(seq),
        room: RoomId(varint::take(rest)?),
        message: Seq(varint::take(rest)?),
        position: Position(varint::take(rest)?),
        lamport: Lamport(varint::take(rest)?),
    };
    let _time = varint::take(rest)?;
    Some(posted)
}

/// An item of a room, of which only the place was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered<'a> {
    /// The room.
    pub room: RoomId,
    /// Its place there.
    pub position: Position,
    rest: &'a [u8],
}

impl<'a> Delivered<'a> {
    /// The item in the body of a frame, if it is one.
    #[must_use]
    pub fn of(body: &'a [u8]) -> Option<Delivered<'a>> {
        let (&ITEM, mut rest) = body.split_first()? else {
            return None;
        };
        let room = RoomId(varint::take(&mut rest)?);
        let position = Position(varint::take(&mut rest)?);
        Some(Delivered { room, position, rest })
    }

    /// Its session and text, if it is a message.
    #[must_use]
    pub fn message(&self) -> Option<(SessionId, &'a [u8])> {
        let mut rest = self.rest;
        let [_seq, _lamport, _time] = [
            varint::take(&mut rest)?,
            varint::take(&mut rest)?,
            varint::take(&mut rest)?,
        ];
        let session = SessionId(varint::take(&mut rest)?);
        let _number = varint::take(&mut rest)?;
        let _user = text(&mut rest)?;
        let 0 = varint::take(&mut rest)? else { return None };
        let said = text(&mut rest)?;
        rest.is_empty().then_some((session, said))
    }
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint::take(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::command::{Code, Command, Head, Outcome};
    use crate::wire::client::{Ack, Item, Request, Response, What, encode_request, encode_response};
    use crate::wire::command;

    const NUMBERS: [u64; 8] = [0, 7, 250, 251, 65_535, 65_536, u32::MAX as u64 + 1, u64::MAX];

    fn body(response: &Response) -> Vec<u8> {
        let mut out = Vec::new();
        encode_response(response, &mut out);
        out.split_off(frame::LENGTH_BYTES)
    }

    #[test]
    fn a_post_is_the_request_that_it_is() {
        for (at, n) in NUMBERS.into_iter().enumerate() {
            let next = NUMBERS[(at + 1) % NUMBERS.len()];
            for length in [0, 1, 200, 230, 250, 251, 1000, 65_535, 70_000] {
                let text = "x".repeat(length);
                let command = Command::Post {
                    head: Head {
                        session: SessionId(n),
                        seq: ClientSeq(next),
                        unacknowledged: ClientSeq(n),
                        lamport: Lamport(next),
                    },
                    room: RoomId(n),
                    user: "bench-1".into(),
                    text: text.as_str().into(),
                    dedup: None,
                };
                let mut wanted = Vec::new();
                encode_request(&Request::Command(command::encode(&command)), &mut wanted);
                let mut out = Vec::new();
                let post = Post {
                    session: SessionId(n),
                    seq: ClientSeq(next),
                    unacknowledged: ClientSeq(n),
                    lamport: Lamport(next),
                    room: RoomId(n),
                    user: "bench-1",
                    text: text.as_bytes(),
                };
                push_post(&post, &mut out);
                assert_eq!(out, wanted, "{n} {length}");
            }
        }
    }

    fn ack(n: u64) -> Ack {
        Ack {
            seq: ClientSeq(n),
            outcome: Outcome::Posted {
                room: RoomId(n),
                seq: Seq(n),
                position: Position(n),
                lamport: Lamport(n),
                time_ms: n,
            },
        }
    }

    #[test]
    fn acknowledgements_are_read_as_they_are_written() {
        let bytes = body(&Response::Acks(NUMBERS.map(ack).to_vec()));
        let mut told = Vec::new();
        assert!(each_posted(&bytes, |posted| told.push(posted)));
        let wanted = NUMBERS.map(|n| Posted {
            seq: ClientSeq(n),
            room: RoomId(n),
            message: Seq(n),
            position: Position(n),
            lamport: Lamport(n),
        });
        assert_eq!(told, wanted);
        for end in 0..bytes.len() {
            assert!(!each_posted(&bytes[..end], |_| {}), "{end}");
        }
        let refused = Ack {
            seq: ClientSeq(2),
            outcome: Outcome::Refused(Code::NoSuchRoom),
        };
        told.clear();
        let bytes = body(&Response::Acks(vec![ack(1), refused, ack(3)]));
        assert!(!each_posted(&bytes, |posted| told.push(posted)));
        assert_eq!(told.len(), 1);
        assert!(!each_posted(&body(&Response::Pong { id: 1 }), |_| {}));
    }

    #[test]
    fn items_are_read_as_they_are_written() {
        for n in NUMBERS {
            let mut item = Item {
                room: RoomId(n),
                position: Position(n),
                seq: Seq(n),
                lamport: Lamport(n),
                time_ms: n,
                session: SessionId(n),
                client_seq: ClientSeq(n),
                user: "ann".to_string(),
                what: What::Message("hello".repeat(100)),
            };
            let bytes = body(&Response::Item(item.clone()));
            let read = Delivered::of(&bytes).unwrap();
            assert_eq!((read.room, read.position), (RoomId(n), Position(n)));
            assert_eq!(read.message(), Some((SessionId(n), "hello".repeat(100).as_bytes())));
            for end in 0..bytes.len() {
                assert_eq!(Delivered::of(&bytes[..end]).and_then(|read| read.message()), None);
            }
            item.what = What::Joined;
            let bytes = body(&Response::Item(item));
            let read = Delivered::of(&bytes).unwrap();
            assert_eq!((read.position, read.message()), (Position(n), None));
        }
        assert_eq!(Delivered::of(&body(&Response::Pong { id: 1 })), None);
    }
}
