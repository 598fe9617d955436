//! Every record of a log in words, in the order in which they stand.

use super::Offline;
use super::fields::{Fields, Value};
use crate::chat::command::{Command, Head};
use crate::cluster::members::decode_members;
use crate::cluster::message::{EntryKind, LogPosition};
use crate::log::HardState;
use crate::log::disk::Disk;
use crate::log::inspect::{Seen, inspect_one};
use crate::log::payload;
use crate::log::record::{Header, Kind};
use crate::log::recovery::OpenError;
use crate::log::segment::{Segment, file_name};
use crate::types::{LogIndex, Lsn};
use crate::wire::command::open_payload;

/// Which entries are wanted; all records if neither is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Range {
    /// The first.
    pub from: Option<LogIndex>,
    /// The last.
    pub to: Option<LogIndex>,
}

impl Range {
    /// Whether a record is wanted. With a range these are entries alone: nothing else has an index of its own.
    fn holds(&self, header: &Header) -> bool {
        let all = self.from.is_none() && self.to.is_none();
        let after = self.from.is_none_or(|from| header.index >= from);
        let before = self.to.is_none_or(|to| header.index <= to);
        all || (matches!(header.kind, Kind::Entry | Kind::Fill) && after && before)
    }
}

/// Shows what stands in the log, in order, until `show` says no. Places that hold no good record are shown whatever the range, as what is
/// wanted may stand there.
///
/// # Errors
/// If the folder of the log can't be read. A file that can't be read is shown in its place.
pub fn dump<D: Disk>(
    offline: &Offline<D>,
    range: &Range,
    show: &mut dyn FnMut(&Fields) -> bool,
) -> Result<(), OpenError> {
    let mut end = None;
    for segment in offline.segments()? {
        if let Some(end) = end.filter(|&end| end != segment.base)
            && !show(&missing(end, segment.base))
        {
            return Ok(());
        }
        end = Some(segment.end());
        let (mut more, mut at) = (true, 0);
        let visited = inspect_one(&offline.disk, offline.identity.directory, segment, &mut |seen| {
            let row = match seen {
                Seen::Record(_, offset, header, payload) => {
                    at = offset;
                    range.holds(&header).then(|| record(segment, offset, &header, payload))
                }
                Seen::Damaged(_, offset, bytes, header) => {
                    at = offset;
                    Some(damaged(segment, offset, bytes, header.as_ref()))
                }
                Seen::Newer(_, offset) => Some(place(segment, offset, "newer")),
                Seen::Segment(_) | Seen::Missing(..) | Seen::End(..) => None,
            };
            more = row.is_none_or(|row| show(&row));
            more
        });
        if let Err(error) = visited {
            more = show(&place(segment, at, "unreadable").text("error", error.to_string()));
        }
        if !more {
            return Ok(());
        }
    }
    Ok(())
}

fn place(segment: Segment, offset: u64, kind: &str) -> Fields {
    Fields::new()
        .number("lsn", segment.base.0 + offset)
        .text("file", segment.file())
        .number("offset", offset)
        .text("kind", kind)
}

fn missing(from: Lsn, to: Lsn) -> Fields {
    Fields::new()
        .number("lsn", from.0)
        .text("file", file_name(from))
        .number("offset", 0)
        .text("kind", "missing")
        .number("bytes", to.0.saturating_sub(from.0))
}

fn damaged(segment: Segment, offset: u64, bytes: u64, header: Option<&Header>) -> Fields {
    let fields = place(segment, offset, "damaged").number("bytes", bytes);
    match header {
        // The header has a check of its own: what it says can be trusted.
        Some(header) => fields.text("was", kind_name(header.kind)).and(placed(header)),
        None => fields,
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Head => "head",
        Kind::State => "state",
        Kind::Entry => "entry",
        Kind::Seal => "seal",
        Kind::Fill => "fill",
    }
}

/// What the header says, but for the kind.
fn placed(header: &Header) -> Fields {
    let fields = match header.kind {
        Kind::Head | Kind::Seal => Fields::new(),
        Kind::State | Kind::Entry | Kind::Fill => Fields::new()
            .number("group", u64::from(header.group.0))
            .number("index", header.index.0)
            .number("term", header.term.0)
            .hex("chain", &header.chain.to_be_bytes()),
    };
    fields.number("batch", header.batch).number("synced", header.synced.0)
}

