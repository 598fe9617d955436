//! How long acknowledgements are missing when the leader is lost: of servers that this benchmark starts and harms itself, or of a
//! running cluster that somebody else disturbs. The writer is the client that programs use, since its way to another server is a part of
//! what is measured.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, after, bounded, select};

use super::gaps::Gaps;
use super::own::{LEADER, Own};
use super::pace::{Pace, SECOND};
use super::report::Report;
use super::{Setup, Trouble, complain, seconds};
use crate::chat::command::Outcome;
use crate::cli::bench::Failover;
use crate::client::calls::{Action, Event, Options, Ticket};
use crate::client::link::Client;
use crate::client::time::rfc3339;
use crate::client::{key, programs};
use crate::types::RoomId;

const ROOM: &str = "bench-failover";
/// How long acknowledgements must have come again before the next run, and how near the last must be.
const AGAIN: u64 = SECOND;
const NEAR: u64 = SECOND / 5;
/// The rest between two looks at what the writer has.
const LOOK: Duration = Duration::from_millis(20);
/// How long anything may take that should take a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// A pause is told from the usual ups and downs when it is so long, in nanoseconds, and so many times that between two messages.
const PAUSE_MIN: u64 = 50_000_000;
const PAUSE_TIMES: f64 = 10.0;

/// What the writer has seen.
#[derive(Clone, Debug, Default)]
struct Record {
    gaps: Gaps,
    submitted: u64,
    /// Those that it had no room for, while nothing was acknowledged.
    held_back: u64,
    /// Pauses that have ended: when, and how long.
    pauses: Vec<(u64, u64)>,
    wrong: Vec<String>,
}

/// A client that writes at a steady rate, on a thread of its own.
struct Writer {
    record: Arc<Mutex<Record>>,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
    start: Instant,
}

impl Writer {
    fn start(options: Options, rate: f64) -> Result<Writer, Trouble> {
        let failed = Trouble::failed;
        let (client, events) = Client::start(options).map_err(failed)?;
        let record = Arc::new(Mutex::new(Record::default()));
        let (stop, stopped) = bounded(1);
        let start = Instant::now();
        let mut writing = Writing {
            client,
            events,
            record: Arc::clone(&record),
            start,
            rate,
            last: None,
        };
        let thread = std::thread::Builder::new()
            .name("bench-writer".to_string())
            .spawn(move || writing.run(&stopped))
            .map_err(failed)?;
        Ok(Writer {
            record,
            stop,
            thread: Some(thread),
            start,
        })
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }

    fn now(&self) -> u64 {
        nanoseconds(self.start)
    }

