//! Commands as they travel and as they stand in the log: kind, version, length, body. The bytes that a client sends are the bytes
//! in the log, behind the leader's stamp. Kind numbers are assigned here once and for ever; 48, 49 and 50 (prepare,
//! decide, forget: commands between groups) are reserved.

use super::{Error, decode as decode_body, encode as encode_body, varint};
use crate::chat::command::{Command, DedupKey, Head, Stamp};
use crate::limits;
use crate::types::{Blob, ClientSeq, Lamport, RoomId, SessionId};

/// Bytes of kind, version and length in front of the body.
const ENVELOPE_BYTES: usize = 8;
/// Bytes of the leader's stamp in front of the command.
pub const STAMP_BYTES: usize = 24;
/// The version of every kind's body today.
const VERSION: u16 = 1;

const POST: u16 = 1;
const CREATE: u16 = 2;
const JOIN: u16 = 3;
const LEAVE: u16 = 4;
const TOPIC: u16 = 5;
const RENAME: u16 = 6;
const SKIP: u16 = 7;
const CLOSE: u16 = 8;
const OPEN: u16 = 16;
const TOUCH: u16 = 32;
const RELEASE: u16 = 33;
const EXPIRE: u16 = 34;
const FORGET_KEYS: u16 = 35;
const SETTINGS: u16 = 36;
const TRIM: u16 = 40;

/// The bytes of a command, as clients send it.
#[must_use]
pub fn encode(command: &Command<'_>) -> Blob {
    let mut out = Vec::with_capacity(128);
    encode_into(command, &mut out);
    Blob::new(&out)
}

/// Appends the bytes of a command.
pub fn encode_into(command: &Command<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; ENVELOPE_BYTES]);
    let kind = match command {
        Command::Post {
            head,
            room,
            user,
            text,
            dedup,
        } => {
            encode_body(&(head, room, user, text, dedup), out);
            POST
        }
        Command::Create {
            head,
            user,
            room,
            or_find,
        } => {
            encode_body(&(head, user, room, or_find), out);
            CREATE
        }
        Command::Join { head, user, room } => {
            encode_body(&(head, user, room), out);
            JOIN
        }
        Command::Leave { head, user, room } => {
            encode_body(&(head, user, room), out);
            LEAVE
        }
        Command::Topic { head, user, room, text } => {
            encode_body(&(head, user, room, text), out);
            TOPIC
        }
        Command::Rename { head, user, name } => {
            encode_body(&(head, user, name), out);
            RENAME
        }
        Command::Skip { head, code } => {
            encode_body(&(head, code), out);
            SKIP
        }
        Command::Close { head, user } => {
            encode_body(&(head, user), out);
            CLOSE
        }
        Command::Open {
            name,
            key,
            secret,
            lamport,
        } => {
            encode_body(&(name, key, secret, lamport), out);
            OPEN
        }
        Command::Touch { server, sessions } => {
            encode_body(&(server, sessions), out);
            TOUCH
        }
        Command::Release { session, user } => {
            encode_body(&(session, user), out);
            RELEASE
        }
        Command::Expire { session } => {
            encode_body(session, out);
            EXPIRE
        }
        Command::ForgetKeys => FORGET_KEYS,
        Command::Settings(settings) => {
            encode_body(settings, out);
            SETTINGS
        }
        Command::Trim { index } => {
            encode_body(index, out);
            TRIM
        }
    };
    let length = (out.len() - start - ENVELOPE_BYTES) as u32;
    let envelope = &mut out[start..start + ENVELOPE_BYTES];
    envelope[0..2].copy_from_slice(&kind.to_le_bytes());
    envelope[2..4].copy_from_slice(&VERSION.to_le_bytes());
    envelope[4..8].copy_from_slice(&length.to_le_bytes());
}

