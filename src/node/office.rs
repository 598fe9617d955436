//! What a leader does with commands: it holds them until it may propose, stamps them with Lamport time, clock and log age, and proposes
//! what only the leader may: releases and expiries that are due, the settings, and what isn't shown any more. A server that doesn't lead has an office too,
//! closed.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::chat::State;
use crate::chat::command::{Command, Settings, Stamp};
use crate::chat::content;
use crate::cluster::Cluster;
use crate::cluster::message::EntryKind;
use crate::config::{Config, Retention};
use crate::keep::{Holdings, Mark};
use crate::limits;
use crate::types::{Blob, ClientSeq, Lamport, LogIndex, Now, Pieces, SessionId, Span, Tick};
use crate::wire::command;

/// How many releases and expiries are proposed at once.
const DUE_MAX: usize = 256;

/// A leader's desk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Office {
    /// While this server leads and has applied the first entry of its term: only then it knows the clocks that it must not fall behind.
    desk: Option<Desk>,
    /// Commands that wait for the office to open, in the order in which they came.
    held: VecDeque<(Blob, About)>,
    held_bytes: usize,
    /// Payloads between stamping and proposing; empty otherwise.
    stamped: Pieces,
}

/// What the desk must know of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct About {
    /// Its session, and its number there, if it is a session's.
    number: Option<(SessionId, ClientSeq)>,
    /// The highest timestamp that its client had seen.
    seen: Lamport,
}

impl About {
    /// Nothing if only the leader itself may make such a command.
    pub fn of(command: &Command<'_>) -> Option<About> {
        if is_leaders(command) {
            return None;
        }
        let head = content::head(command);
        let seen = match command {
            Command::Open { lamport, .. } => *lamport,
            _ => head.map_or(Lamport(0), |head| head.lamport),
        };
        let number = head.map(|head| (head.session, head.seq));
        Some(About { number, seen })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Desk {
    /// The last stamp.
    stamp: Stamp,
    /// When the log's age was last advanced.
    aged: Tick,
    /// The last release, expiry or setting that was proposed: no more before it is applied.
    proposed: LogIndex,
}

impl Office {
    /// Whether a command of so many bytes can be held.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.held_bytes + bytes <= limits::HELD_BYTES_MAX
    }

    /// Holds a command until [`work`](Office::work). Only what every replica can read enters the log: `about` is what was read of it.
    pub fn hold(&mut self, command: Blob, about: About) {
        self.held_bytes += command.len();
        self.held.push_back((command, about));
    }

    /// As [`hold`](Office::hold), of a command from another server; what can't be read, or isn't another's to give, is dropped.
    pub fn hold_forwarded(&mut self, command: Blob) {
        if let Some(about) = command::decode(&command).ok().as_ref().and_then(About::of) {
            self.hold(command, about);
        }
    }

    /// This server doesn't lead: nothing is held, the clients send again.
    pub fn close(&mut self) {
        *self = Office::default();
    }

    /// Proposes what it may. Whether it proposed anything.
    pub fn work(
        &mut self,
        now: Now,
        config: &Arc<Config>,
        cluster: &mut Cluster,
        state: &State,
        holdings: &Holdings,
    ) -> bool {
        let start = cluster.term_start();
        if start == LogIndex(0) || state.applied() < start {
            self.desk = None;
            return false;
        }
        let clock = state.clock();
        let desk = self.desk.get_or_insert(Desk {
            stamp: clock,
            aged: now.tick,
            proposed: LogIndex(0),
        });
        let mut worked = false;
        // All that there is room for, stamped in one piece of memory.
        let (room, mut taken) = (cluster.room_for_proposals(), 0);
        while taken < room
            && let Some((bytes, about)) = self.held.pop_front()
        {
            self.held_bytes -= bytes.len();
            // The server that its client speaks to gets to the outcome by itself.
            let is_applied = |(session, seq)| state.session(session).is_some_and(|session| seq <= session.last);
            if about.number.is_some_and(is_applied) {
                continue;
            }
            desk.stamp(now, about.seen);
            self.stamped
                .push_with(|out| command::payload_into(&desk.stamp, &bytes, out));
            taken += command::STAMP_BYTES + bytes.len() + limits::ENTRY_OVERHEAD_BYTES;
        }
        if !self.stamped.is_empty() {
            worked = true;
            for payload in self.stamped.take() {
                cluster.propose(now, EntryKind::Command, payload);
            }
        }
        if cluster.can_propose() && state.applied() >= desk.proposed {
            desk.age(now.tick);
            let settings = settings(config);
            let mut due = state.due(desk.stamp.age_ms, DUE_MAX);
            if state.settings() != settings {
                due.push(Command::Settings(settings));
            }
            if let Some(index) = trim_due(config.log.retention, holdings, desk.stamp.age_ms, state) {
                due.push(Command::Trim { index });
            }
            for command in due {
                desk.stamp(now, Lamport(0));
                let payload = command::payload(&desk.stamp, &command::encode(&command));
                let index = cluster.propose(now, EntryKind::Command, payload);
                desk.proposed = index.unwrap_or(desk.proposed);
                worked = true;
            }
        }
        worked
    }

    /// When something will be due that the leader must propose.
    pub fn deadline(&self, config: &Config, state: &State, holdings: &Holdings) -> Option<Tick> {
        let desk = self.desk.as_ref().filter(|desk| state.applied() >= desk.proposed)?;
        let trim = next_trim(config.log.retention, holdings, state);
        let due_ms = state.next_due().into_iter().chain(trim).min()?;
        let wait = Span::from_ms(due_ms.saturating_sub(desk.stamp.age_ms));
        // Age advances by a bounded step a time, so the clock must be looked at that often.
        Some(desk.aged.after(wait.min(limits::AGE_STEP_MAX).max(Span::from_ms(10))))
    }
}

impl Desk {
    fn age(&mut self, now: Tick) {
        let step = now.since(self.aged).min(limits::AGE_STEP_MAX);
        // What is less than a millisecond is kept for the next time.
        self.stamp.age_ms += step.as_ms();
        self.aged = if step == limits::AGE_STEP_MAX {
            now
        } else {
            self.aged.after(Span::from_ms(step.as_ms()))
        };
    }

