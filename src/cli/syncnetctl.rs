//! The command line of `syncnetctl`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::bench::{self, Bench};
use super::{Line, Misuse, Opt, Table};
use crate::types::{LogIndex, Span};

pub(super) const COMMON: &[Opt] = &[
    Opt::value(
        "server",
        "HOST:PORT",
        "a server to ask; the first to answer names the others (repeatable)",
    )
    .or('s'),
    Opt::value("timeout", "SECS", "how long to wait for a server's answer (3)"),
];

/// `syncnetctl` without a subcommand, which is a misuse.
pub static MAIN: Table = Table {
    name: "syncnetctl",
    summary: "watch over a SyncNet cluster",
    usage: &[
        "status [OPTIONS]",
        "watch [OPTIONS]",
        "log verify|dump [OPTIONS] DIR",
        "bench publish|fanout|failover|idle [OPTIONS]",
    ],
    options: &[COMMON],
    subcommands: &[
        ("status", "say how the servers are, once"),
        ("watch", "say it again and again"),
        ("log", "look at a server's data directory"),
        ("bench", "measure the cluster"),
    ],
    notes: "Environment: SYNCNET_SERVERS (as -s, separated by commas or spaces).",
    misuse: 2,
};

/// `syncnetctl status`.
pub static STATUS: Table = Table {
    name: "syncnetctl status",
    summary: "say how the servers are",
    usage: &["[--json | --simple] [OPTIONS]"],
    options: &[
        &[
            Opt::flag("json", "print one JSON object"),
            Opt::flag("simple", "print a line a server; the exit code is the verdict"),
        ],
        COMMON,
    ],
    subcommands: &[],
    notes: "Exit codes: 0 healthy, 1 degraded, 2 no quorum, 3 can't tell (no server answers) or misused.",
    // As monitoring plug-ins have it: 2 would be an alarm.
    misuse: 3,
};

/// `syncnetctl watch`.
pub static WATCH: Table = Table {
    name: "syncnetctl watch",
    summary: "say how the servers are, again and again; ends with Ctrl-C",
    usage: &["[OPTIONS]"],
    options: &[&[Opt::value("interval", "SECS", "how often (5)").or('i')], COMMON],
    subcommands: &[],
    notes: "At a terminal the table is drawn anew in its place; else each change is a line.",
    misuse: 2,
};

const AS_JSON: Opt = Opt::flag("json", "print a JSON object a line");

/// `syncnetctl log` without a subcommand, which is a misuse.
pub static LOG: Table = Table {
    name: "syncnetctl log",
    summary: "look at a server's data directory, and change nothing in it",
    usage: &["verify [--json] DIR", "dump [--json] [--from INDEX] [--to INDEX] DIR"],
    options: &[],
    subcommands: &[
        ("verify", "say whether all that is in it is whole"),
        ("dump", "show every record of the log"),
    ],
    notes: "",
    misuse: 2,
};

/// `syncnetctl log verify`.
pub static VERIFY: Table = Table {
    name: "syncnetctl log verify",
    summary: "say whether all that is in a server's data directory is whole",
    usage: &["[--json] DIR"],
    options: &[&[AS_JSON]],
    subcommands: &[],
    notes: "Exit codes: 0 whole, 1 something is damaged, 2 misused, 3 something can't be read.",
    misuse: 2,
};

/// `syncnetctl log dump`.
pub static DUMP: Table = Table {
    name: "syncnetctl log dump",
    summary: "show every record of the log in a server's data directory",
    usage: &["[--json] [--from INDEX] [--to INDEX] DIR"],
    options: &[&[
        AS_JSON,
        Opt::value("from", "INDEX", "the first entry; other records aren't shown then"),
        Opt::value("to", "INDEX", "the last entry; other records aren't shown then"),
    ]],
    subcommands: &[],
    notes: "Exit codes: 0 shown, damaged places too, 1 the identity is damaged, 2 misused, 3 can't be read.",
    misuse: 2,
};

/// What `syncnetctl` was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    /// `host:port` of servers to ask.
    pub servers: Vec<String>,
    /// How long to wait for a server's answer.
    pub timeout: Span,
    /// Which subcommand.
    pub command: Command,
}

/// A subcommand.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Once.
    Status {
        /// In which form.
        form: Form,
    },
    /// Again and again.
    Watch {
        /// How often.
        interval: Span,
    },
    /// Is a data directory whole?
    Verify {
        /// Which.
        directory: PathBuf,
        /// As JSON.
        json: bool,
    },
    /// What is in its log?
    Dump {
        /// Of which.
        directory: PathBuf,
        /// As JSON.
        json: bool,
        /// The first entry that is wanted.
        from: Option<LogIndex>,
        /// The last.
        to: Option<LogIndex>,
    },
    /// How much does it do, and what does that cost?
    Bench(Bench),
}

/// In which form a status is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// In one line.
    Simple,
}

const TIMEOUT_DEFAULT: Span = Span::from_ms(3_000);
const INTERVAL_DEFAULT: Span = Span::from_ms(5_000);

