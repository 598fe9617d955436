//! Which server is of use: where commands are sent to, and the search for one that belongs to a majority.

use super::{Core, Link};
use crate::client::calls::Event;
use crate::limits;
use crate::types::{ServerId, Span, Tick};
use crate::wire::client::ServerAddress;

/// The search for a server with a quorum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Hunt {
    /// Servers left for another since the search began.
    pub(super) tried: usize,
    /// All were tried: the next round begins then.
    pub(super) again: Option<Tick>,
    /// The program knows that there is none.
    pub(super) told: bool,
    /// The server didn't say so itself: an answer showed it, and the server may not tell when it changes.
    pub(super) inferred: bool,
}

impl Core {
    pub(super) fn redirect(&mut self, now: Tick, leader: &ServerAddress) {
        if self.servers.prefer(leader) {
            self.leave(now);
        } else {
            // Nothing goes here, and the leader may not be used or is this very server by now.
            self.session.rewind();
            self.session.busy(now);
            if self.servers.bars(leader) && !self.hunt.told {
                self.hunt.told = true;
                self.tell(Event::Elsewhere { leader: leader.clone() });
            }
            self.without_quorum(now);
        }
    }

    pub(super) fn quorum_changed(&mut self, available: bool, new_leader: Option<ServerId>) {
        let Link::Up { quorum, leader, .. } = &mut self.link else {
            return;
        };
        if !available && self.session.asked() {
            // Perhaps only this request can't be answered now; a later one is worth a try.
            self.hunt.inferred = true;
            self.session.rewind();
        }
        // What was on the way when the quorum was lost may be lost, too.
        let back = available && !*quorum;
        *quorum = available;
        let changed = *leader != new_leader;
        *leader = new_leader;
        if changed {
            self.tell(Event::Leader(new_leader));
        }
        if back {
            self.outbox.rewind();
        }
        if available {
            self.quorum_proved();
        }
    }

    /// The server has shown that it has a quorum.
    pub(super) fn quorum_proved(&mut self) {
        self.hunt.inferred = false;
        self.quorum_is(true);
    }

    pub(super) fn quorum_is(&mut self, available: bool) {
        // A server that can't answer may still believe that it has a quorum; its hello alone doesn't end the search then.
        if available && !self.hunt.inferred {
            if self.hunt.told {
                self.tell(Event::QuorumBack);
            }
            self.hunt = Hunt::default();
        }
    }

    /// The server gave an answer that shows that it has no quorum, whatever it said before.
    pub(super) fn without_quorum(&mut self, now: Tick) {
        self.link_quorum(false);
        self.hunt.inferred = true;
        self.hunt(now);
        if matches!(self.link, Link::Up { .. }) {
            // The last resort: ask again here, and take what comes.
            self.subscriptions.rewind();
            self.questions.rewind();
        }
    }

    pub(super) fn link_quorum(&mut self, value: bool) {
        if let Link::Up { quorum, .. } = &mut self.link {
            *quorum = value;
        }
    }

    /// Whether there is no other server to ask in this round.
    pub(super) fn hunt_is_over(&self) -> bool {
        self.hunt.tried + 1 >= self.servers.len()
    }

    /// Leaves a server without a quorum for the next one, each at most once a round.
    pub(super) fn hunt(&mut self, now: Tick) {
        if !matches!(self.link, Link::Up { quorum: false, .. }) || !self.wants_quorum() {
            return;
        }
        if self.hunt.again.is_some_and(|again| again <= now) {
            self.hunt.again = None;
            self.hunt.tried = 0;
            self.servers.works();
            if self.hunt_is_over() && self.hunt.inferred {
                // There is no other server: believe this one again.
                self.hunt.inferred = false;
                self.link_quorum(true);
                return;
            }
        }
        if self.hunt.again.is_some() {
            return;
        }
        if !self.hunt_is_over() {
            self.hunt.tried += 1;
            self.leave(now);
            return;
        }
        if !self.hunt.told {
            self.hunt.told = true;
            self.tell(Event::NoQuorum);
        }
        let retry = limits::CLIENT_QUORUM_RETRY;
        self.hunt.again = Some(now.after(Span(self.rng.between(retry.0, retry.0 + retry.0 / 4))));
    }

    pub(super) fn wants_quorum(&self) -> bool {
        !self.outbox.is_empty()
            || self.session.pending()
            || self.subscriptions.want_quorum()
            || self.questions.want_quorum()
    }
}
