//! The command line of `syncnetctl bench`.

use super::syncnetctl::COMMON;
use super::{Found, Misuse, Opt, Table};
use crate::limits;
use crate::types::Span;

const JSON: Opt = Opt::flag("json", "print one JSON object");
const PIN: Opt = Opt::value(
    "pin",
    "LIST",
    "run the load generator on these processors only, such as 0,2",
);
const SIZE: Opt = Opt::value("size", "BYTES", "bytes of a message (128)");
const SECONDS: Opt = Opt::value("seconds", "SECS", "how long (10)");
const RATE: Opt = Opt::value("rate", "N", "so many messages a second, whatever the servers do");
const CODES: &str =
    "Exit codes: 0 measured, 1 something was lost, repeated or refused, 2 misused, 3 no server answers.";

/// `syncnetctl bench` without a subcommand, which is a misuse.
pub static BENCH: Table = Table {
    name: "syncnetctl bench",
    summary: "measure a cluster: put load on it, and say what it did and what it cost",
    usage: &[
        "publish [OPTIONS]",
        "fanout [OPTIONS]",
        "failover [OPTIONS]",
        "idle [OPTIONS]",
    ],
    options: &[],
    subcommands: &[
        ("publish", "post messages: rate, latency, processor time"),
        ("fanout", "post to many readers of a room"),
        (
            "failover",
            "how long acknowledgements are missing when the leader is lost",
        ),
        ("idle", "what connections cost that do nothing"),
    ],
    notes: "Messages go to rooms named bench-…, and stay in the log like any others.",
    misuse: 2,
};

/// `syncnetctl bench publish`.
pub static PUBLISH: Table = Table {
    name: "syncnetctl bench publish",
    summary: "post messages, each for one that was acknowledged or at a rate",
    usage: &["[OPTIONS]"],
    options: &[
        &[
            Opt::value("connections", "N", "how many, each with a session (4)"),
            Opt::value(
                "in-flight",
                "N",
                "messages unacknowledged at once, on all of them together (64)",
            ),
            SIZE,
            Opt::value("rooms", "N", "rooms that are posted to in turn (1)"),
            RATE,
            SECONDS,
            Opt::value("count", "N", "stop after so many messages instead"),
            PIN,
            JSON,
        ],
        COMMON,
    ],
    subcommands: &[],
    notes: CODES,
    misuse: 2,
};

/// `syncnetctl bench fanout`.
pub static FANOUT: Table = Table {
    name: "syncnetctl bench fanout",
    summary: "post to a room with many readers, as fast as all have read or at a rate",
    usage: &["[OPTIONS]"],
    options: &[
        &[
            Opt::value(
                "readers",
                "N",
                "connections that follow the room, spread over the servers (100)",
            ),
            Opt::value(
                "outstanding",
                "N",
                "messages at once that haven't reached every reader (64)",
            ),
            SIZE,
            RATE,
            SECONDS,
            PIN,
            JSON,
        ],
        COMMON,
    ],
    subcommands: &[],
    notes: CODES,
    misuse: 2,
};

/// `syncnetctl bench failover`.
pub static FAILOVER: Table = Table {
    name: "syncnetctl bench failover",
    summary: "how long acknowledgements stay away when a leader fails",
    usage: &[
        "[--runs N] [--hang] [--at-leader] [OPTIONS]",
        "-s HOST:PORT [--seconds SECS] [OPTIONS]",
    ],
    options: &[
        &[
            Opt::value("runs", "N", "how often the leader is lost (10)"),
            Opt::flag("hang", "stop the leader (SIGSTOP) instead of killing it"),
            Opt::flag(
                "at-leader",
                "connect to the server that is lost, so that the client loses its own",
            ),
            RATE_FAILOVER,
            Opt::value("seconds", "SECS", "with -s: how long to watch; without it until Ctrl-C"),
            PIN,
            JSON,
        ],
        COMMON,
    ],
    subcommands: &[],
    notes: CODES,
    misuse: 2,
};
const RATE_FAILOVER: Opt = Opt::value("rate", "N", "messages a second (500)");

/// `syncnetctl bench idle`.
pub static IDLE: Table = Table {
    name: "syncnetctl bench idle",
    summary: "what connections cost that are in a room and do nothing",
    usage: &["[OPTIONS]"],
    options: &[
        &[
            Opt::value("connections", "N", "how many, spread over the servers (1000)"),
            Opt::value("seconds", "SECS", "how long to look at them (5)"),
            PIN,
            JSON,
        ],
        COMMON,
    ],
    subcommands: &[],
    notes: CODES,
    misuse: 2,
};

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Bench {
    /// Which load.
    pub kind: Kind,
    /// The processors to run on; all if `None`.
    pub pin: Option<Vec<u16>>,
    /// As JSON.
    pub json: bool,
}

