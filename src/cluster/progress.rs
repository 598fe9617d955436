//! What a leader knows of one other server's log.

use std::collections::VecDeque;

use crate::cluster::checkpoint::Sending;
use crate::limits;
use crate::types::{DirectoryId, LogIndex, Tick};

/// How the leader sends to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// It looks for the place where the logs agree: one append at a time, repeated with each heartbeat.
    Probe {
        /// Whether the append is under way.
        is_out: bool,
    },
    /// The logs agree up to `received`: appends follow each other without waiting for answers.
    Replicate,
    /// It needs entries that the leader doesn't keep any more: it gets a checkpoint, and appends without entries meanwhile.
    Transfer,
}

/// One server, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// The data directory that all this is about, as far as it is known.
    pub(super) directory: Option<DirectoryId>,
    pub(super) mode: Mode,
    /// The next entry to send.
    pub(super) next: LogIndex,
    /// Up to here its log agrees with ours.
    pub(super) received: LogIndex,
    /// Up to here that is on its disk.
    pub(super) durable: LogIndex,
    /// Up to here that is on the disk of the member: what a server says with another data directory doesn't count.
    pub(super) counted: LogIndex,
    /// Appends that aren't durable there yet: (last index, bytes). Counted until durable, so that a server whose disk stands
    /// still isn't flooded.
    inflight: VecDeque<(LogIndex, usize)>,
    /// The highest entry that it has said to be on its disk, in this term. A log that ends before it has lost something.
    pub(super) acknowledged: LogIndex,
    /// Since its link came up nothing of this round or later was answered: the first answer that is tells whether it still has
    /// what it acknowledged.
    pub(super) verify: Option<u64>,
    /// It doesn't: nothing that it says counts any more.
    pub(super) has_lost: bool,
    /// The checkpoint that it gets, or got until the link was reset.
    pub(super) sending: Option<Sending>,
    inflight_bytes: usize,
    /// The entry from which the reader was asked.
    pub(super) reading: Option<LogIndex>,
    /// The reader had nothing: not before this.
    pub(super) rest_until: Tick,
    /// When it last answered an append of this term, as a member.
    pub(super) answered_at: Tick,
    /// The highest round that it has answered, as a member.
    pub(super) round: u64,
    /// The highest round that it was asked.
    pub(super) round_sent: u64,
    /// When it last forwarded something: its clients wait to hear of a commit.
    pub(super) forwarded_at: Option<Tick>,
    /// The commit position that it was last told.
    pub(super) commit_sent: LogIndex,
    /// Whether it must be sent something, be it empty.
    pub(super) is_pulse_due: bool,
}

impl Progress {
    /// At the start of a term: nothing is known, the logs are taken to agree.
    pub(super) fn new(next: LogIndex, now: Tick) -> Progress {
        Progress {
            directory: None,
            mode: Mode::Probe { is_out: false },
            next,
            received: LogIndex(0),
            durable: LogIndex(0),
            counted: LogIndex(0),
            inflight: VecDeque::new(),
            acknowledged: LogIndex(0),
            verify: None,
            has_lost: false,
            sending: None,
            inflight_bytes: 0,
            reading: None,
            rest_until: now,
            answered_at: now,
            round: 0,
            round_sent: 0,
            forwarded_at: None,
            commit_sent: LogIndex(0),
            is_pulse_due: true,
        }
    }

    /// The link is gone, or another has come: what was under way is lost, and the server may have restarted. What was
    /// durable still is, and a new link is no answer.
    pub(super) fn disconnect(&mut self, next: LogIndex, now: Tick) {
        let fresh = Progress::new(next, now);
        *self = Progress {
            directory: self.directory,
            durable: self.durable,
            counted: self.counted,
            answered_at: self.answered_at,
            round: self.round,
            acknowledged: self.acknowledged,
            has_lost: self.has_lost,
            sending: self.sending.as_ref().map(|sending| sending.again(now)),
            ..fresh
        };
    }

