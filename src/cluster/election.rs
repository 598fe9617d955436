//! Who should ask for votes: nomination, by `highest` or by a ring election. It only decides who asks first, and how soon;
//! whether the nominee leads is decided by votes. So everything here may be wrong, late or lost, and costs only time.
//!
//! The best of the eligible servers is the one with the longest log (by last term, then last index), and of those the one
//! with the highest ring position. It stands at once when the leader is lost; all others wait for their turn, an election
//! time-out for each better one, and then stand whatever they believe.

use crate::cluster::heartbeat::{Beat, Peer};
use crate::cluster::message::{Datagram, LogPosition, Message, Refusal, Token};
use crate::cluster::role::{Ask, RoleState, Seeking};
use crate::cluster::{Cluster, Output, quorum};
use crate::config::Election;
use crate::limits;
use crate::types::{GroupId, Level, ServerId, Term, Tick};

/// By what nominees are compared.
type Merit = (LogPosition, u64);

impl Cluster {
    /// Whether our vote counts: there are members, and we are one, with this directory.
    pub(super) fn is_voter(&self) -> bool {
        self.formed() && !self.renounced && self.is_member(self.me, self.directory)
    }

    /// Whether we may ask for votes, whatever else we believe: not with entries that we would have to give the others and can't.
    pub(super) fn may_stand(&self) -> bool {
        self.is_voter() && self.stopping.is_none() && self.log.holes() == 0
    }

    /// Whether we could lead as far as we ourselves go, links aside: what heartbeats call fit.
    pub(super) fn could_lead(&self) -> bool {
        let stalled = self
            .durability
            .is_stalled(self.now.tick, self.config.timing.failure_timeout);
        self.may_stand() && self.fit && self.room && !stalled
    }

    fn am_eligible(&self) -> bool {
        self.could_lead() && self.working_members().len() + 1 >= self.majority()
    }

    /// Whether another server could lead, as far as we know. One that we know only by its link may.
    pub(super) fn is_eligible(&self, server: ServerId, peer: &Peer) -> bool {
        let timing = &self.config.timing;
        if !peer.is_alive(self.now.tick, timing) || self.lost() == Some(server) {
            return false;
        }
        let link = peer.link.as_ref();
        // What its former directory said last is not its word any more.
        let own = |beat: &&Beat| link.is_none_or(|link| link.directory == beat.directory);
        let Some(beat) = peer.beat.as_ref().filter(own) else {
            return link.is_some_and(|link| self.is_member(server, link.directory));
        };
        let links = beat
            .links
            .iter()
            .filter(|&&other| other != server && self.member(other).is_some())
            .count();
        self.is_member(server, beat.directory)
            && beat.flags.formed
            && beat.flags.fit
            && !beat.flags.stopping
            && links + 1 >= self.majority()
    }

    fn merit(&self) -> Merit {
        (self.log.last(), self.rank_of(self.me))
    }

    fn merit_of(&self, server: ServerId, peer: &Peer) -> Merit {
        let last = peer.beat.as_ref().map_or(self.log.last(), |beat| beat.last);
        (last, self.rank_of(server))
    }

    /// How many eligible servers are better than us. One that isn't eligible itself comes after all members.
    fn place(&self) -> u64 {
        if !self.am_eligible() {
            return self.member_count() as u64;
        }
        let mine = self.merit();
        let better = |&(&server, peer): &(&ServerId, &Peer)| {
            self.is_eligible(server, peer) && self.merit_of(server, peer) > mine
        };
        self.peers.iter().filter(better).count() as u64
    }

    fn lost(&self) -> Option<ServerId> {
        match &self.role {
            RoleState::Seeking(seeking) => seeking.lost.filter(|&lost| lost != self.me && !self.is_back(lost)),
            _ => None,
        }
    }

    /// Whether a lost leader has said since that it knows that it doesn't lead.
    fn is_back(&self, lost: ServerId) -> bool {
        let beat = self.peer(lost).and_then(|peer| peer.beat.as_ref());
        beat.is_some_and(|beat| beat.leader != Some(lost) && beat.term >= self.hard.term)
    }

    /// When we stand, whatever we believe.
    pub(super) fn turn(&self, seeking: &Seeking) -> Tick {
        let wait = self.config.timing.election_timeout.times(1 + self.place());
        seeking.wait_from.after(wait).after(seeking.jitter)
    }

    /// At the start nobody is in a hurry: the best server may still be starting. But when all are there and none has
    /// a leader, there is nothing to wait for.
    fn is_gathered(&self) -> bool {
        let gathered = |(&server, peer): (&ServerId, &Peer)| {
            let beat = peer.beat.as_ref();
            peer.link.is_some()
                && beat.is_some_and(|beat| {
                    beat.flags.formed && beat.leader.is_none() && self.is_member(server, beat.directory)
                })
        };
        self.peers.iter().all(gathered)
    }