/// Which load.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Messages.
    Publish(Publish),
    /// One writer, many readers.
    Fanout(Fanout),
    /// A leader that is lost.
    Failover(Failover),
    /// Connections that do nothing.
    Idle(Idle),
}

/// Messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// On so many connections.
    pub connections: usize,
    /// So many unacknowledged, on all together.
    pub in_flight: usize,
    /// Bytes of each.
    pub size: usize,
    /// To so many rooms.
    pub rooms: usize,
    /// A second; as many as are acknowledged if `None`.
    pub rate: Option<f64>,
    /// For so long.
    pub seconds: Option<Span>,
    /// So many.
    pub count: Option<u64>,
}

/// One writer, many readers.
#[derive(Clone, Debug, PartialEq)]
pub struct Fanout {
    /// So many readers.
    pub readers: usize,
    /// So many messages that haven't reached all of them.
    pub outstanding: u64,
    /// Bytes of each.
    pub size: usize,
    /// A second; as many as reach all if `None`.
    pub rate: Option<f64>,
    /// For so long.
    pub seconds: Span,
}

/// A leader that is lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// How often.
    pub runs: usize,
    /// Stopped, not killed.
    pub hang: bool,
    /// The writer is connected to it.
    pub at_leader: bool,
    /// Messages a second.
    pub rate: f64,
    /// How long a cluster that others disturb is watched.
    pub seconds: Option<Span>,
}

/// Connections that do nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Idle {
    /// So many.
    pub connections: usize,
    /// For so long.
    pub seconds: Span,
}

/// Bytes of the shortest message that carries a time to its readers.
const STAMPED_MIN: u64 = 16;