/// The command that all of `bytes` is the form of.
///
/// # Errors
/// [`Error::Version`] for a kind or version of a later program, [`Error::Malformed`] for anything else.
pub fn decode(bytes: &[u8]) -> Result<Command<'_>, Error> {
    const LIMIT: usize = 2 * limits::PAYLOAD_BYTES_MAX;
    let Some((envelope, body)) = bytes.split_first_chunk::<ENVELOPE_BYTES>() else {
        return Err(Error::Malformed {
            what: "command",
            why: format!("only {} bytes", bytes.len()),
        });
    };
    let kind = u16::from_le_bytes([envelope[0], envelope[1]]);
    let version = u16::from_le_bytes([envelope[2], envelope[3]]);
    let length = u32::from_le_bytes([envelope[4], envelope[5], envelope[6], envelope[7]]);
    if length as usize != body.len() {
        return Err(Error::Malformed {
            what: "command",
            why: format!("{length} bytes announced, {} there", body.len()),
        });
    }
    if version != VERSION {
        return Err(Error::Version {
            min: version,
            max: version,
        });
    }
    Ok(match kind {
        POST => {
            if let Some(post) = plain_post(body) {
                return Ok(post);
            }
            let (head, room, user, text, dedup): (_, _, &str, &str, _) = decode_body::<_, LIMIT>(body, "post")?;
            Command::Post {
                head,
                room,
                user: user.into(),
                text: text.into(),
                dedup,
            }
        }
        CREATE => {
            let (head, user, room, or_find): (_, &str, _, _) = decode_body::<_, LIMIT>(body, "create")?;
            Command::Create {
                head,
                user: user.into(),
                room,
                or_find,
            }
        }
        JOIN => {
            let (head, user, room): (_, &str, _) = decode_body::<_, LIMIT>(body, "join")?;
            Command::Join {
                head,
                user: user.into(),
                room,
            }
        }
        LEAVE => {
            let (head, user, room): (_, &str, _) = decode_body::<_, LIMIT>(body, "leave")?;
            Command::Leave {
                head,
                user: user.into(),
                room,
            }
        }
        TOPIC => {
            let (head, user, room, text): (_, &str, _, &str) = decode_body::<_, LIMIT>(body, "topic")?;
            Command::Topic {
                head,
                user: user.into(),
                room,
                text: text.into(),
            }
        }
        RENAME => {
            let (head, user, name): (_, &str, _) = decode_body::<_, LIMIT>(body, "rename")?;
            Command::Rename {
                head,
                user: user.into(),
                name,
            }
        }
        SKIP => {
            let (head, code) = decode_body::<_, LIMIT>(body, "skip")?;
            Command::Skip { head, code }
        }
        CLOSE => {
            let (head, user): (_, &str) = decode_body::<_, LIMIT>(body, "close")?;
            Command::Close {
                head,
                user: user.into(),
            }
        }
        OPEN => {
            let (name, key, secret, lamport) = decode_body::<_, LIMIT>(body, "open")?;
            Command::Open {
                name,
                key,
                secret,
                lamport,
            }
        }
        TOUCH => {
            let (server, sessions) = decode_body::<_, LIMIT>(body, "touch")?;
            Command::Touch { server, sessions }
        }
        RELEASE => {
            let (session, user): (_, &str) = decode_body::<_, LIMIT>(body, "release")?;
            Command::Release {
                session,
                user: user.into(),
            }
        }
        EXPIRE => Command::Expire {
            session: decode_body::<_, LIMIT>(body, "expire")?,
        },
        FORGET_KEYS if body.is_empty() => Command::ForgetKeys,
        SETTINGS => Command::Settings(decode_body::<_, LIMIT>(body, "settings")?),
        TRIM => Command::Trim {
            index: decode_body::<_, LIMIT>(body, "trim")?,
        },
        FORGET_KEYS => {
            return Err(Error::Malformed {
                what: "forget",
                why: "it has a body".to_string(),
            });
        }
        other => {
            return Err(Error::Malformed {
                what: "command",
                why: format!("kind {other} is not known here; upgrade"),
            });
        }
    })
}

