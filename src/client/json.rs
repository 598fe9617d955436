//! The JSON that `send` and `tail` print: one object a line, keys in a fixed order.

use serde::Serialize;

use super::time::rfc3339;
use crate::types::{Lamport, Seq};
use crate::wire::client::{Item, What};

/// A message of `send` was acknowledged.
#[must_use]
pub fn sent(line: u64, room: &str, seq: Seq, lamport: Lamport) -> String {
    #[derive(Serialize)]
    struct Sent<'a> {
        line: u64,
        room: &'a str,
        seq: Seq,
        lamport: Lamport,
    }
    text(&Sent {
        line,
        room,
        seq,
        lamport,
    })
}

/// A line of `send` was refused.
#[must_use]
pub fn refused(line: u64, room: &str, error: &str, message: &str) -> String {
    #[derive(Serialize)]
    struct Refused<'a> {
        line: u64,
        room: &'a str,
        error: &'a str,
        message: &'a str,
    }
    text(&Refused {
        line,
        room,
        error,
        message,
    })
}

/// An item that `tail` shows.
#[must_use]
pub fn item(room: &str, item: &Item) -> String {
    #[derive(Serialize)]
    struct Message<'a> {
        room: &'a str,
        seq: Seq,
        lamport: Lamport,
        time: String,
        user: &'a str,
        text: &'a str,
    }
    #[derive(Serialize)]
    struct Event<'a> {
        room: &'a str,
        event: &'a str,
        user: &'a str,
        time: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'a str>,
    }
    let time = rfc3339(item.time_ms);
    let (event, topic, name) = match &item.what {
        What::Message(said) => {
            return text(&Message {
                room,
                seq: item.seq,
                lamport: item.lamport,
                time,
                user: &item.user,
                text: said,
            });
        }
        What::Created => ("create", None, None),
        What::Joined => ("join", None, None),
        What::Left => ("leave", None, None),
        What::Topic(topic) => ("topic", Some(topic.as_str()), None),
        What::Renamed(name) => ("rename", None, Some(name.as_str())),
    };
    text(&Event {
        room,
        event,
        user: &item.user,
        time,
        topic,
        name,
    })
}

/// Messages that are gone, from the first to the last.
#[must_use]
pub fn gap(room: &str, from: Seq, to: Seq) -> String {
    #[derive(Serialize)]
    struct Range {
        from: Seq,
        to: Seq,
    }
    #[derive(Serialize)]
    struct Gap<'a> {
        room: &'a str,
        gap: Range,
    }
    text(&Gap {
        room,
        gap: Range { from, to },
    })
}

fn text<T: Serialize>(value: &T) -> String {
    // Numbers and strings of ours always have a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClientSeq, Position, RoomId, SessionId};

    fn made(what: What) -> Item {
        Item {
            room: RoomId(1),
            position: Position(3),
            seq: Seq(12),
            lamport: Lamport(40),
            time_ms: 1_795_179_600_123,
            session: SessionId(1),
            client_seq: ClientSeq(1),
            user: "ann".into(),
            what,
        }
    }

    #[test]
    fn the_shapes_are_those_that_scripts_rely_on() {
        assert_eq!(
            sent(1, "ops", Seq(12), Lamport(40)),
            r#"{"line":1,"room":"ops","seq":12,"lamport":40}"#
        );
        assert_eq!(
            refused(2, "ops", "text_too_long", "too long"),
            r#"{"line":2,"room":"ops","error":"text_too_long","message":"too long"}"#
        );
        assert_eq!(
            item("ops", &made(What::Message("a \"b\"\n\u{1b}".into()))),
            r#"{"room":"ops","seq":12,"lamport":40,"time":"2026-11-20T13:00:00.123Z","user":"ann","text":"a \"b\"\n\u001b"}"#
        );
        assert_eq!(
            item("ops", &made(What::Joined)),
            r#"{"room":"ops","event":"join","user":"ann","time":"2026-11-20T13:00:00.123Z"}"#
        );
        assert_eq!(
            item("ops", &made(What::Topic("x".into()))),
            r#"{"room":"ops","event":"topic","user":"ann","time":"2026-11-20T13:00:00.123Z","topic":"x"}"#
        );
        assert_eq!(
            gap("ops", Seq(1), Seq(500)),
            r#"{"room":"ops","gap":{"from":1,"to":500}}"#
        );
    }
}
