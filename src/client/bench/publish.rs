//! Messages as fast as they are acknowledged, or at a rate.

use super::crew::Cluster;
use super::meter::Meter;
use super::net::{Load, Net};
use super::pace::{Pace, SECOND};
use super::report::Report;
use super::writers::{Texts, Writers};
use super::{Setup, Trouble};
use crate::cli::bench::Publish;

/// How long the last acknowledgements may take.
const PATIENCE: u64 = 30 * SECOND;

/// A closed loop posts a message for each that is acknowledged.
struct Loop {
    writers: Writers,
    /// How many posts each writer may have unacknowledged; none of its own accord in an open loop.
    shares: Vec<u64>,
    count: u64,
    end: u64,
}

impl Load for Loop {
    fn hear(&mut self, link: usize, body: &[u8], now: u64) -> Result<(), Trouble> {
        self.writers.hear(link, body, now, |_| Ok(()))
    }

    fn fill(&mut self, link: usize, now: u64, out: &mut Vec<u8>) {
        self.writers.post_again(link, out);
        let share = self.shares.get(link).copied().unwrap_or(0);
        while now < self.end && self.writers.sent < self.count && self.writers.outstanding(link) < share {
            self.writers.post(link, now, out);
        }
    }
}

/// Runs it.
pub fn run(mut setup: Setup<'_>, asked: &Publish) -> Result<Report, Trouble> {
    let cluster = Cluster::find(&setup)?;
    let mut net = Net::start()?;
    let texts = Texts {
        rooms: (1..=asked.rooms).map(|n| format!("bench-{n}")).collect(),
        size: asked.size,
        stamped: false,
    };
    let connections = asked.connections.min(asked.in_flight);
    let writers = Writers::open(&mut net, &setup, &cluster, connections, &texts)?;
    let meter = Meter::start(&cluster, setup.timeout);

    let start = net.now();
    let end = match asked.seconds {
        Some(span) => net.end_of(span),
        None => u64::MAX,
    };
    // The first ones get what doesn't divide.
    let share = |n| (asked.in_flight / connections + usize::from(n < asked.in_flight % connections)) as u64;
    let mut load = Loop {
        writers,
        shares: (0..connections)
            .map(|n| if asked.rate.is_some() { 0 } else { share(n) })
            .collect(),
        count: asked.count.unwrap_or(u64::MAX),
        end,
    };
    let mut pace = asked.rate.map(|rate| Pace::new(start, rate));
    setup.progress.begin();
    for link in 0..connections {
        net.send(link, |out| load.fill(link, start, out))?;
    }
    loop {
        let now = net.now();
        if net.interrupted() {
            load.end = load.end.min(now);
        }
        let over = now >= load.end || load.writers.sent >= load.count;
        let mut wake = None;
        if let Some(pace) = pace.as_mut().filter(|_| !over)
            && load.writers.keep_pace(&mut net, pace, load.end)?
        {
            wake = Some(pace.due());
        }
        if over && load.writers.is_quiet() {
            break;
        }
        if now > load.end.saturating_add(PATIENCE) {
            break;
        }
        load.writers.nudge(&mut net, now)?;
        net.turn(wake, &mut load)?;
        setup.progress.tick(load.writers.acknowledged, "messages");
    }
    setup.progress.end();
    let spent = meter.stop();
    let writers = load.writers;
    let mut report = Report::new("publish", &cluster, spent);
    let how = match asked.rate {
        Some(rate) => format!("{rate} a second"),
        None => format!("{} in flight", asked.in_flight),
    };
    let (size, rooms) = (asked.size, asked.rooms);
    report.setup(&format!(
        "{size} bytes, {how}, {connections} connections, {rooms} rooms"
    ));
    report.messages(writers.acknowledged, writers.last.saturating_sub(start));
    report.latency("from sending to acknowledgement", &writers.latencies);
    if asked.rate.is_some() {
        report.late(&writers.late);
    }
    report.repeated(writers.repeated);
    if !writers.is_quiet() {
        let missing = writers.sent - writers.acknowledged;
        report.problem(format!("{missing} of {} messages were not acknowledged", writers.sent));
        return Ok(report);
    }
    writers.close(&mut net)?;
    Ok(report)
}
