//! What a load cost: asked of the servers before and after, and of the system for the load generator itself.

use std::time::Instant;

use super::crew::Cluster;
use crate::client::ask::ask_usage;
use crate::machine;
use crate::types::{Span, Usage};

/// What a process spent on a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Microseconds of processor time in its own code.
    pub user_us: u64,
    /// Microseconds of processor time in the system's.
    pub system_us: u64,
    /// Bytes of its memory before.
    pub before_bytes: u64,
    /// Bytes of its memory after.
    pub after_bytes: u64,
    /// The processors on which it may run.
    pub processors: Vec<u16>,
    /// The one on which it ran last.
    pub processor: u16,
    /// Microseconds within which 99.9 % of its last turns ended, and the longest.
    pub turns_us: (u64, u64),
}

impl Spent {
    fn between(before: &Usage, from: &Usage, after: &Usage) -> Spent {
        Spent {
            user_us: after.user_us.saturating_sub(from.user_us),
            system_us: after.system_us.saturating_sub(from.system_us),
            before_bytes: before.resident_bytes,
            after_bytes: after.resident_bytes,
            processors: after.processors.clone(),
            processor: after.processor,
            turns_us: (after.turn_most_us, after.turn_longest_us),
        }
    }

    /// Seconds of processor time.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        (self.user_us + self.system_us) as f64 / 1e6
    }
}

/// What everybody spent.
#[derive(Clone, Debug, PartialEq)]
pub struct Bill {
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Id, address and what it spent, of each server; nothing of one that doesn't say.
    pub servers: Vec<(String, String, Option<Spent>)>,
    /// The load generator.
    pub generator: Spent,
}

/// A bill that is open.
pub struct Meter {
    servers: Vec<(String, String)>,
    timeout: Span,
    before: Vec<Option<Usage>>,
    from: Vec<Option<Usage>>,
    own: Usage,
    begun: Instant,
}

impl Meter {
    /// From now on.
    #[must_use]
    pub fn start(cluster: &Cluster, timeout: Span) -> Meter {
        let before = ask_all(&cluster.servers, timeout);
        Meter {
            servers: cluster.servers.clone(),
            timeout,
            from: before.clone(),
            before,
            own: machine::usage(),
            begun: Instant::now(),
        }
    }

    /// Processor time counts from now on only, memory as before.
    pub fn rest(&mut self) {
        self.from = ask_all(&self.servers, self.timeout);
        self.own = machine::usage();
        self.begun = Instant::now();
    }

    /// Until now.
    #[must_use]
    pub fn stop(self) -> Bill {
        let seconds = self.begun.elapsed().as_secs_f64();
        let own = machine::usage();
        let after = ask_all(&self.servers, self.timeout);
        let spent = self.before.iter().zip(&self.from).zip(&after);
        let spent = spent.map(|((before, from), after)| match (before, from, after) {
            // One that was started anew has begun to count anew.
            (Some(before), Some(from), Some(after)) if total(after) >= total(from) => {
                Some(Spent::between(before, from, after))
            }
            _ => None,
        });
        Bill {
            seconds,
            servers: self
                .servers
                .iter()
                .zip(spent)
                .map(|((id, address), spent)| (id.clone(), address.clone(), spent))
                .collect(),
            generator: Spent::between(&self.own, &self.own, &own),
        }
    }
}

fn total(usage: &Usage) -> u64 {
    usage.user_us + usage.system_us
}

fn ask_all(servers: &[(String, String)], timeout: Span) -> Vec<Option<Usage>> {
    let ask = |(_, address): &(String, String)| ask_usage(address, timeout).ok();
    servers.iter().map(ask).collect()
}