/// The post in a body, if nothing about it is out of the ordinary: what the deserializer gives, in a tenth of its time. Nearly all
/// commands are posts, and each is decoded several times.
fn plain_post(body: &[u8]) -> Option<Command<'_>> {
    let mut rest = body;
    let head = Head {
        session: SessionId(varint::take(&mut rest)?),
        seq: ClientSeq(varint::take(&mut rest)?),
        unacknowledged: ClientSeq(varint::take(&mut rest)?),
        lamport: Lamport(varint::take(&mut rest)?),
    };
    let room = RoomId(varint::take(&mut rest)?);
    let user = text(&mut rest)?;
    let text = text(&mut rest)?;
    let dedup = match rest {
        [0] => None,
        [1, key @ ..] => Some(DedupKey(key.try_into().ok()?)),
        _ => return None,
    };
    (body.len() <= limits::PAYLOAD_BYTES_MAX).then_some(Command::Post {
        head,
        room,
        user: user.into(),
        text: text.into(),
        dedup,
    })
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(varint::take_bytes(rest)?).ok()
}

/// An entry's payload: the leader's stamp and the command's bytes.
#[must_use]
pub fn payload(stamp: &Stamp, command: &[u8]) -> Blob {
    let mut out = Vec::with_capacity(STAMP_BYTES + command.len());
    payload_into(stamp, command, &mut out);
    Blob::new(&out)
}

/// Appends an entry's payload.
pub fn payload_into(stamp: &Stamp, command: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&stamp.lamport.0.to_le_bytes());
    out.extend_from_slice(&stamp.time_ms.to_le_bytes());
    out.extend_from_slice(&stamp.age_ms.to_le_bytes());
    out.extend_from_slice(command);
}