fn record(segment: Segment, offset: u64, header: &Header, payload: &[u8]) -> Fields {
    let fields = place(segment, offset, kind_name(header.kind))
        .and(placed(header))
        .number("bytes", payload.len() as u64);
    let said = match header.kind {
        Kind::Head => payload::decode_head(payload).map(|head| {
            let groups = head.groups.iter().map(|group| {
                group_fields(u64::from(group.group.0), &group.state, group.last, group.chain)
                    .number("members_entries", group.members.len() as u64)
                    .with("anew", Value::Flag(group.anew))
            });
            Fields::new()
                .number("segment_size", head.segment_size)
                .number("previous_end", head.previous_end.0)
                .with("groups", Value::Rows(groups.collect()))
        }),
        Kind::Seal => payload::decode_seal(payload).map(|groups| {
            let groups = groups
                .iter()
                .map(|group| group_fields(u64::from(group.group.0), &group.state, group.last, group.chain));
            Fields::new().with("groups", Value::Rows(groups.collect()))
        }),
        Kind::State => payload::decode_state(payload).map(|state| hard_state(Fields::new(), &state)),
        Kind::Entry | Kind::Fill => Some(entry(header.entry_kind, payload)),
    };
    let unknown = || Fields::new().text("error", "the payload makes no sense, though its check is right");
    fields.and(said.unwrap_or_else(unknown))
}

fn group_fields(group: u64, state: &HardState, last: LogPosition, chain: u32) -> Fields {
    let fields = Fields::new()
        .number("group", group)
        .number("last_index", last.index.0)
        .number("last_term", last.term.0)
        .hex("chain", &chain.to_be_bytes());
    hard_state(fields, state)
}

/// `state_term`, as a record of a state has also the term of the last entry.
pub(super) fn hard_state(fields: Fields, state: &HardState) -> Fields {
    let fields = fields.number("state_term", state.term.0);
    let fields = match &state.vote {
        Some((server, directory)) => fields
            .text("vote", server.as_str())
            .hex("vote_directory", &directory.0.to_be_bytes()),
        None => fields.text("vote", "-"),
    };
    fields.number("commit", state.commit.0)
}

fn entry(kind: EntryKind, payload: &[u8]) -> Fields {
    match kind {
        EntryKind::Noop => Fields::new().text("entry", "noop"),
        EntryKind::Members => {
            let fields = Fields::new().text("entry", "members");
            match decode_members(payload) {
                Some(members) => {
                    let rows = members.members.iter().map(|member| {
                        Fields::new()
                            .text("id", member.id.as_str())
                            .number("ring_position", u64::from(member.ring.0))
                            .hex("directory", &member.directory.0.to_be_bytes())
                    });
                    fields
                        .hex("cluster", &members.cluster.0.to_be_bytes())
                        .with("members", Value::Rows(rows.collect()))
                }
                None => fields.text("error", "the members can't be read"),
            }
        }
        EntryKind::Command => match open_payload(payload) {
            Ok((stamp, said)) => command(&said)
                .number("lamport", stamp.lamport.0)
                .number("time_ms", stamp.time_ms)
                .number("age_ms", stamp.age_ms),
            Err(error) => Fields::new().text("entry", "command").text("error", error.to_string()),
        },
    }
}

/// A command in words. The hash of a session's secret isn't shown: it is nobody's business.
fn command(command: &Command) -> Fields {
    let of = |name: &str| Fields::new().text("entry", name);
    let from = |name: &str, head: &Head| of(name).number("session", head.session.0).number("seq", head.seq.0);
    match command {
        Command::Post {
            head,
            room,
            user,
            text,
            dedup,
        } => {
            let fields = from("post", head)
                .text("user", &**user)
                .number("room", room.0)
                .text("text", &**text);
            match dedup {
                Some(dedup) => fields.hex("dedup", &dedup.0),
                None => fields,
            }
        }
        Command::Create {
            head,
            user,
            room,
            or_find,
        } => from("create", head)
            .text("user", &**user)
            .text("room_name", &*room.shown)
            .with("or_find", Value::Flag(*or_find)),
        Command::Join { head, user, room } => from("join", head).text("user", &**user).text("room_name", &*room.shown),
        Command::Leave { head, user, room } => from("leave", head).text("user", &**user).number("room", room.0),
        Command::Topic { head, user, room, text } => from("topic", head)
            .text("user", &**user)
            .number("room", room.0)
            .text("text", &**text),
        Command::Rename { head, user, name } => from("rename", head).text("user", &**user).text("name", &*name.shown),
        Command::Skip { head, code } => from("skip", head).text("code", code.name()),
        Command::Close { head, user } => from("close", head).text("user", &**user),
        Command::Open { name, key, .. } => of("open").text("name", &*name.shown).hex("key", &key.0),
        Command::Touch { server, sessions } => {
            let sessions = sessions
                .iter()
                .map(|session| Fields::new().number("session", session.0));
            of("touch")
                .text("server", server.as_str())
                .with("sessions", Value::Rows(sessions.collect()))
        }
        Command::Release { session, user } => of("release").number("session", session.0).text("user", &**user),
        Command::Expire { session } => of("expire").number("session", session.0),
        Command::ForgetKeys => of("forget-keys"),
        Command::Settings(settings) => of("settings")
            .number("session_expiry_ms", settings.session_expiry_ms)
            .number("name_release_ms", settings.name_release_ms),
        Command::Trim { index } => of("trim").number("trimmed", index.0),
    }
}