/// Reads what was found after one of these tables.
pub(super) fn parse(table: &'static Table, found: &Found) -> Result<Bench, Misuse> {
    let number = |long: &str, default: u64, least: u64, most: u64| -> Result<u64, Misuse> {
        let n = table.number(found, long)?.unwrap_or(default);
        if (least..=most).contains(&n) {
            return Ok(n);
        }
        Err(table.misuse(format!("--{long} {n} must be {least} to {most}")))
    };
    let span = |long: &str| -> Result<Option<Span>, Misuse> {
        match table.seconds(found, long)? {
            Some(Span(0)) => Err(table.misuse(format!("--{long} 0 must be more than 0"))),
            span => Ok(span),
        }
    };
    let rate = || -> Result<Option<f64>, Misuse> {
        let Some(value) = found.last("rate") else {
            return Ok(None);
        };
        match value.to_str().and_then(|text| text.parse::<f64>().ok()) {
            Some(rate) if (0.1..=10_000_000.0).contains(&rate) => Ok(Some(rate)),
            _ => Err(table.misuse(format!("--rate {value:?} isn't a number of messages a second"))),
        }
    };
    let connections = limits::CONNECTIONS_MAX as u64 * limits::SERVERS_MAX as u64;
    let window = limits::SESSION_RESULTS_MAX as u64;
    let size = |least| number("size", 128, least, limits::MESSAGE_BYTES_CEILING as u64);
    let ten = Span::from_ms(10_000);
    let kind = if table == &PUBLISH {
        let connections = number("connections", 4, 1, connections)?;
        let in_flight = number("in-flight", 64, 1, u64::MAX)?;
        if in_flight > connections.saturating_mul(window) {
            return Err(table.misuse(format!(
                "--in-flight {in_flight} is more than {window} for each of {connections} connections"
            )));
        }
        let (seconds, count) = (span("seconds")?, table.number(found, "count")?);
        if seconds.is_some() && count.is_some() {
            return Err(table.misuse("--seconds and --count are two ends; give one of them"));
        }
        if count == Some(0) {
            return Err(table.misuse("--count 0 must be more than 0"));
        }
        let rate = rate()?;
        if let Some(loops) = ["count", "in-flight"].into_iter().find(|long| found.flag(long))
            && rate.is_some()
        {
            return Err(table.misuse(format!(
                "--{loops} goes without --rate, which doesn't wait for the servers"
            )));
        }
        Kind::Publish(Publish {
            connections: connections as usize,
            in_flight: in_flight as usize,
            size: size(1)? as usize,
            rooms: number("rooms", 1, 1, limits::ROOMS_MAX as u64)? as usize,
            rate,
            seconds: seconds.or(count.is_none().then_some(ten)),
            count,
        })
    } else if table == &FANOUT {
        if found.flag("outstanding") && found.flag("rate") {
            return Err(table.misuse("--outstanding goes without --rate, which doesn't wait for the readers"));
        }
        Kind::Fanout(Fanout {
            readers: number("readers", 100, 1, connections)? as usize,
            outstanding: number("outstanding", 64, 1, window)?,
            size: size(STAMPED_MIN)? as usize,
            rate: rate()?,
            seconds: span("seconds")?.unwrap_or(ten),
        })
    } else if table == &FAILOVER {
        let disturbed = found.all("server").next().is_some();
        let own = ["runs", "hang", "at-leader"].into_iter().find(|long| found.flag(long));
        if let Some(own) = own.filter(|_| disturbed) {
            return Err(table.misuse(format!(
                "--{own} is for servers of its own; with -s you disturb them yourself"
            )));
        }
        let seconds = span("seconds")?;
        if seconds.is_some() && !disturbed {
            return Err(table.misuse("--seconds is for servers that are named with -s; say --runs"));
        }
        Kind::Failover(Failover {
            runs: number("runs", 10, 1, 100_000)? as usize,
            hang: found.flag("hang"),
            at_leader: found.flag("at-leader"),
            rate: rate()?.unwrap_or(500.0),
            seconds,
        })
    } else {
        Kind::Idle(Idle {
            connections: number("connections", 1000, 1, connections)? as usize,
            seconds: span("seconds")?.unwrap_or(Span::from_ms(5_000)),
        })
    };
    let pin = match found.last("pin") {
        None => None,
        Some(value) => {
            let list = value.to_str().unwrap_or_default().split(',').map(str::parse);
            let list: Option<Vec<u16>> = list.map(Result::ok).collect();
            Some(list.ok_or_else(|| table.misuse(format!("--pin {value:?} isn't a list of processors, such as 0,2")))?)
        }
    };
    Ok(Bench {
        kind,
        pin,
        json: found.flag("json"),
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::Line;
    use super::super::syncnetctl::{Command, parse};
    use super::*;

    fn run(line: &str) -> Result<Bench, u8> {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Line::Run(args)) => match args.command {
                Command::Bench(bench) => Ok(bench),
                other => panic!("{other:?}"),
            },
            Ok(Line::Print(text)) => panic!("{text}"),
            Err(misuse) => Err(misuse.code),
        }
    }

    #[test]
    fn all_options_arrive() {
        let publish = Publish {
            connections: 4,
            in_flight: 64,
            size: 128,
            rooms: 1,
            rate: None,
            seconds: Some(Span::from_ms(10_000)),
            count: None,
        };
        let bench = |kind| Bench {
            kind,
            pin: None,
            json: false,
        };
        assert_eq!(run("bench publish"), Ok(bench(Kind::Publish(publish.clone()))));
        let line = "bench publish --connections 2 --in-flight 2048 --size 1 --rooms 3 --count 5 --pin 0,3 --json";
        let wanted = Bench {
            kind: Kind::Publish(Publish {
                connections: 2,
                in_flight: 2048,
                size: 1,
                rooms: 3,
                rate: None,
                seconds: None,
                count: Some(5),
            }),
            pin: Some(vec![0, 3]),
            json: true,
        };
        assert_eq!(run(line), Ok(wanted));
        let paced = Publish {
            rate: Some(0.5),
            seconds: Some(Span::from_ms(1500)),
            ..publish
        };
        assert_eq!(
            run("bench publish --rate 0.5 --seconds 1.5"),
            Ok(bench(Kind::Publish(paced)))
        );
        let fanout = Fanout {
            readers: 9,
            outstanding: 64,
            size: 16,
            rate: Some(100.0),
            seconds: Span::from_ms(10_000),
        };
        let line = "bench fanout --readers 9 --size 16 --rate 100";
        assert_eq!(run(line), Ok(bench(Kind::Fanout(fanout))));
        let failover = Failover {
            runs: 10,
            hang: true,
            at_leader: true,
            rate: 500.0,
            seconds: None,
        };
        let line = "bench failover --hang --at-leader";
        assert_eq!(run(line), Ok(bench(Kind::Failover(failover))));
        let idle = Idle {
            connections: 10,
            seconds: Span::from_ms(5_000),
        };
        assert_eq!(run("bench idle --connections 10"), Ok(bench(Kind::Idle(idle))));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "bench",
            "bench walk",
            "bench publish --connections 0",
            "bench publish --connections 1 --in-flight 1025",
            "bench publish --seconds 1 --count 1",
            "bench publish --rate 10 --count 1",
            "bench publish --rate 10 --in-flight 1",
            "bench publish --rate 0",
            "bench publish --rate many",
            "bench publish --size 0",
            "bench publish --pin 0,x",
            "bench publish more",
            "bench fanout --size 15",
            "bench fanout --outstanding 0",
            "bench fanout --outstanding 1 --rate 1",
            "bench failover --seconds 5",
            "bench failover --hang -s a:1",
            "bench failover --runs 0",
            "bench idle --seconds 0",
        ] {
            assert_eq!(run(line), Err(2), "{line}");
        }
    }
}