/// Reads the arguments, without the program's name.
///
/// # Errors
/// If they can't be used.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Line<Args>, Misuse> {
    let (table, line) = MAIN.walk(args, |table, word| match word {
        "status" if table == &MAIN => Some(&STATUS),
        "watch" if table == &MAIN => Some(&WATCH),
        "log" if table == &MAIN => Some(&LOG),
        "verify" if table == &LOG => Some(&VERIFY),
        "dump" if table == &LOG => Some(&DUMP),
        "bench" if table == &MAIN => Some(&bench::BENCH),
        "publish" if table == &bench::BENCH => Some(&bench::PUBLISH),
        "fanout" if table == &bench::BENCH => Some(&bench::FANOUT),
        "failover" if table == &bench::BENCH => Some(&bench::FAILOVER),
        "idle" if table == &bench::BENCH => Some(&bench::IDLE),
        _ => None,
    })?;
    let mut found = match line {
        Line::Print(text) => return Ok(Line::Print(text)),
        Line::Run(found) => found,
    };
    let mut rest = std::mem::take(&mut found.rest).into_iter();
    let positive = |long, default| match table.seconds(&found, long)? {
        Some(Span(0)) => Err(table.misuse(format!("--{long} 0 must be more than 0"))),
        span => Ok(span.unwrap_or(default)),
    };
    let number = |long| Ok(table.number(&found, long)?.map(LogIndex));
    let command = if table == &STATUS {
        let form = match (found.flag("json"), found.flag("simple")) {
            (true, true) => return Err(table.misuse("--json and --simple are two forms; give one of them")),
            (true, false) => Form::Json,
            (false, true) => Form::Simple,
            (false, false) => Form::Table,
        };
        Command::Status { form }
    } else if table == &WATCH {
        Command::Watch {
            interval: positive("interval", INTERVAL_DEFAULT)?,
        }
    } else if table == &VERIFY || table == &DUMP {
        let (from, to) = (number("from")?, number("to")?);
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(table.misuse("--from is behind --to"));
        }
        let directory = rest.next().map(PathBuf::from);
        let directory = directory.ok_or_else(|| table.misuse("name the data directory of a server"))?;
        let json = found.flag("json");
        if table == &VERIFY {
            Command::Verify { directory, json }
        } else {
            Command::Dump {
                directory,
                json,
                from,
                to,
            }
        }
    } else if table != &MAIN && table != &LOG && table != &bench::BENCH {
        Command::Bench(bench::parse(table, &found)?)
    } else {
        let words: Vec<&str> = table.subcommands.iter().map(|(name, _)| *name).collect();
        let (last, before) = words.split_last().unwrap_or((&"", &[]));
        let choice = |and: &str| format!("{} {and} {last}", before.join(", "));
        return Err(match rest.next() {
            Some(word) => table.misuse(format!("there is no command {word:?}; there are {}", choice("and"))),
            None => table.misuse(format!("say what to do: {}", choice("or"))),
        });
    };
    let args = Args {
        servers: table.servers(&found)?,
        timeout: positive("timeout", TIMEOUT_DEFAULT)?,
        command,
    };
    table.no_more(rest)?;
    Ok(Line::Run(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Line<Args>, Misuse> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn args(servers: &[&str], timeout_ms: u64, command: Command) -> Result<Line<Args>, Misuse> {
        Ok(Line::Run(Args {
            servers: servers.iter().map(|s| (*s).to_string()).collect(),
            timeout: Span::from_ms(timeout_ms),
            command,
        }))
    }

    #[test]
    fn all_options_arrive() {
        let form = Form::Table;
        assert_eq!(run("status"), args(&[], 3000, Command::Status { form }));
        let form = Form::Json;
        let line = "status --json -s a:1 -s b:2 --timeout 0.5";
        assert_eq!(run(line), args(&["a:1", "b:2"], 500, Command::Status { form }));
        let form = Form::Simple;
        assert_eq!(
            run("-s a:1 status --simple"),
            args(&["a:1"], 3000, Command::Status { form })
        );
        let interval = Span::from_ms(5000);
        assert_eq!(run("watch"), args(&[], 3000, Command::Watch { interval }));
        let interval = Span::from_ms(200);
        assert_eq!(run("watch -i 0.2"), args(&[], 3000, Command::Watch { interval }));
        let (directory, json) = (PathBuf::from("data/server1"), true);
        let command = Command::Verify { directory, json };
        assert_eq!(run("log verify data/server1 --json"), args(&[], 3000, command));
        let command = Command::Dump {
            directory: "log".into(),
            json: false,
            from: Some(LogIndex(3)),
            to: None,
        };
        assert_eq!(run("log dump log --from 3"), args(&[], 3000, command));
    }

    #[test]
    fn a_misused_status_is_no_alarm() {
        for (line, code) in [
            ("status --jsn", 3),
            ("status --json --simple", 3),
            ("status more", 3),
            ("status --timeout 0", 3),
            ("status -s nowhere", 3),
            ("watch -i 0", 2),
            ("watch --json", 2),
            ("", 2),
            ("stauts", 2),
            ("log", 2),
            ("log verfy data", 2),
            ("log verify", 2),
            ("log verify data more", 2),
            ("log verify --from 1 data", 2),
            ("log verify -s a:1 data", 2),
            ("log dump --from x data", 2),
            ("log dump --from 2 --to 1 data", 2),
            ("verify data", 2),
        ] {
            assert_eq!(run(line).map_err(|misuse| misuse.code), Err(code), "{line}");
        }
    }
}
