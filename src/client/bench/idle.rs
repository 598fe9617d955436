//! Connections that are in a room and do nothing: what they cost a server.

use std::time::{Duration, Instant};

use super::crew::{Cluster, Session, close, join, rooms, subscribe, unsubscribe};
use super::meter::Meter;
use super::net::{Load, Net};
use super::report::Report;
use super::{Setup, Trouble, seconds};
use crate::cli::bench::Idle;

const ROOM: &str = "bench-idle";
/// After the last subscription, so that buffers that only setting up needed are given back.
const SETTLE: Duration = Duration::from_millis(500);

/// What comes is read, and that is all.
struct Nothing;

impl Load for Nothing {
    fn hear(&mut self, _: usize, _: &[u8], _: u64) -> Result<(), Trouble> {
        Ok(())
    }
}

fn rest(net: &mut Net, time: Duration) -> Result<(), Trouble> {
    let end = Instant::now() + time;
    while Instant::now() < end && !net.interrupted() {
        net.turn(None, &mut Nothing)?;
    }
    Ok(())
}

/// Runs it.
pub fn run(mut setup: Setup<'_>, asked: &Idle) -> Result<Report, Trouble> {
    let cluster = Cluster::find(&setup)?;
    let mut net = Net::start()?;
    let mut meter = Meter::start(&cluster, setup.timeout);
    setup.progress.begin();
    setup.progress.say(&format!("connecting {} clients", asked.connections));
    let links = cluster.connect(&mut net, asked.connections)?;
    let mut sessions = Session::open(&mut net, &setup, &links)?;
    let Some((link, session)) = links.first().copied().zip(sessions.first_mut()) else {
        return Err(Trouble::failed("no connection was made"));
    };
    rooms(&mut net, link, session, &[ROOM.to_string()])?;
    setup.progress.say(&format!("{} clients join", asked.connections));
    join(&mut net, &links, &mut sessions, ROOM)?;
    // Only when all are in: else each would be told of all that come after it.
    let found = match sessions.first_mut() {
        Some(session) => rooms(&mut net, link, session, &[ROOM.to_string()])?,
        None => Vec::new(),
    };
    let Some(&(room, position)) = found.first() else {
        return Err(Trouble::failed("no room was made"));
    };
    subscribe(&mut net, &links, room, position.next())?;
    rest(&mut net, SETTLE)?;
    // What setting up cost is another matter than what idling costs.
    meter.rest();
    setup.progress.say(&format!("{} clients idle", asked.connections));
    let begun = Instant::now();
    rest(&mut net, seconds(asked.seconds))?;
    let elapsed = begun.elapsed();
    let spent = meter.stop();
    setup.progress.end();
    let mut report = Report::new("idle", &cluster, spent);
    report.setup(&format!(
        "{} connections with a session in {ROOM}, following it",
        asked.connections
    ));
    report.idle(asked.connections, &cluster.targets, elapsed);
    // The other way round, for the same reason.
    unsubscribe(&mut net, &links, room)?;
    close(&mut net, &links, &mut sessions)?;
    Ok(report)
}
