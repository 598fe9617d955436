//! One seed from its beginning to its end, and many of them.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use syncnet::log::recovery::OpenError;
use syncnet::types::{LogIndex, Span};

use super::counts::Counts;
use super::faults::Struck;
use super::mixes::{Mix, STANDARD_OPERATIONS_MIN, STANDARD_SPAN};
use super::plan::{Fault, server_id};
use super::sabotage::Sabotage;
use super::server::{SCRUB_WITHIN, open_log, read_entries};
use super::world::{Happening, World};

/// How long after the last fault everything must be well: what the design promises, for the default times. Longer times in the
/// configuration make it longer.
const WELL_WITHIN: Span = Span::from_ms(10_000);
/// What the clients' own time-outs may take beyond that.
const CLIENTS_WITHIN: Span = Span::from_ms(5_000);

/// How long a server may take to make a checkpoint when nothing else goes on, perhaps of its whole log.
const MADE_WITHIN: Span = Span::from_ms(120_000);
/// How often that is looked at; and how long it may take to mend what is found damaged on the way.
const MADE_LOOK: Span = Span::from_ms(3_000);

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    pub case: Case,
    pub text: String,
    /// The faults that struck, by their numbers.
    pub struck: Vec<Struck>,
}

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub mix: Mix,
    pub seed: u64,
    pub sabotage: Option<Sabotage>,
    /// The numbers of the faults that strike; the others are left out.
    pub only: Option<BTreeSet<usize>>,
    pub trace: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub counts: Counts,
    pub failure: Option<Failure>,
}

impl Case {
    pub fn new(mix: Mix, seed: u64) -> Case {
        Case {
            mix,
            seed,
            sabotage: None,
            only: None,
            trace: false,
        }
    }

    pub fn sabotaged(self, sabotage: Sabotage) -> Case {
        Case {
            sabotage: Some(sabotage),
            ..self
        }
    }

    /// Runs it.
    pub fn run(&self) -> Outcome {
        let mut world = World::new(self.mix.draw(self.seed));
        world.trace = self.trace;
        world.sabotage = self.sabotage;
        world.only = self.only.clone();
        world.say(|| world.plan.summary());
        let began = world.now;
        let ended = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
        let virtual_ms = world.now.since(began).as_ms();
        world.counts.add("virtual milliseconds", virtual_ms);
        let text = match ended {
            Ok(()) => world.failure.take(),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                Some(format!("with a panic: {}", text.unwrap_or_default()))
            }
        };
        let failure = text.map(|text| Failure {
            case: self.clone(),
            text,
            struck: std::mem::take(&mut world.struck),
        });
        Outcome {
            counts: world.counts,
            failure,
        }
    }

    /// The command that replays it.
    pub fn command(&self) -> String {
        let numbers = |only: &BTreeSet<usize>| only.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let only = self
            .only
            .as_ref()
            .map(|only| format!(" SYNCNET_FAULTS={}", numbers(only)));
        let sabotage = self.sabotage.map(|sabotage| format!(" SYNCNET_SABOTAGE={sabotage:?}"));
        format!(
            "SYNCNET_MIX={} SYNCNET_SEED={}{}{} SYNCNET_TRACE=1 cargo test --release --test simulator replay -- --exact --nocapture",
            self.mix.name(),
            self.seed,
            sabotage.unwrap_or_default(),
            only.unwrap_or_default()
        )
    }
}

impl Failure {
    /// What failed, and the one line that replays it.
    pub fn line(&self) -> String {
        let mut text = self.text.clone();
        text.truncate(text.char_indices().nth(1_500).map_or(text.len(), |(end, _)| end));
        let (mix, seed) = (self.case.mix.name(), self.case.seed);
        format!("{mix} seed {seed} failed {text}\n    replay: {}", self.case.command())
    }
}

fn live(world: &mut World) {
    for server in 0..world.servers.len() {
        let after = Span(world.rng.between(0, 300_000));
        world.later(after, Happening::Start { server });
    }
    if world.sabotage == Some(Sabotage::ForgedAppends) {
        // What was never on a disk is missed only when the power goes.
        world.plan.faults = vec![Fault::PowerCut, Fault::PowerCutAll, Fault::HungDisk];
    }
    world.people_arrive();
    world.storm = true;
    if world.sabotage == Some(Sabotage::LyingDisks) {
        // Not from the start: a log without its first record is noticed too easily.
        world.run_for(Span::from_ms(1_000));
        world.servers.iter().for_each(|server| server.disk.lie());
    }
    // Some seeds let the cluster form in peace, some don't.
    let peace = if world.rng.chance(70) {
        Span::from_ms(2_000)
    } else {
        Span(0)
    };
    world.later(peace, Happening::Fault);
    world.plan_recipes();
    world.plan_ambushes();
    let storm = world.plan.storm;
    if !world.run_for(Span(peace.0 + storm.0)) {
        return;
    }
    // A minute and some more, if people were held up for long.
    let late = world.now.after(STANDARD_SPAN);
    while world.plan.standard && world.now < late && world.counts.get("client operations") < STANDARD_OPERATIONS_MIN {
        if !world.run_for(Span::from_ms(1_000)) {
            return;
        }
    }
    world.heal_all();
    let slower = world.plan.config.timing.election_timeout.0 / 500_000;
    let most = Span(WELL_WITHIN.0 * slower.max(1) + CLIENTS_WITHIN.0);
    match world.settle(most) {
        Ok(took) => {
            world.counts.highest("longest way back in ms", took.as_ms());
            world.counts.add("ways back in ms", took.as_ms());
        }
        Err(text) => {
            return world.fail(format!("not well {} ms after the last fault: {text}", most.as_ms()));
        }
    }
    if world.servers.iter().any(|server| server.damaged) {
        // What nobody has asked for is found by looking at everything, and mended: by the look that begins after this one, at the latest,
        // and each takes a little longer than its rests.
        world.run_for(Span(3 * SCRUB_WITHIN.0));
        if let Err(text) = world.settle(most) {
            return world.fail(format!("damage isn't mended: {text}"));
        }
    }
    for at in 0..world.servers.len() {
        let result = compare_logs(world, at, world.servers[at].damaged);
        world.check(result);
    }
    let result = housekeeping_goes_on(world);
    world.check(result);
    let operations = world.counts.get("client operations");
    if world.only.is_none() && world.plan.standard && operations < STANDARD_OPERATIONS_MIN {
        world.fail(format!("people asked for {operations} things only"));
    }
    world.counts.one("worlds");
    if world.servers.len() == 7 {
        world.counts.one("worlds of seven servers");
    }
    world
        .counts
        .add("entries committed", world.oracle.entries().len() as u64);
    world.counts.add("messages acknowledged", world.oracle.acks);
}

