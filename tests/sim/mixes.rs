//! The two mixes that seeds are run in. `Standard` is the case that people have: three servers, the default times, a minute of
//! messages, a fault of any kind every five seconds. `Swarm` is everything else: one to seven servers, other times, small limits,
//! storms of faults. `Early` is the swarm as it was drawn when the seeds in `seeds.txt` failed that don't name a mix: what was added to the
//! swarm since then comes from generators of its own, so that such a seed still means what it meant.

use std::sync::Arc;

use syncnet::config::{Election, LeaderMode, Retention, Routing};
use syncnet::rng::Rng;
use syncnet::types::Span;

use super::plan::{DAMAGES, Delay, FAULTS, MORE_FAULTS, Plan, SERVERS_REPAIR, config};

/// How long clients are at work and faults come in a seed of the standard mix.
pub const STANDARD_SPAN: Span = Span::from_ms(60_000);
/// The time between two faults in the standard mix.
const STANDARD_FAULT_EVERY: u64 = 5_000_000;
/// What people ask a cluster to do in a seed of the standard mix, at least.
pub const STANDARD_OPERATIONS_MIN: u64 = 500;

/// From what a seed draws its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    Standard,
    Swarm,
    Early,
}

impl Mix {
    pub const fn name(self) -> &'static str {
        match self {
            Mix::Standard => "standard",
            Mix::Swarm => "swarm",
            Mix::Early => "early",
        }
    }

    pub fn named(name: &str) -> Option<Mix> {
        [Mix::Standard, Mix::Swarm, Mix::Early]
            .into_iter()
            .find(|mix| mix.name() == name)
    }

    /// What a seed means.
    pub fn draw(self, seed: u64) -> Plan {
        match self {
            Mix::Standard => standard(seed),
            Mix::Swarm => wider(Plan::draw(seed)),
            Mix::Early => Plan::draw(seed),
        }
    }
}

/// What the swarm has gained since the early one.
fn wider(mut plan: Plan) -> Plan {
    let mut rng = Rng::new(plan.seed ^ 0x71DE_5EED);
    plan.faults_apart = true;
    let seed = plan.seed;
    small_storage(&mut plan, seed);
    if plan.servers() == 5 && rng.chance(40) {
        let mut rings: Vec<u16> = (0..7).collect();
        rng.shuffle(&mut rings);
        let mut wide = (*plan.config).clone();
        wide.servers = config(7, &rings).servers;
        plan.config = Arc::new(wide);
    }
    plan.people.keyed = *rng.pick(&[0, 0, 10, 50]).expect("four");
    for fault in MORE_FAULTS {
        let weight = *rng.pick(&[0, 0, 1, 1, 3]).expect("five");
        plan.faults.extend(std::iter::repeat_n(fault, weight));
    }
    if rng.chance(40) {
        age_fast(&mut plan, &mut rng);
    }
    if rng.chance(4) {
        // A long and quiet time, in which keys are forgotten too.
        plan.storm = Span::from_ms(rng.between(90_000, 150_000));
        plan.people.pace = Delay::new(100_000, 2_000_000);
        plan.people.keyed = 50;
        plan.fault_pace = Delay::new(1_000_000, 10_000_000);
    }
    if SERVERS_REPAIR {
        for fault in DAMAGES {
            let weight = *rng.pick(&[0, 1, 3]).expect("three");
            plan.faults.extend(std::iter::repeat_n(fault, weight));
        }
    }
    plan
}

/// Checkpoints often, segments of a few records, and history that is given up: what a large cluster does in months.
fn small_storage(plan: &mut Plan, seed: u64) {
    let mut rng = Rng::new(seed ^ 0x5707_A6E5);
    let mut config = (*plan.config).clone();
    let log = &mut config.log;
    log.segment_size = *rng.pick(&[8, 16, 32, 128]).expect("four") * 1024;
    log.checkpoint_every = *rng.pick(&[5, 25, 100, 400, 100_000]).expect("five");
    log.digest_every = *rng.pick(&[4, 32, 1024]).expect("three");
    log.retention = match rng.below(4) {
        0 | 1 => Retention::Forever,
        2 => Retention::Size(log.segment_size * rng.between(2, 8)),
        _ => Retention::Age(Span::from_ms(rng.between(2_000, 20_000))),
    };
    plan.config = Arc::new(config);
}

