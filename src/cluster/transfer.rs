//! Handing over the lead (Ongaro's thesis, 2014, §3.10): the leader takes nothing new, waits until the other has everything on
//! its disk, and tells it to stand. Nothing is lost and nobody waits for a time-out.

use crate::cluster::Cluster;
use crate::cluster::message::Message;
use crate::cluster::progress::{Mode, Progress};
use crate::cluster::role::RoleState;
use crate::config::LeaderMode;
use crate::limits;
use crate::types::{GroupId, Level, Now, ServerId, Term, Tick};

/// A hand-over that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    to: ServerId,
    since: Tick,
    /// Whether it was told to stand.
    is_told: bool,
}

impl Cluster {
    /// Whether leadership is being handed over: nothing is proposed meanwhile.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        matches!(&self.role, RoleState::Leader(leader) if leader.transfer.is_some())
    }

    /// Stop in good order: a leader hands over first, and nobody elects us any more.
    pub fn stop(&mut self, now: Now) {
        self.wake(now);
        if self.stopping.is_none() {
            self.stopping = Some(self.now.tick);
            self.beat_due = true;
            self.check_transfer();
        }
    }

    /// Whether nothing is left to wait for since [`stop`](Cluster::stop).
    #[must_use]
    pub fn stopped(&self, now: Now) -> bool {
        let Some(since) = self.stopping else {
            return false;
        };
        let alone = self.linked_members().is_empty();
        let late = now.tick.since(since) >= limits::HAND_OVER_TIMEOUT;
        !matches!(self.role, RoleState::Leader(_)) || alone || late
    }

    /// Whether a server could take over now: it could lead, its log is nearly ours, and it answers.
    fn could_take_over(&self, server: ServerId, progress: &Progress) -> bool {
        let timing = &self.config.timing;
        let patience = timing.heartbeat_interval.times(3);
        self.is_link_member(server)
            && self.peer(server).is_some_and(|peer| self.is_eligible(server, peer))
            && progress.mode == Mode::Replicate
            && self.log.last().index.0 - progress.received.0 <= limits::CAUGHT_UP_ENTRIES
            && self.now.tick.since(progress.answered_at) <= patience
    }

    /// The best server that could take over, of those that outrank us if `is_higher`.
    fn heir(&self, is_higher: bool) -> Option<ServerId> {
        let RoleState::Leader(leader) = &self.role else {
            return None;
        };
        let own = self.rank_of(self.me);
        let fits = |&(&server, progress): &(&ServerId, &Progress)| {
            (!is_higher || self.rank_of(server) > own) && self.could_take_over(server, progress)
        };
        let heirs = leader.progress.iter().filter(fits);
        heirs
            .map(|(&server, _)| server)
            .max_by_key(|&server| self.rank_of(server))
    }

    /// Begins or gives up a hand-over.
    pub(super) fn check_transfer(&mut self) {
        let now = self.now.tick;
        let stopping = self.stopping.is_some();
        let urgent = if stopping {
            Some("this server stops")
        } else if !self.room {
            Some("its disk is nearly full")
        } else if self.repair.is_vain() {
            // Another leader has a checkpoint for us in the place of what nobody can give us.
            Some("it can't read entries of its log, and nobody has them")
        } else {
            None
        };
        let heir = self.heir(urgent.is_none());
        let preferred = self.config.leader == LeaderMode::Preferred;
        let timeout = self.config.timing.election_timeout;
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        if let Some(transfer) = &leader.transfer {
            if now.since(transfer.since) >= timeout {
                let to = transfer.to;
                leader.transfer = None;
                leader.preferred = None;
                self.event(
                    Level::Warn,
                    format!("{to} didn't take the lead in time: {} goes on", self.me),
                );
            }
            return;
        }
        let Some(heir) = heir.filter(|_| urgent.is_some() || preferred) else {
            leader.preferred = None;
            return;
        };
        let since = leader
            .preferred
            .filter(|&(server, _)| server == heir)
            .map_or(now, |(_, since)| since);
        leader.preferred = Some((heir, since));
        if stopping || now.since(since) >= limits::PREFERRED_AFTER {
            leader.transfer = Some(Transfer {
                to: heir,
                since: now,
                is_told: false,
            });
            let why = urgent.unwrap_or("it has the higher ring position");
            self.event(Level::Info, format!("{} hands the lead over to {heir}: {why}", self.me));
        }
    }

    /// Tells the heir to stand once it has everything on its disk.
    pub(super) fn flush_transfer(&mut self) {
        let (last, term) = (self.log.last().index, self.hard.term);
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(transfer) = &mut leader.transfer else {
            return;
        };
        let to = transfer.to;
        let ready = leader
            .progress
            .get(&to)
            .is_some_and(|progress| progress.durable >= last);
        if ready && !transfer.is_told {
            transfer.is_told = true;
            self.send(
                to,
                Message::TransferNow {
                    group: GroupId::ROOT,
                    term,
                },
            );
        }
    }

    /// Our leader wants us to lead.
    pub(super) fn on_transfer_now(&mut self, from: ServerId, term: Term) {
        let asked =
            term == self.hard.term && matches!(&self.role, RoleState::Following(following) if following.leader == from);
        if asked && self.could_lead() {
            self.become_candidate(true);
        }
    }
}