    /// Something has changed that may let us win: stand at once if we are the nominee.
    pub(super) fn encourage(&mut self) {
        if let RoleState::Seeking(seeking) = &mut self.role
            && seeking.tries < limits::ELECTION_BACKOFF_MAX
        {
            seeking.is_prompt = true;
        }
    }

    /// Stands at once, or begins a ring election, if nothing speaks against it.
    pub(super) fn consider(&mut self) {
        let RoleState::Seeking(seeking) = &self.role else {
            return;
        };
        let waits = seeking.lost.is_none() && !self.is_gathered();
        if !seeking.is_prompt || waits || !self.am_eligible() {
            return;
        }
        match self.config.election {
            _ if self.member_count() == 1 => self.ask_votes("it is alone"),
            Election::Highest if self.place() == 0 => self.ask_votes("the highest ring position that isn't behind"),
            Election::Highest => {}
            Election::Lcr if !seeking.ring.is_sent => self.send_own_token(),
            Election::Lcr => {}
        }
    }

    /// An outranked server has asked, or one with a shorter log: we ask instead, unless we did so in vain before.
    fn stand_instead(&mut self) {
        if let RoleState::Following(_) = &self.role {
            self.become_seeking(true);
        }
        if let RoleState::Seeking(seeking) = &self.role
            && seeking.ask.is_none()
            && seeking.tries < limits::ELECTION_BACKOFF_MAX
            && self.am_eligible()
        {
            self.ask_votes("it outranks another that asked");
        }
    }

    /// The turn has come, or the last try was in vain.
    pub(super) fn check_turn(&mut self) {
        let RoleState::Seeking(seeking) = &self.role else {
            return;
        };
        if self.may_stand() && self.now.tick >= self.turn(seeking) && self.now.tick >= self.guard_until {
            self.ask_votes("its turn has come");
        }
    }

    /// Asks all members whether they would vote for us. Changes nothing at them, so that a server that was cut off
    /// doesn't disturb a leader that works.
    fn ask_votes(&mut self, why: &str) {
        let me = self.me;
        self.wait_again();
        let Some(term) = self.hard.term.0.checked_add(1).map(Term) else {
            return;
        };
        let RoleState::Seeking(seeking) = &mut self.role else {
            return;
        };
        let level = if seeking.tries == 0 { Level::Info } else { Level::Debug };
        if seeking.ask.is_some() {
            seeking.tries = seeking.tries.saturating_add(1);
        }
        seeking.ask = Some(Ask {
            term,
            granted: [me].into(),
        });
        seeking.is_prompt = false;
        seeking.ring.is_sent = false;
        self.event(level, format!("{me} stands for term {term}: {why}"));
        for server in self.linked_members() {
            self.send_pre_vote(server);
        }
        self.count_pre_votes();
    }

    /// Asks a server, while a pre-vote is out.
    pub(super) fn send_pre_vote(&mut self, server: ServerId) {
        if let RoleState::Seeking(Seeking { ask: Some(ask), .. }) = &self.role {
            let (term, last, ring) = (ask.term, self.log.last(), self.ring);
            let question = Message::PreVote {
                group: GroupId::ROOT,
                term,
                last,
                ring,
                transfer: false,
            };
            self.send(server, question);
        }
    }

    /// Another server asks whether we would vote for it.
    pub(super) fn on_pre_vote(&mut self, from: ServerId, term: Term, last: LogPosition) {
        if !self.is_voter() || !self.is_link_known(from) {
            return;
        }
        if let Some(beat) = self.peers.get_mut(&from).and_then(|peer| peer.beat.as_mut()) {
            beat.last = last;
        }
        let mine = self.log.last();
        let outranks = self.rank_of(self.me) > self.rank_of(from) && mine >= last;
        let refusal = if term <= self.hard.term {
            Refusal::TermBehind
        } else if self.is_loyal() {
            if let RoleState::Following(following) = &mut self.role {
                following.refused.insert(from, (term, last));
            }
            Refusal::HasLeader
        } else if last < mine {
            Refusal::LogBehind
        } else if outranks && self.am_eligible() && self.tries() < limits::ELECTION_BACKOFF_MAX {
            Refusal::Outranked
        } else {
            Refusal::None
        };
        let granted = refusal == Refusal::None;
        let term = if granted { term } else { self.hard.term };
        self.send(
            from,
            Message::PreVoteAnswer {
                group: GroupId::ROOT,
                term,
                granted,
                refusal,
            },
        );
        self.send_committed(from);
        match refusal {
            Refusal::Outranked => self.stand_instead(),
            Refusal::LogBehind if self.place() == 0 => self.stand_instead(),
            _ => {}
        }
    }

    fn tries(&self) -> u32 {
        match &self.role {
            RoleState::Seeking(seeking) => seeking.tries,
            RoleState::Candidate(candidate) => candidate.tries,
            RoleState::Following(_) | RoleState::Leader(_) => 0,
        }
    }

