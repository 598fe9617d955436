//! The command line of `syncnet`: the chat itself, and its subcommands `send` and `tail`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Found, Line, Misuse, Opt, Table};
use crate::types::{Seq, Span};

const COMMON: &[Opt] = &[
    Opt::value("server", "HOST:PORT", "a server to try first (repeatable)").or('s'),
    Opt::flag("only", "use no other servers than those"),
    Opt::value(
        "user",
        "NAME",
        "your name (SYNCNET_USER, the client file, your login name)",
    )
    .or('u'),
    Opt::flag("json", "print one JSON object a line"),
    Opt::value(
        "timeout",
        "SECS",
        "how long to wait at most; 0 for ever (60 for send, else for ever)",
    ),
    Opt::value(
        "config",
        "FILE",
        "the client file ($XDG_CONFIG_HOME/syncnet/client.toml)",
    ),
];

const NOTES: &str = "\
Environment: SYNCNET_SERVERS (as -s, separated by commas or spaces), SYNCNET_USER, SYNCNET_KEY_FILE.
Exit codes: 0 all went well, 1 a server refused, 2 misused, 3 no server answers, 4 no quorum, 5 the name is
refused, 6 outcome unknown (sent, not acknowledged in time).";

/// `syncnet` without a subcommand: the chat.
pub static CHAT: Table = Table {
    name: "syncnet",
    summary: "chat; at a terminal a prompt, else each line of stdin is a message",
    usage: &[
        "[OPTIONS] [ROOM]",
        "send [OPTIONS] ROOM [TEXT...]",
        "tail [OPTIONS] ROOM",
    ],
    options: &[COMMON],
    subcommands: &[
        ("send", "send TEXT, or each line of stdin"),
        ("tail", "print the last messages of a room and follow"),
    ],
    notes: NOTES,
    misuse: 2,
};

/// `syncnet send`.
pub static SEND: Table = Table {
    name: "syncnet send",
    summary: "send TEXT, or each line of stdin; ends with 0 only when all are acknowledged",
    usage: &["[OPTIONS] ROOM [TEXT...]"],
    options: &[
        &[
            Opt::value(
                "id",
                "KEY",
                "makes the whole repeatable: the same KEY and line are never posted twice",
            ),
            Opt::flag("no-create", "don't create a missing room"),
        ],
        COMMON,
    ],
    subcommands: &[],
    notes: NOTES,
    misuse: 2,
};

/// `syncnet tail`.
pub static TAIL: Table = Table {
    name: "syncnet tail",
    summary: "print the last 10 messages of a room and follow",
    usage: &["[OPTIONS] ROOM"],
    options: &[
        &[
            Opt::value(
                "after",
                "SEQ",
                "begin after the message of this number; 0 is the beginning",
            ),
            Opt::value("last", "N", "begin with the last N messages (10)"),
            Opt::value("count", "N", "end after N messages"),
            Opt::flag("no-follow", "end after what was committed when it began"),
            Opt::flag("wait", "wait for a missing room"),
            Opt::flag(
                "stale",
                "show what the server has, without asking whether there is newer",
            ),
            Opt::flag("events", "print joins, topics and the like too"),
        ],
        COMMON,
    ],
    subcommands: &[],
    notes: NOTES,
    misuse: 2,
};

/// What `syncnet` was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// What all its subcommands have.
    pub common: Common,
    /// Which subcommand.
    pub command: Command,
}

/// What all subcommands have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// `host:port` of servers to try first.
    pub servers: Vec<String>,
    /// Whether to use no others.
    pub only: bool,
    /// The name, if it was given.
    pub user: Option<String>,
    /// Whether to print JSON.
    pub json: bool,
    /// How long to wait, if it was given; a span of 0 is for ever.
    pub timeout: Option<Span>,
    /// The client file, if it was named.
    pub config: Option<PathBuf>,
}

