//! One writer, many readers of one room: at a rate, or as fast as what was posted has reached every reader.

use super::crew::{Cluster, subscribe, unsubscribe};
use super::meter::Meter;
use super::net::{Load, Net, decode};
use super::pace::{Pace, SECOND};
use super::report::{Latencies, Report};
use super::window::{Window, Wrong};
use super::writers::{Texts, WINDOW_MAX, Writers, stamp_of};
use super::{Setup, Trouble};
use crate::cli::bench::Fanout;
use crate::types::{Position, RoomId};
use crate::wire::bulk::Delivered;
use crate::wire::client::{Response, What};

/// How long the last deliveries may take.
const PATIENCE: u64 = 60 * SECOND;
/// One delivery in so many is timed when there are millions a second, and all are when they are paced.
const TIMED: u64 = 61;
/// One in so many is decoded in full and compared with what was sent.
const DECODED: u64 = 1021;

/// What the readers have heard.
struct Heard {
    writers: Writers,
    window: Window,
    room: RoomId,
    /// The position of the first message.
    first: Position,
    size: usize,
    timed: u64,
    deliveries: u64,
    last: u64,
    latencies: Latencies,
}

impl Heard {
    /// Messages that every reader has.
    fn everywhere(&self) -> u64 {
        self.window.lowest().0 - self.first.0
    }

    fn delivered(&mut self, reader: usize, body: &[u8], now: u64) -> Result<(), Trouble> {
        let Some(item) = Delivered::of(body).filter(|item| item.room == self.room) else {
            return match decode(body)? {
                Response::Gap { positions, .. } => Err(Trouble::wrong(format!(
                    "a reader was told that positions up to {} are kept no more",
                    positions.1
                ))),
                _ => Ok(()),
            };
        };
        self.window.reach(reader, item.position).map_err(|wrong| {
            Trouble::wrong(match wrong {
                Wrong::Lost(from) => format!(
                    "reader {} got position {} without those from {from} on",
                    reader + 1,
                    item.position
                ),
                Wrong::Repeated(position) => format!("reader {} got position {position} again", reader + 1),
            })
        })?;
        self.deliveries += 1;
        self.last = now;
        if self.deliveries.is_multiple_of(self.timed) {
            let due = item.message().and_then(|(_, text)| stamp_of(text));
            let due = due.ok_or_else(|| foreign(item.position))?;
            self.latencies.record(now.saturating_sub(due));
        }
        if self.deliveries.is_multiple_of(DECODED) {
            let as_sent = match decode(body)? {
                Response::Item(full) => {
                    full.position == item.position
                        && full.user.starts_with("bench-")
                        && matches!(&full.what, What::Message(text) if text.len() == self.size && stamp_of(text.as_bytes()).is_some())
                }
                _ => false,
            };
            if !as_sent {
                return Err(foreign(item.position));
            }
        }
        Ok(())
    }
}

fn foreign(position: impl std::fmt::Display) -> Trouble {
    Trouble::wrong(format!(
        "position {position} of bench-fanout isn't what was posted: is another bench running?"
    ))
}

impl Load for Heard {
    fn hear(&mut self, link: usize, body: &[u8], now: u64) -> Result<(), Trouble> {
        let writers = self.writers.len();
        if link >= writers {
            return self.delivered(link - writers, body, now);
        }
        let (first, before) = (self.first, self.writers.acknowledged);
        let mut wanted = Position(first.0 + before);
        self.writers.hear(link, body, now, |posted| {
            if posted.position != wanted {
                return Err(foreign(posted.position));
            }
            wanted = wanted.next();
            Ok(())
        })
    }

    fn fill(&mut self, link: usize, _now: u64, out: &mut Vec<u8>) {
        self.writers.post_again(link, out);
    }
}

/// Runs it.
pub fn run(mut setup: Setup<'_>, asked: &Fanout) -> Result<Report, Trouble> {
    let cluster = Cluster::find(&setup)?;
    let mut net = Net::start()?;
    let texts = Texts {
        rooms: vec!["bench-fanout".to_string()],
        size: asked.size,
        stamped: true,
    };
    let writers = Writers::open(&mut net, &setup, &cluster, 1, &texts)?;
    let (Some(room), Some(before)) = (writers.room(), writers.before.first().copied()) else {
        return Err(Trouble::failed("no room was made"));
    };
    setup.progress.say(&format!("connecting {} readers", asked.readers));
    let readers = cluster.connect(&mut net, asked.readers)?;
    let first = before.next();
    subscribe(&mut net, &readers, room, first)?;
    let meter = Meter::start(&cluster, setup.timeout);

    let start = net.now();
    let mut end = net.end_of(asked.seconds);
    let mut load = Heard {
        writers,
        window: Window::new(asked.readers, first),
        room,
        first,
        size: asked.size,
        timed: if asked.rate.is_some() { 1 } else { TIMED },
        deliveries: 0,
        last: start,
        latencies: Latencies::new(),
    };
    let mut pace = asked.rate.map(|rate| Pace::new(start, rate));
    setup.progress.begin();
    loop {
        let now = net.now();
        if net.interrupted() {
            end = end.min(now);
        }
        let over = now >= end;
        let mut wake = None;
        if !over {
            if let Some(pace) = &mut pace {
                if load.writers.keep_pace(&mut net, pace, end)? {
                    wake = Some(pace.due());
                }
            } else {
                let free = asked.outstanding.saturating_sub(load.writers.sent - load.everywhere());
                let free = free.min(WINDOW_MAX.saturating_sub(load.writers.outstanding(0)));
                if free > 0 {
                    net.send(0, |out| (0..free).for_each(|_| load.writers.post(0, now, out)))?;
                }
            }
        }
        if over && load.writers.is_quiet() && load.everywhere() == load.writers.sent {
            break;
        }
        if now > end.saturating_add(PATIENCE) {
            break;
        }
        load.writers.nudge(&mut net, now)?;
        net.turn(wake, &mut load)?;
        setup.progress.tick(load.deliveries, "deliveries");
    }
    setup.progress.end();
    let spent = meter.stop();
    let how = match asked.rate {
        Some(rate) => format!("{rate} messages a second"),
        None => format!("{} messages outstanding", asked.outstanding),
    };
    let mut report = Report::new("fanout", &cluster, spent);
    report.setup(&format!("{} readers, {} bytes, {how}", asked.readers, asked.size));
    report.messages(load.writers.acknowledged, load.last.saturating_sub(start));
    report.deliveries(load.deliveries);
    report.latency("from sending to delivery", &load.latencies);
    if asked.rate.is_some() {
        report.late(&load.writers.late);
    }
    report.repeated(load.writers.repeated);
    let wanted = load.writers.sent * asked.readers as u64;
    if load.deliveries != wanted || !load.writers.is_quiet() {
        report.problem(format!(
            "{} of {wanted} deliveries and {} of {} acknowledgements came",
            load.deliveries, load.writers.acknowledged, load.writers.sent
        ));
        return Ok(report);
    }
    unsubscribe(&mut net, &readers, room)?;
    load.writers.close(&mut net)?;
    Ok(report)
}