    /// The answer to a pre-vote.
    pub(super) fn on_pre_vote_answer(&mut self, from: ServerId, term: Term, granted: bool, refusal: Refusal) {
        if !self.is_link_known(from) {
            return;
        }
        let counts = self.is_link_member(from);
        if !granted && refusal == Refusal::TermBehind && term > self.hard.term {
            if let RoleState::Seeking(_) = &self.role {
                self.set_term(term, None);
                self.become_seeking(true);
                self.consider();
            }
            return;
        }
        if let RoleState::Seeking(Seeking { ask: Some(ask), .. }) = &mut self.role
            && granted
            && counts
            && term == ask.term
        {
            ask.granted.insert(from);
            self.count_pre_votes();
        }
    }

    fn count_pre_votes(&mut self) {
        let majority = self.majority();
        if let RoleState::Seeking(Seeking { ask: Some(ask), .. }) = &self.role
            && ask.granted.len() >= majority
            && ask.term == self.hard.term.next()
        {
            self.become_candidate(false);
        }
    }

    // --- The ring ---------------------------------------------------------------------------------

    /// The next live server on the ring: with the next higher position, or with the lowest after the highest.
    fn successor(&self) -> Option<ServerId> {
        let timing = &self.config.timing;
        let live = |&(&server, peer): &(&ServerId, &Peer)| {
            peer.is_alive(self.now.tick, timing) && self.lost() != Some(server) && self.member(server).is_some()
        };
        let mut ring: Vec<_> = self
            .peers
            .iter()
            .filter(live)
            .map(|(&id, peer)| (peer.ring, id))
            .collect();
        ring.sort_unstable();
        let next = ring.iter().find(|&&(ring, _)| ring > self.ring).or(ring.first());
        next.map(|&(_, server)| server)
    }

    pub(super) fn send_own_token(&mut self) {
        let (last, ring, origin) = (self.log.last(), self.ring, self.me);
        let next = Term(self.hard.term.0.saturating_add(1));
        let RoleState::Seeking(seeking) = &mut self.role else {
            return;
        };
        seeking.ring.round = seeking.ring.round.max(next);
        seeking.ring.is_sent = true;
        let token = Token {
            origin,
            round: seeking.ring.round,
            last,
            ring,
            hops: 0,
        };
        self.pass_on(token, "sent");
    }

    fn pass_on(&mut self, token: Token, how: &str) {
        let Some(to) = self.successor() else {
            return;
        };
        let token = Token {
            hops: token.hops.saturating_add(1),
            ..token
        };
        let text = format!(
            "ring election, round {}: token of {} (log {}/{}, ring {}), hop {}, {how} to {to}",
            token.round, token.origin, token.last.term, token.last.index, token.ring, token.hops
        );
        self.event(Level::Debug, text);
        self.outputs.push_back(Output::Datagram(Datagram::Token {
            to,
            group: GroupId::ROOT,
            token,
        }));
    }

    /// A token has come to us.
    pub(super) fn on_token(&mut self, token: Token) {
        let hops_max = 2 * self.member_count() as u64;
        let (me, next) = (self.me, Term(self.hard.term.0.saturating_add(1)));
        if !self.is_voter() || u64::from(token.hops) > hops_max || token.round < next {
            return;
        }
        let eligible = self.am_eligible();
        let mine = self.merit();
        let RoleState::Seeking(seeking) = &mut self.role else {
            if let RoleState::Following(following) = &mut self.role {
                // Of several that came before we suspected the leader, only the best would have gone on.
                let merit = |token: &Token| (token.round, token.last, token.ring);
                following.token = following.token.take().into_iter().chain([token]).max_by_key(merit);
            }
            return;
        };
        if token.round > seeking.ring.round {
            seeking.ring.round = token.round;
            seeking.ring.is_sent = false;
        }
        let (is_sent, asks, round) = (seeking.ring.is_sent, seeking.ask.is_some(), seeking.ring.round);
        if token.origin == me {
            if token.round == round && eligible && !asks {
                let text = format!("ring election, round {round}: the token of {me} is back");
                self.event(Level::Debug, text);
                self.ask_votes("its token went round the ring");
            }
            return;
        }
        let theirs = (token.last, self.rank_of(token.origin));
        if !eligible || theirs > mine {
            if u64::from(token.hops) < hops_max {
                self.pass_on(token, "passed on");
            }
        } else if is_sent {
            let text = format!(
                "ring election, round {round}: token of {} swallowed by {me}",
                token.origin
            );
            self.event(Level::Debug, text);
        } else {
            self.send_own_token();
        }
    }

    /// Each heartbeat interval: a token that was lost is sent again.
    pub(super) fn resend_token(&mut self) {
        if let RoleState::Seeking(seeking) = &self.role
            && seeking.ring.is_sent
            && seeking.ask.is_none()
            && self.am_eligible()
        {
            self.send_own_token();
        }
    }

    pub(super) fn majority(&self) -> usize {
        quorum::majority(self.member_count())
    }
}