/// A server that is well makes a checkpoint of what it has applied: one that can't, whatever it once lost, would remove nothing more. What
/// it finds damaged at the first try must be mended by the second.
fn housekeeping_goes_on(world: &mut World) -> Result<(), String> {
    for last in [false, true] {
        for at in 0..world.servers.len() {
            world.make_checkpoint(at);
        }
        for _ in 0..MADE_WITHIN.0 / MADE_LOOK.0 {
            if !world.run_for(MADE_LOOK) {
                return Ok(());
            }
            if world
                .servers
                .iter()
                .all(|server| !matches!(server.unmade, Some((_, None))))
            {
                break;
            }
        }
        let unmade = |at: usize| Some((at, world.servers[at].unmade.clone()?.1));
        match (0..world.servers.len()).find_map(unmade) {
            None => return Ok(()),
            Some((_, Some(_))) if !last => world.counts.one("damage found by a last checkpoint"),
            Some((at, why)) => {
                let why = why.unwrap_or_else(|| "nothing comes of it".to_owned());
                return Err(format!("{} makes no checkpoint any more: {why}", server_id(at)));
            }
        }
    }
    Ok(())
}

/// What a server has on its disk must be what was committed, all of it; where it is spoilt, what a start would fetch may be missing.
pub fn compare_logs(world: &mut World, at: usize, spoilt: bool) -> Result<(), String> {
    let disk = super::disk::ServerDisk {
        disk: world.servers[at].disk.disk.copy(),
        ..Default::default()
    };
    let opened = match open_log(world, at, disk) {
        // What can't be trusted at a start is set aside then; up to then the server has all that it needs.
        Err(OpenError::Untrusted { .. }) if spoilt => return Ok(()),
        opened => opened.map_err(|error| format!("{} at the end: {error}", server_id(at)))?,
    };
    let commit = world.servers[at]
        .node()
        .map_or(LogIndex(0), |node| node.cluster().commit());
    // What retention has given up may be damaged, and nobody mends it, though the segment that has it is still there.
    let given_up = world.servers[at]
        .node()
        .map_or(LogIndex(0), |node| node.cluster().base().index);
    let base = opened.recovered.base.index.max(given_up);
    let mut next = LogIndex(1);
    let mut reader = opened.reader;
    while next <= commit {
        let entries = read_entries(&mut reader, next, commit)?;
        if entries.is_empty() && next <= base {
            next = next.next();
            continue;
        }
        if entries.is_empty() && spoilt && opened.recovered.holes.iter().any(|hole| hole.index == next) {
            // A start would fetch it.
            next = next.next();
            continue;
        }
        if entries.is_empty() {
            return Err(format!(
                "{} has no entry {next}, and {commit} is committed",
                server_id(at)
            ));
        }
        for entry in entries {
            let mut counts = Counts::default();
            world.oracle.committed(at, &entry, &mut counts)?;
            next = entry.index.next();
        }
    }
    Ok(())
}

/// What came of many cases.
#[derive(Debug, Default)]
pub struct Many {
    pub counts: Counts,
    pub failures: Vec<Failure>,
    /// The time that the threads had of their cores: what it cost, whoever else is at work on the machine.
    pub core_seconds: f64,
}

/// Runs cases on so many threads, until so many fail or all are done.
pub fn run_many(cases: &[Case], threads: usize, failures_max: usize) -> Many {
    let next = AtomicU64::new(0);
    let seen = Mutex::new(Many::default());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(case) = cases.get(at) else { return };
            let Outcome { counts, failure } = case.run();
            let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            seen.counts.merge(&counts);
            if let Some(failure) = failure {
                println!("{}", failure.line());
                seen.failures.push(failure);
            }
            if seen.failures.len() >= failures_max {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                work();
                let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                seen.core_seconds += core_seconds();
            });
        }
    });
    seen.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The seconds that this thread has had of its core.
fn core_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // Behind the thread's name: fields 14 and 15, in hundredths of a second on Linux.
    let fields = stat
        .rsplit_once(')')
        .map_or("", |(_, fields)| fields)
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks as f64 / 100.0
}