    /// A link has come up. With another directory, nothing that was known is true of it. What is asked from `round` on, is asked
    /// over this link.
    pub(super) fn connect(&mut self, directory: DirectoryId, next: LogIndex, now: Tick, round: u64) {
        self.disconnect(next, now);
        if self.directory.is_some_and(|before| before != directory) {
            let fresh = Progress::new(next, now);
            *self = Progress {
                answered_at: self.answered_at,
                ..fresh
            };
        }
        self.directory = Some(directory);
        self.verify = (self.acknowledged.0 > 0).then_some(round);
    }

    /// It needs what isn't kept any more. A piece that was read when it needed something else has not been sent.
    pub(super) fn transfer(&mut self, now: Tick) {
        self.mode = Mode::Transfer;
        self.sending = self.sending.as_ref().map(|sending| sending.again(now));
        self.reading = None;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    /// The server can't vouch for anything after an entry.
    pub(super) fn vouches_to(&mut self, index: LogIndex) {
        self.durable = self.durable.min(index);
        self.counted = self.counted.min(index);
    }

    pub(super) fn probe(&mut self, next: LogIndex) {
        self.mode = Mode::Probe { is_out: false };
        self.next = next;
        self.reading = None;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    /// Whether another append with entries may go.
    pub(super) fn has_room(&self) -> bool {
        match self.mode {
            Mode::Probe { is_out } => !is_out,
            Mode::Replicate => self.inflight_bytes < limits::INFLIGHT_BYTES_MAX,
            Mode::Transfer => false,
        }
    }

    /// An append with entries goes out.
    pub(super) fn sent(&mut self, last: LogIndex, bytes: usize) {
        match &mut self.mode {
            Mode::Probe { is_out } => *is_out = true,
            Mode::Replicate => {
                self.next = last.next();
                self.inflight.push_back((last, bytes));
                self.inflight_bytes += bytes;
            }
            Mode::Transfer => {}
        }
    }

    /// The server's log agrees with ours up to `received`, and is on its disk up to `durable`.
    pub(super) fn matched(&mut self, received: LogIndex, durable: LogIndex) {
        self.received = self.received.max(received);
        self.durable = self.durable.max(durable);
        self.acknowledged = self.acknowledged.max(durable);
        while self.inflight.front().is_some_and(|&(last, _)| last <= self.durable) {
            if let Some((_, bytes)) = self.inflight.pop_front() {
                self.inflight_bytes -= bytes;
            }
        }
        if self.next <= self.received {
            self.next = self.received.next();
            if self.mode == Mode::Transfer {
                self.mode = Mode::Replicate; // it has got there without
                self.sending = None;
            }
        }
        if matches!(self.mode, Mode::Probe { .. }) && self.received.next() >= self.next {
            self.mode = Mode::Replicate;
        }
    }

    /// Whether a refusal is news: not the echo of one that was handled.
    pub(super) fn is_news(&self, refused: LogIndex) -> bool {
        match self.mode {
            Mode::Probe { .. } => refused.next() == self.next,
            Mode::Replicate => refused > self.received,
            Mode::Transfer => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_sends_one_append_and_then_flows() {
        let mut progress = Progress::new(LogIndex(5), Tick(0));
        assert!(progress.has_room());
        progress.sent(LogIndex(7), 10);
        assert!(!progress.has_room());
        assert_eq!(progress.next, LogIndex(5));
        progress.matched(LogIndex(7), LogIndex(4));
        assert_eq!((progress.mode, progress.next), (Mode::Replicate, LogIndex(8)));
    }

    #[test]
    fn what_is_not_durable_at_the_follower_bounds_what_it_is_sent() {
        let mut progress = Progress::new(LogIndex(1), Tick(0));
        progress.matched(LogIndex(0), LogIndex(0));
        progress.sent(LogIndex(9), limits::INFLIGHT_BYTES_MAX);
        progress.matched(LogIndex(9), LogIndex(8));
        assert!(!progress.has_room());
        progress.matched(LogIndex(9), LogIndex(9));
        assert!(progress.has_room());
    }

    #[test]
    fn an_old_refusal_is_not_news() {
        let mut progress = Progress::new(LogIndex(10), Tick(0));
        assert!(progress.is_news(LogIndex(9)));
        progress.probe(LogIndex(4));
        assert!(!progress.is_news(LogIndex(9)));
        progress.matched(LogIndex(3), LogIndex(3));
        assert!(!progress.is_news(LogIndex(3)));
    }
}