/// Takes an entry's payload apart.
///
/// # Errors
/// As [`decode`].
pub fn open_payload(payload: &[u8]) -> Result<(Stamp, Command<'_>), Error> {
    let Some((stamp, command)) = payload.split_first_chunk::<STAMP_BYTES>() else {
        return Err(Error::Malformed {
            what: "payload",
            why: format!("only {} bytes", payload.len()),
        });
    };
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&stamp[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let stamp = Stamp {
        lamport: Lamport(number(0)),
        time_ms: number(8),
        age_ms: number(16),
    };
    Ok((stamp, decode(command)?))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::chat::command::{Code, DedupKey, Head, KeyId, Name, SecretHash, Settings};
    use crate::types::{ClientSeq, LogIndex, RoomId, ServerId, SessionId};

    fn head() -> Head {
        Head {
            session: SessionId(300),
            seq: ClientSeq(7),
            unacknowledged: ClientSeq(5),
            lamport: Lamport(70_000),
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text, &text.to_lowercase())
    }

    fn all() -> Vec<Command<'static>> {
        let user = Cow::Borrowed("Ann");
        vec![
            Command::Post {
                head: head(),
                room: RoomId(1),
                user: user.clone(),
                text: "hi".into(),
                dedup: Some(DedupKey([9; 16])),
            },
            Command::Create {
                head: head(),
                user: user.clone(),
                room: name("Ops"),
                or_find: true,
            },
            Command::Join {
                head: head(),
                user: user.clone(),
                room: name("Ops"),
            },
            Command::Leave {
                head: head(),
                user: user.clone(),
                room: RoomId(1),
            },
            Command::Topic {
                head: head(),
                user: user.clone(),
                room: RoomId(1),
                text: "t".into(),
            },
            Command::Rename {
                head: head(),
                user: user.clone(),
                name: name("Bob"),
            },
            Command::Skip {
                head: head(),
                code: Code::EmptyText,
            },
            Command::Close {
                head: head(),
                user: user.clone(),
            },
            Command::Open {
                name: name("Ann"),
                key: KeyId([1; 16]),
                secret: SecretHash([2; 16]),
                lamport: Lamport(3),
            },
            Command::Touch {
                server: ServerId::new("server1").unwrap(),
                sessions: vec![SessionId(300)],
            },
            Command::Release {
                session: SessionId(300),
                user,
            },
            Command::Expire {
                session: SessionId(300),
            },
            Command::ForgetKeys,
            Command::Settings(Settings {
                session_expiry_ms: 86_400_000,
                name_release_ms: 60_000,
            }),
            Command::Trim { index: LogIndex(300) },
        ]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn every_command_comes_back() {
        for command in all() {
            assert_eq!(decode(&encode(&command)), Ok(command));
        }
    }

    #[test]
    fn golden_bytes() {
        // A change here breaks every log that was ever written.
        let golden = [
            "0100010023000000fb2c010705fc701101000103416e6e0268690109090909090909090909090909090909",
            "0200010017000000fb2c010705fc7011010003416e6e034f7073036f707301",
            "0300010016000000fb2c010705fc7011010003416e6e034f7073036f7073",
            "040001000f000000fb2c010705fc7011010003416e6e01",
            "0500010011000000fb2c010705fc7011010003416e6e010174",
            "0600010016000000fb2c010705fc7011010003416e6e03426f6203626f62",
            "070001000b000000fb2c010705fc7011010005",
            "080001000e000000fb2c010705fc7011010003416e6e",
            "100001002900000003416e6e03616e6e010101010101010101010101010101010202020202020202020202020202020203",
            "200001000c000000077365727665723101fb2c01",
            "2100010007000000fb2c0103416e6e",
            "2200010003000000fb2c01",
            "2300010000000000",
            "2400010008000000fc005c2605fb60ea",
            "2800010003000000fb2c01",
        ];
        assert_eq!(golden.len(), all().len());
        for (command, golden) in all().iter().zip(golden) {
            assert_eq!(hex(&encode(command)), golden, "{command:?}");
        }
    }

    #[test]
    fn a_plain_post_is_what_the_deserializer_says() {
        const LIMIT: usize = 2 * limits::PAYLOAD_BYTES_MAX;
        let slowly = |body: &[u8]| {
            let decoded = decode_body::<(Head, RoomId, &str, &str, Option<DedupKey>), LIMIT>(body, "post");
            decoded.map(|(head, room, user, text, dedup)| (head, room, user.to_owned(), text.to_owned(), dedup))
        };
        let mut rng = crate::rng::Rng::new(3);
        let (mut plain, mut odd) = (0, 0);
        for round in 0..30_000 {
            let mut number = || rng.draw() >> rng.below(64);
            let head = Head {
                session: SessionId(number()),
                seq: ClientSeq(number()),
                unacknowledged: ClientSeq(number()),
                lamport: Lamport(number()),
            };
            let room = RoomId(number());
            let post = Command::Post {
                head,
                room,
                user: "Zoë".into(),
                text: "é".repeat(rng.below(200) as usize).into(),
                dedup: rng.chance(30).then_some(DedupKey([round as u8; 16])),
            };
            let mut bytes = encode(&post)[ENVELOPE_BYTES..].to_vec();
            // A third as they are, a third with a byte changed, a third cut.
            match rng.below(3) {
                0 => {}
                1 => {
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] = if rng.chance(50) {
                        248 + rng.below(8) as u8
                    } else {
                        rng.draw() as u8
                    };
                }
                _ => bytes.truncate(rng.below(bytes.len() as u64) as usize),
            }
            match (plain_post(&bytes), slowly(&bytes)) {
                (
                    Some(Command::Post {
                        head,
                        room,
                        user,
                        text,
                        dedup,
                    }),
                    decoded,
                ) => {
                    plain += 1;
                    assert_eq!(
                        Ok((head, room, user.into_owned(), text.into_owned(), dedup)),
                        decoded,
                        "{bytes:?}"
                    );
                }
                (Some(other), _) => panic!("not a post: {other:?}"),
                (None, decoded) => {
                    odd += 1;
                    assert!(decoded.is_err(), "{bytes:?}");
                }
            }
        }
        assert!(plain > 10_000 && odd > 5_000, "{plain} {odd}");
    }

    #[test]
    fn truncated_or_longer_bytes_are_refused() {
        for command in all() {
            let bytes = encode(&command);
            for end in 0..bytes.len() {
                assert!(decode(&bytes[..end]).is_err(), "{command:?} cut to {end}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert!(decode(&longer).is_err());
        }
    }

    #[test]
    fn a_payload_is_stamp_and_command() {
        let stamp = Stamp {
            lamport: Lamport(1),
            time_ms: 2,
            age_ms: 3,
        };
        let bytes = payload(&stamp, &encode(&Command::ForgetKeys));
        assert_eq!(
            hex(&bytes),
            "0100000000000000020000000000000003000000000000002300010000000000"
        );
        assert_eq!(open_payload(&bytes), Ok((stamp, Command::ForgetKeys)));
        assert!(open_payload(&bytes[..20]).is_err());
    }
}