    /// The stamp of the next command, whose client had seen that timestamp.
    fn stamp(&mut self, now: Now, seen: Lamport) {
        self.age(now.tick);
        let ours = self.stamp.lamport.0;
        let seen = seen.0.min(ours.saturating_add(limits::LAMPORT_STEP_MAX));
        self.stamp.lamport = Lamport(ours.max(seen).saturating_add(1));
        self.stamp.time_ms = self.stamp.time_ms.max(now.wall_ms);
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        session_expiry_ms: config.chat.session_expiry.as_ms(),
        name_release_ms: config.chat.name_release.as_ms(),
    }
}

/// Whether only the leader itself may make this command: another server that sends it is mistaken.
fn is_leaders(command: &Command) -> bool {
    matches!(
        command,
        Command::Release { .. }
            | Command::Expire { .. }
            | Command::ForgetKeys
            | Command::Settings(_)
            | Command::Trim { .. }
    )
}

/// The checkpoints at which something could be given up that is shown yet, ascending. What this server hasn't applied can't be: a
/// command for it would come to less than it asks for, and be proposed again.
fn marks<'a>(holdings: &'a Holdings, state: &State) -> impl DoubleEndedIterator<Item = &'a Mark> {
    let (trimmed, applied) = (state.trimmed(), state.applied());
    let fits = move |mark: &&Mark| trimmed < mark.index && mark.index <= applied;
    holdings.marks.iter().filter(fits)
}

/// Up to where entries are to be given up at that log age, if that is more than was before. Only what is in a checkpoint can be.
fn trim_due(retention: Retention, holdings: &Holdings, age_ms: u64, state: &State) -> Option<LogIndex> {
    let mut newest_first = marks(holdings, state).rev();
    let mark = match retention {
        Retention::Forever => None,
        Retention::Age(span) => newest_first.find(|mark| mark.age_ms.saturating_add(span.as_ms()) <= age_ms),
        Retention::Size(bytes) => newest_first.find(|mark| mark.bytes_after >= bytes),
    };
    mark.map(|mark| mark.index)
}

/// The log age at which [`trim_due`] next has something because of age. Because of size it has something only when the holdings
/// change, and then the node works anyway.
fn next_trim(retention: Retention, holdings: &Holdings, state: &State) -> Option<u64> {
    let Retention::Age(span) = retention else { return None };
    let ages = marks(holdings, state).map(|mark| mark.age_ms.saturating_add(span.as_ms()));
    ages.min()
}

#[cfg(test)]
mod tests;