/// A subcommand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The chat.
    Chat {
        /// The room to begin in.
        room: Option<String>,
    },
    /// Send.
    Send {
        /// The room.
        room: String,
        /// The one message; each line of stdin if `None`.
        text: Option<String>,
        /// The key that makes it repeatable.
        id: Option<String>,
        /// Whether to create a missing room.
        create: bool,
    },
    /// Read.
    Tail {
        /// The room.
        room: String,
        /// Where to begin.
        from: Begin,
        /// How many messages at most.
        count: Option<u64>,
        /// Whether to follow.
        follow: bool,
        /// Whether to wait for a missing room.
        wait: bool,
        /// Whether not to ask for freshness.
        stale: bool,
        /// Whether to print events too.
        events: bool,
    },
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// After the message of this number.
    After(Seq),
    /// With the last so many.
    Last(u32),
}

/// Messages that `tail` begins with if it isn't told.
pub const LAST_DEFAULT: u32 = 10;

/// Reads the arguments, without the program's name.
///
/// # Errors
/// If they can't be used.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Line<Args>, Misuse> {
    let (table, line) = CHAT.walk(args, |table, word| match word {
        "send" if table == &CHAT => Some(&SEND),
        "tail" if table == &CHAT => Some(&TAIL),
        _ => None,
    })?;
    let found = match line {
        Line::Print(text) => return Ok(Line::Print(text)),
        Line::Run(found) => found,
    };
    let common = Common {
        servers: table.servers(&found)?,
        only: found.flag("only"),
        user: found.last("user").map(|value| table.text("user", value)).transpose()?,
        json: found.flag("json"),
        timeout: table.seconds(&found, "timeout")?,
        config: found.last("config").map(PathBuf::from),
    };
    let command = if table == &SEND {
        send(table, &found)?
    } else if table == &TAIL {
        tail(table, &found)?
    } else {
        let mut rest = words(table, &found)?.into_iter();
        let room = rest.next();
        table.no_more(rest.map(OsString::from))?;
        Command::Chat { room }
    };
    Ok(Line::Run(Args { common, command }))
}

fn words(table: &Table, found: &Found) -> Result<Vec<String>, Misuse> {
    let words = found.rest.iter().map(|word| {
        let text = word.to_str().map(str::to_string);
        text.ok_or_else(|| table.misuse(format!("{word:?} isn't UTF-8")))
    });
    words.collect()
}

fn send(table: &Table, found: &Found) -> Result<Command, Misuse> {
    let mut rest = words(table, found)?.into_iter();
    let room = rest.next().ok_or_else(|| table.misuse("ROOM is missing"))?;
    let text: Vec<String> = rest.collect();
    let id = found.last("id").map(|value| table.text("id", value)).transpose()?;
    if id.as_deref() == Some("") {
        return Err(table.misuse("--id \"\" is empty, and would be the same key for everything"));
    }
    Ok(Command::Send {
        room,
        text: (!text.is_empty()).then(|| text.join(" ")),
        id,
        create: !found.flag("no-create"),
    })
}