/// Names and sessions of silent people go within seconds.
fn age_fast(plan: &mut Plan, rng: &mut Rng) {
    let mut config = (*plan.config).clone();
    let release = rng.between(1_500, 5_000);
    config.chat.name_release = Span::from_ms(release);
    config.chat.touch_interval = Span::from_ms(release / 3);
    config.chat.session_expiry = Span::from_ms(release + rng.between(0, 10_000));
    plan.config = Arc::new(config);
    plan.ages = true;
}

/// Three servers for a minute, with the default times.
fn standard(seed: u64) -> Plan {
    let mut rng = Rng::new(seed ^ 0x57A9_DA2D);
    let mut rings = [0, 1, 2];
    rng.shuffle(&mut rings);
    let mut config = config(3, &rings);
    config.election = *rng.pick(&[Election::Highest, Election::Lcr]).expect("two");
    config.leader = *rng.pick(&[LeaderMode::Preferred, LeaderMode::Sticky]).expect("two");
    config.routing = *rng.pick(&[Routing::Forward, Routing::Redirect]).expect("two");
    if rng.chance(30) {
        config.multicast = None;
    }
    if rng.chance(10) {
        config.secret = None;
    }
    let quick = rng.between(50, 500);
    let slow_disk = *rng.pick(&[300, 2_000, 10_000]).expect("three");
    let mut delay = |high: u64| Delay {
        low: quick,
        high: quick * rng.between(1, high),
        slow: rng.below(4),
    };
    let (link, datagram, client) = (delay(20), delay(40), delay(20));
    let mut plan = Plan::calm(3);
    plan.seed = seed;
    plan.config = Arc::new(config);
    small_storage(&mut plan, seed);
    (plan.link, plan.datagram, plan.client) = (link, datagram, client);
    plan.loss = if rng.chance(50) { rng.between(0, 30) } else { 0 };
    plan.repeat = if rng.chance(50) { rng.between(0, 20) } else { 0 };
    plan.replays = rng.chance(20);
    plan.write = Delay::new(10, 200);
    plan.sync = Delay {
        low: slow_disk / 4,
        high: slow_disk,
        slow: rng.below(4),
    };
    plan.prewrite = Span::from_ms(100);
    plan.read = Delay {
        low: 50,
        high: slow_disk,
        slow: rng.below(4),
    };
    plan.turn = Delay::new(5, rng.between(10, 500));
    plan.drain_each = rng.chance(30);
    let people = &mut plan.people;
    people.count = rng.between(4, 8) as usize;
    people.rooms = rng.between(1, 3) as usize;
    // So that all of them together do some ten things a second.
    let pace = people.count as u64 * 100_000;
    people.pace = Delay::new(pace / 10, pace * 19 / 10);
    people.burst = *rng.pick(&[1, 1, 3]).expect("three");
    people.text_max = *rng.pick(&[20, 100, 3_000]).expect("three");
    people.asks = rng.below(30);
    people.follows = rng.below(20);
    people.closes = rng.below(4);
    people.odd = rng.below(15);
    people.window = *rng.pick(&[600, 8_192, 65_536]).expect("three");
    plan.faults = [&FAULTS[..], &MORE_FAULTS].concat();
    plan.people.keyed = *rng.pick(&[0, 10, 40]).expect("three");
    if rng.chance(40) {
        age_fast(&mut plan, &mut rng);
    }
    if SERVERS_REPAIR {
        plan.faults.extend(DAMAGES);
    }
    plan.faults_apart = true;
    plan.standard = true;
    plan.fault_pace = Delay::new(STANDARD_FAULT_EVERY, STANDARD_FAULT_EVERY);
    plan.fault_span = Delay::new(50_000, *rng.pick(&[1_000_000, 3_000_000, 6_000_000]).expect("three"));
    plan.storm = STANDARD_SPAN;
    plan
}