    /// Waits until acknowledgements have come again for a while after `since`.
    fn flows(&self, since: u64, interrupts: &Receiver<()>) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if interrupts.recv_timeout(LOOK).is_ok() {
                return Err(Trouble::failed("interrupted"));
            }
            let record = self.record();
            if let Some(wrong) = record.wrong.first() {
                return Err(Trouble::wrong(wrong.clone()));
            }
            let now = self.now();
            if record
                .gaps
                .last()
                .is_some_and(|last| last > since + AGAIN && last + NEAR > now)
            {
                return Ok(());
            }
            drop(record);
            if Instant::now() > deadline {
                return Err(Trouble::silent("no acknowledgements for a minute"));
            }
        }
    }

    /// Ends it, once all it has submitted is acknowledged: what it saw.
    fn finish(mut self) -> Record {
        self.end();
        self.record().clone()
    }

    fn end(&mut self) {
        let _ = self.stop.try_send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    // Numbers only: nothing in it can be half done.
    record.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The writer's thread.
struct Writing {
    client: Client,
    events: Receiver<Event>,
    record: Arc<Mutex<Record>>,
    start: Instant,
    rate: f64,
    /// The last message that was acknowledged.
    last: Option<Ticket>,
}

impl Writing {
    fn run(&mut self, stopped: &Receiver<()>) {
        let Some(room) = self.room(stopped) else { return };
        let mut pace = Pace::new(nanoseconds(self.start), self.rate);
        let mut stopping: Option<Instant> = None;
        loop {
            let now = nanoseconds(self.start);
            while stopping.is_none() && pace.take(now).is_some() {
                self.submit(room);
            }
            {
                let record = lock(&self.record);
                let quiet = record.gaps.count() == record.submitted;
                let given_up = stopping.is_some_and(|since| since.elapsed() > PATIENCE);
                if stopping.is_some() && (quiet || given_up || !record.wrong.is_empty()) {
                    break;
                }
            }
            let wait = match stopping {
                None => Duration::from_nanos(pace.due().saturating_sub(now)),
                Some(_) => LOOK,
            };
            select! {
                recv(self.events) -> event => match event {
                    Ok(event) => self.event(event),
                    Err(_) => break,
                },
                recv(stopped) -> _ => stopping = stopping.or(Some(Instant::now())),
                recv(after(wait)) -> _ => {}
            }
        }
        self.client.close_and_wait(&self.events);
    }

    fn room(&mut self, stopped: &Receiver<()>) -> Option<RoomId> {
        let room = ROOM.to_string();
        self.client.submit(Action::Create { room, or_find: true }, None).ok()?;
        loop {
            select! {
                recv(self.events) -> event => match event.ok()? {
                    Event::Done { outcome: Outcome::Room { room, .. }, .. } => return Some(room),
                    event => self.event(event),
                },
                recv(stopped) -> _ => return None,
            }
        }
    }

    fn submit(&mut self, room: RoomId) {
        let text = "a message of syncnetctl bench failover".to_string();
        let dedup = None;
        let done = self.client.try_submit(Action::Post { room, text, dedup }, None);
        let mut record = lock(&self.record);
        match done {
            Ok(Some(_)) => record.submitted += 1,
            Ok(None) => record.held_back += 1,
            Err(ended) => record.wrong.push(ended.to_string()),
        }
    }

    fn event(&mut self, event: Event) {
        let now = nanoseconds(self.start);
        let mut record = lock(&self.record);
        match event {
            Event::Done {
                ticket,
                outcome: Outcome::Posted { .. },
                ..
            } => {
                if self.last.is_some_and(|last| ticket <= last) {
                    record
                        .wrong
                        .push(format!("message {} was acknowledged again or out of order", ticket.0));
                }
                self.last = Some(ticket);
                let usual = (PAUSE_TIMES / self.rate * SECOND as f64) as u64;
                if let Some(gap) = record.gaps.acknowledged(now).filter(|gap| *gap >= usual.max(PAUSE_MIN)) {
                    record.pauses.push((now, gap));
                }
            }
            Event::Done { outcome, .. } => record.wrong.push(format!("a message was refused: {outcome:?}")),
            Event::OpenRefused { text, .. } => record.wrong.push(format!("refused: {text}")),
            Event::Unknown { .. } => record.wrong.push("nobody knows what became of a message".to_string()),
            _ => {}
        }
    }
}

fn options(setup: &Setup<'_>, servers: Vec<String>, only: bool) -> Options {
    let (key, _) = key::load(setup.settings.key_file.as_deref());
    Options {
        servers,
        in_order: true,
        only,
        name: "bench-failover".to_string(),
        key,
        secret: key::session_secret(),
        agent: format!("syncnetctl bench {}", env!("CARGO_PKG_VERSION")),
    }
}

/// Runs it.
pub fn run(setup: Setup<'_>, asked: &Failover, json: bool) -> Result<Report, Trouble> {
    let interrupts = programs::interrupts().map_err(Trouble::failed)?;
    let (report, record) = if setup.settings.explicit {
        watch(&setup, asked, &interrupts, json)?
    } else {
        harm(&setup, asked, &interrupts)?
    };
    let mut report = report;
    report.messages(record.gaps.count(), record.gaps.last().unwrap_or(0));
    for wrong in &record.wrong {
        report.problem(wrong.clone());
    }
    if record.gaps.count() != record.submitted && record.wrong.is_empty() {
        let missing = record.submitted - record.gaps.count();
        report.problem(format!(
            "{missing} of {} messages were not acknowledged",
            record.submitted
        ));
    }
    if record.held_back > 0 {
        report.warning(format!(
            "{} messages were not sent, because as many as may be waited for their acknowledgements",
            record.held_back
        ));
    }
    Ok(report)
}

/// Loses the leader of a cluster of its own, again and again.
fn harm(setup: &Setup<'_>, asked: &Failover, interrupts: &Receiver<()>) -> Result<(Report, Record), Trouble> {
    let mut own = Own::start()?;
    setup.progress.say("starting three servers");
    own.settle(interrupts)?;
    let mut servers = own.addresses.clone();
    if asked.at_leader {
        servers.reverse();
    }
    let writer = Writer::start(options(setup, servers, true), asked.rate)?;
    let mut gaps = Vec::new();
    for run in 1..=asked.runs {
        setup.progress.say(&format!("run {run} of {}", asked.runs));
        own.settle(interrupts)?;
        // The hand-over to the preferred leader has a gap of its own: let that pass.
        writer.flows(writer.now(), interrupts)?;
        let lost = writer.now();
        writer.record().gaps.forget();
        if asked.hang {
            own.hang(LEADER, true);
        } else {
            own.kill(LEADER);
        }
        writer.flows(lost, interrupts)?;
        gaps.push(writer.record().gaps.longest());
        if asked.hang {
            own.hang(LEADER, false);
        } else {
            own.launch(LEADER)?;
        }
    }
    own.settle(interrupts)?;
    let record = writer.finish();
    setup.progress.end();
    let mut report = Report::bare("failover", "bench");
    let how = if asked.hang { "stopped" } else { "killed" };
    let at = if asked.at_leader {
        "that server"
    } else {
        "another server"
    };
    report.setup(&format!(
        "{} runs, the leader of 3 servers is {how}, {} messages a second by a client of {at}",
        asked.runs, asked.rate
    ));
    report.gaps(&gaps);
    Ok((report, record))
}

/// Watches a cluster that others disturb.
fn watch(
    setup: &Setup<'_>,
    asked: &Failover,
    interrupts: &Receiver<()>,
    json: bool,
) -> Result<(Report, Record), Trouble> {
    let writer = Writer::start(options(setup, setup.settings.servers.clone(), false), asked.rate)?;
    let end = asked.seconds.map(|span| Instant::now() + seconds(span));
    let (mut told, mut waits) = (0, false);
    while end.is_none_or(|end| Instant::now() < end) && interrupts.recv_timeout(LOOK).is_err() {
        let (pauses, last, wrong) = {
            let record = writer.record();
            let new = record.pauses.get(told..).unwrap_or_default().to_vec();
            (new, record.gaps.last(), record.wrong.first().cloned())
        };
        if let Some(wrong) = wrong {
            return Err(Trouble::wrong(wrong));
        }
        for (_, gap) in &pauses {
            tell(json, *gap);
        }
        told += pauses.len();
        let silent = writer.now().saturating_sub(last.unwrap_or(0)) > SECOND;
        if silent && !waits {
            complain("no acknowledgement for a second; waiting");
        }
        waits = silent;
    }
    let record = writer.finish();
    let mut report = Report::bare("failover", "");
    report.setup(&format!("{} messages a second", asked.rate));
    let pauses: Vec<u64> = record.pauses.iter().map(|(_, gap)| *gap).collect();
    report.gaps(&pauses);
    if record.gaps.count() == 0 {
        return Err(Trouble::silent("no server answers; see syncnetctl status"));
    }
    Ok((report, record))
}

/// A pause has ended just now.
fn tell(json: bool, gap: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = rfc3339(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let gap = gap as f64 / 1e6;
    let line = if json {
        format!("{{\"time\":\"{time}\",\"gap_ms\":{gap:.3}}}")
    } else {
        format!("{time} no acknowledgement for {gap:.1} ms")
    };
    // That nobody reads it is no error.
    let _ = writeln!(std::io::stdout(), "{line}");
}