fn tail(table: &Table, found: &Found) -> Result<Command, Misuse> {
    let mut rest = words(table, found)?.into_iter();
    let room = rest.next().ok_or_else(|| table.misuse("ROOM is missing"))?;
    table.no_more(rest.map(OsString::from))?;
    let from = match (table.number(found, "after")?, table.number(found, "last")?) {
        (Some(_), Some(_)) => return Err(table.misuse("--after and --last both say where to begin; give one of them")),
        (Some(seq), None) => Begin::After(Seq(seq)),
        (None, last) => {
            let last = last.unwrap_or(u64::from(LAST_DEFAULT));
            // More than there can be of is all of them.
            Begin::Last(u32::try_from(last).unwrap_or(u32::MAX))
        }
    };
    Ok(Command::Tail {
        room,
        from,
        count: table.number(found, "count")?,
        follow: !found.flag("no-follow"),
        wait: found.flag("wait"),
        stale: found.flag("stale"),
        events: found.flag("events"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Args {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Line::Run(args)) => args,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn misuse(line: &str) -> String {
        match parse(line.split_whitespace().map(OsString::from)) {
            Err(misuse) if misuse.code == 2 => misuse.text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_chat_takes_a_room() {
        assert_eq!(run("").command, Command::Chat { room: None });
        assert_eq!(
            run("ops").command,
            Command::Chat {
                room: Some("ops".to_string())
            }
        );
        assert!(misuse("ops dev").contains("\"dev\""));
    }

    #[test]
    fn all_common_options_arrive_before_and_behind_the_subcommand() {
        let options = "-s a:1 --server b:2 --only -u ann --json --timeout 1.5 --config f";
        let common = Common {
            servers: vec!["a:1".to_string(), "b:2".to_string()],
            only: true,
            user: Some("ann".to_string()),
            json: true,
            timeout: Some(Span::from_ms(1500)),
            config: Some("f".into()),
        };
        for line in [
            options.to_string(),
            format!("send {options} ops"),
            format!("{options} send ops"),
            format!("tail ops {options}"),
        ] {
            assert_eq!(run(&line).common, common, "{line}");
        }
    }

    #[test]
    fn send_joins_its_words() {
        let send = |text: Option<&str>, id: Option<&str>, create| Command::Send {
            room: "ops".to_string(),
            text: text.map(str::to_string),
            id: id.map(str::to_string),
            create,
        };
        assert_eq!(run("send ops").command, send(None, None, true));
        assert_eq!(
            run("send ops disk is full").command,
            send(Some("disk is full"), None, true)
        );
        assert_eq!(
            run("send ops -- --help me").command,
            send(Some("--help me"), None, true)
        );
        assert_eq!(
            run("send --id k --no-create ops x").command,
            send(Some("x"), Some("k"), false)
        );
        assert_eq!(run("send ops send").command, send(Some("send"), None, true));
        assert!(misuse("send").contains("ROOM is missing; see syncnet send --help"));
        assert!(misuse("send --id= ops x").contains("--id"));
        assert!(misuse("send --after 1 ops").contains("--after"));
    }

    #[test]
    fn tail_knows_where_to_begin() {
        let tail = |from, count, follow, wait, stale, events| Command::Tail {
            room: "ops".to_string(),
            from,
            count,
            follow,
            wait,
            stale,
            events,
        };
        assert_eq!(
            run("tail ops").command,
            tail(Begin::Last(10), None, true, false, false, false)
        );
        assert_eq!(
            run("tail ops --after 0 --count 5 --no-follow --wait --stale --events").command,
            tail(Begin::After(Seq(0)), Some(5), false, true, true, true)
        );
        assert_eq!(
            run("tail ops --last 99999999999").command,
            tail(Begin::Last(u32::MAX), None, true, false, false, false)
        );
        assert!(misuse("tail ops --after 1 --last 2").contains("--after and --last"));
        assert!(misuse("tail ops --last -1").contains("--last"));
        assert!(misuse("tail ops more").contains("\"more\""));
        assert!(misuse("--after 1 tail").contains("--after"));
    }

    #[test]
    fn what_is_misspelt_is_named() {
        assert!(misuse("--tiemout 3").contains("did you mean --timeout?"));
        assert!(misuse("-s localhost").contains("\"localhost\""));
        assert!(misuse("--timeout soon").contains("\"soon\""));
        assert!(misuse("--timeout -1").contains("--timeout"));
        assert!(misuse("--timeout nan").contains("--timeout"));
    }

    #[test]
    fn each_subcommand_has_its_help() {
        for (line, what) in [
            ("--help", "syncnet tail [OPTIONS] ROOM"),
            ("send -h", "--no-create"),
            ("tail --help", "--no-follow"),
        ] {
            let Ok(Line::Print(help)) = parse(line.split(' ').map(OsString::from)) else {
                panic!("{line}")
            };
            assert!(help.contains(what), "{help}");
        }
    }
}
