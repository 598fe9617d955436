//! What people see: lines of text from items, with what others wrote made harmless. Pure.
//!
//! Times are shown in UTC: they are the leader's, and everybody sees the same.

use std::fmt::Write;

use super::time::rfc3339;
use crate::wire::client::{Item, What};

/// `2026-11-20`, of milliseconds since 1970.
#[must_use]
pub fn date(ms: u64) -> String {
    rfc3339(ms).chars().take_while(|&c| c != 'T').collect()
}

/// `13:00:00`, of milliseconds since 1970.
#[must_use]
pub fn time_of_day(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Text of others on one line: what could move the cursor, change colours or the direction of writing is replaced.
#[must_use]
pub fn clean(text: &str) -> String {
    let clean = |c: char| match c {
        '\t' | '\n' | '\u{2028}' | '\u{2029}' => ' ',
        c if harmful(c) => '\u{FFFD}',
        c => c,
    };
    text.chars().map(clean).collect()
}

/// Text of others, which may have several lines; all but the first are indented, so that none can pass for a line of ours.
#[must_use]
pub fn clean_lines(text: &str) -> String {
    let lines: Vec<String> = text.trim_end_matches('\n').split('\n').map(clean).collect();
    lines.join("\n         | ")
}

fn harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// How lines look: with or without colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Escape sequences for colour are wanted.
    pub colour: bool,
}

impl Style {
    /// Colour only at a terminal, and not if the user forbids it (`NO_COLOR`).
    #[must_use]
    pub fn new(terminal: bool, no_colour: Option<&std::ffi::OsStr>) -> Style {
        Style {
            colour: terminal && no_colour.is_none_or(std::ffi::OsStr::is_empty),
        }
    }

    /// A user's name; the same name has the same colour everywhere.
    #[must_use]
    pub fn name(self, user: &str) -> String {
        let user = clean(user);
        if !self.colour {
            return user;
        }
        const COLOURS: [u8; 6] = [36, 32, 33, 35, 34, 31];
        let sum: usize = user.bytes().map(usize::from).sum();
        let colour = COLOURS.get(sum % COLOURS.len()).copied().unwrap_or(36);
        format!("\x1b[1;{colour}m{user}\x1b[0m")
    }

    /// Something that isn't said by anybody.
    #[must_use]
    pub fn faint(self, text: &str) -> String {
        if self.colour {
            format!("\x1b[2m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }

    /// An item as a line, without its end: `13:00:00 ann: text`, or `13:00:00 * ann joined`.
    #[must_use]
    pub fn item(self, item: &Item) -> String {
        let mut line = time_of_day(item.time_ms);
        let name = self.name(&item.user);
        // Writing to a string can't fail.
        let _ = match &item.what {
            What::Message(text) => write!(line, " {name}: {}", clean_lines(text)),
            What::Created => write!(line, " * {name} made the room"),
            What::Joined => write!(line, " * {name} joined"),
            What::Left => write!(line, " * {name} left"),
            What::Topic(text) if text.is_empty() => write!(line, " * {name} cleared the topic"),
            What::Topic(text) => write!(line, " * {name} set the topic: {}", clean(text)),
            What::Renamed(new) => write!(line, " * {name} is now {}", self.name(new)),
        };
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClientSeq, Lamport, Position, RoomId, Seq, SessionId};

    fn item(what: What) -> Item {
        Item {
            room: RoomId(1),
            position: Position(1),
            seq: Seq(1),
            lamport: Lamport(1),
            time_ms: 1_795_179_600_123,
            session: SessionId(1),
            client_seq: ClientSeq(1),
            user: "ann".into(),
            what,
        }
    }

    #[test]
    fn day_and_time_are_those_of_the_stamp() {
        assert_eq!(date(1_795_179_600_123), "2026-11-20");
        assert_eq!(time_of_day(1_795_179_600_123), "13:00:00");
        assert!(!date(u64::MAX).is_empty());
    }

    #[test]
    fn others_cannot_write_on_the_terminal_as_they_like() {
        let plain = Style { colour: false };
        let nasty = "a\x1b[2Jb\u{9b}1mc\u{202E}d\re\u{7}";
        let line = plain.item(&item(What::Message(nasty.into())));
        assert_eq!(line, "13:00:00 ann: a\u{FFFD}[2Jb\u{FFFD}1mc\u{FFFD}d\u{FFFD}e\u{FFFD}");
        let line = plain.item(&item(What::Topic("x\n12:00:00 bob: lie".into())));
        assert!(!line.contains('\n'));
    }

    #[test]
    fn a_second_line_cannot_pass_for_another_message() {
        let plain = Style { colour: false };
        let line = plain.item(&item(What::Message("hi\n13:00:01 bob: I quit".into())));
        assert_eq!(line, "13:00:00 ann: hi\n         | 13:00:01 bob: I quit");
    }

    #[test]
    fn colour_is_for_terminals_whose_user_wants_it() {
        assert!(!Style::new(false, None).colour);
        assert!(Style::new(true, None).colour);
        assert!(!Style::new(true, Some("1".as_ref())).colour);
        assert!(Style::new(true, Some("".as_ref())).colour);
        assert!(Style { colour: true }.name("ann").contains("ann"));
    }
}
