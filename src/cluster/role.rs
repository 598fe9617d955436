//! The roles of a server. What only a role knows lives in its variant, and is gone with it; a role changes only here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cluster::heartbeat::Peer;
use crate::cluster::message::{Entry, EntryKind, LogPosition, Message, Token};
use crate::cluster::progress::Progress;
use crate::cluster::read::Question;
use crate::cluster::transfer::Transfer;
use crate::cluster::{Cluster, Role};
use crate::limits;
use crate::types::{Blob, GroupId, Level, LogIndex, ServerId, Span, Term, Tick};

/// What this server is, and what it knows only as that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum RoleState {
    /// Knows no leader. Every server begins so.
    Seeking(Seeking),
    /// Has got an append of the leader of its term.
    Following(Following),
    /// Has asked for votes in its term.
    Candidate(Candidate),
    /// Leads its term.
    Leader(Box<Leader>),
}

/// Without a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seeking {
    /// The leader that was lost. `None` from the start until the first one.
    pub(super) lost: Option<ServerId>,
    /// From when this server waits for its turn.
    pub(super) wait_from: Tick,
    /// How much longer than its turn it waits, so that two don't ask at the same time for ever.
    pub(super) jitter: Span,
    /// Whether it may stand at once if it is the nominee: once for each thing that changes who can win.
    pub(super) is_prompt: bool,
    /// How often it has asked in vain.
    pub(super) tries: u32,
    /// The pre-vote that is out. It stays out until the next try: a server that refuses because it hears the leader
    /// may grant it a moment later.
    pub(super) ask: Option<Ask>,
    /// What it knows of the ring election.
    pub(super) ring: RingRound,
}

/// A pre-vote that is out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ask {
    pub(super) term: Term,
    pub(super) granted: BTreeSet<ServerId>,
}

/// A round of the ring election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RingRound {
    /// The highest round seen.
    pub(super) round: Term,
    /// Whether our own token is under way in it.
    pub(super) is_sent: bool,
}

/// With a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Following {
    pub(super) leader: ServerId,
    /// When its last append came.
    pub(super) append_at: Tick,
    /// When it last said in a datagram that it leads.
    pub(super) beat_at: Tick,
    /// The highest round seen in this term.
    pub(super) round: u64,
    /// How far our log is known to agree with the leader's.
    pub(super) matched: LogIndex,
    /// Whether there may be something to answer.
    pub(super) is_answer_due: bool,
    /// What was last answered, if it was that the logs agree.
    pub(super) answered: Option<Answered>,
    /// The last append, if it couldn't be told from it whether the logs agree: with the next one it may.
    pub(super) undecided: Option<Stretch>,
    /// Pre-votes that were refused for the leader's sake: (asker, term, end of log). If the leader is lost the next moment,
    /// the askers needn't ask again.
    pub(super) refused: BTreeMap<ServerId, (Term, LogPosition)>,
    /// A token that came before the leader was suspected here.
    pub(super) token: Option<Token>,
    /// Whether it was said that the histories differ.
    pub(super) is_difference_reported: bool,
}

/// A piece of a leader's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stretch {
    /// Where the entry before it stands.
    pub(super) prev: LogPosition,
    /// The check of the log up to there; 0 if the leader can't tell.
    pub(super) prev_chain: u32,
    /// One after the other.
    pub(super) entries: Vec<Entry>,
}

/// An answer to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Answered {
    pub(super) round: u64,
    pub(super) received: LogIndex,
    pub(super) durable: LogIndex,
    pub(super) at: Tick,
}

/// Asking for votes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    pub(super) votes: BTreeSet<ServerId>,
    /// Whether the leader has asked for it.
    pub(super) is_transfer: bool,
    pub(super) until: Tick,
    pub(super) lost: Option<ServerId>,
    pub(super) tries: u32,
}

/// Leading.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    /// The empty entry with which the term began.
    pub(super) term_start: LogIndex,
    /// Who has voted for it.
    pub(super) votes: BTreeSet<ServerId>,
    /// When it was last said that there is no checkpoint for a server that needs one.
    pub(super) no_checkpoint_at: Option<Tick>,
    /// Of every other server.
    pub(super) progress: BTreeMap<ServerId, Progress>,
    /// Counts the questions that appends ask.
    pub(super) round: u64,
    /// Whether nobody was asked this round yet, so that another question may join it.
    pub(super) is_round_open: bool,
    /// Read questions that wait for a majority, oldest first.
    pub(super) questions: VecDeque<Question>,
    /// Bytes of own entries that aren't committed.
    pub(super) uncommitted_bytes: usize,
    /// When something was last proposed.
    pub(super) proposed_at: Tick,
    /// Whether the proposal before came shortly before that.
    pub(super) is_busy: bool,
    /// Since when there has been a commit that some follower doesn't know of.
    pub(super) untold_since: Option<Tick>,
    pub(super) transfer: Option<Transfer>,
    /// Who is to be handed the lead, and since when it could have been.
    pub(super) preferred: Option<(ServerId, Tick)>,
}

impl Leader {
    /// Something is proposed.
    pub(super) fn proposes(&mut self, now: Tick) {
        if now > self.proposed_at {
            self.is_busy = now.since(self.proposed_at) <= limits::COMMIT_HOLD;
            self.proposed_at = now;
        }
    }

    /// When the followers are to be told of a commit at the latest: at once, unless another append is likely to follow that tells it too.
    pub(super) fn tell_at(&self) -> Option<Tick> {
        let hold = if self.is_busy { limits::COMMIT_HOLD } else { Span(0) };
        self.untold_since.map(|since| since.after(hold))
    }

    /// A heartbeat is due on every link.
    pub(super) fn pulse(&mut self) {
        for progress in self.progress.values_mut() {
            progress.is_pulse_due = true;
        }
    }
}

impl Seeking {
    /// What is known at the start.
    pub(super) fn at_start(now: Tick, jitter: Span) -> Seeking {
        Seeking {
            lost: None,
            wait_from: now,
            jitter,
            is_prompt: true,
            tries: 0,
            ask: None,
            ring: RingRound::default(),
        }
    }
}

impl Cluster {
    /// What this server is.
    #[must_use]
    pub fn role(&self) -> Role {
        match &self.role {
            RoleState::Leader(_) => Role::Leader,
            _ if !self.is_voter() => Role::Learner,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Seeking(_) | RoleState::Following(_) => Role::Follower,
        }
    }

    /// Whom this server takes for the leader.
    #[must_use]
    pub fn leader(&self) -> Option<ServerId> {
        match &self.role {
            RoleState::Leader(_) => Some(self.me),
            RoleState::Following(following) => Some(following.leader),
            RoleState::Seeking(_) | RoleState::Candidate(_) => None,
        }
    }

    /// The index of the entry with which our term as leader began; 0 if we don't lead.
    #[must_use]
    pub fn term_start(&self) -> LogIndex {
        match &self.role {
            RoleState::Leader(leader) => leader.term_start,
            _ => LogIndex(0),
        }
    }

    /// From any role: the leader is gone, or a higher term has come. If `is_prompt`, it may stand at once.
    pub(super) fn become_seeking(&mut self, is_prompt: bool) {
        let fresh = RoleState::Seeking(Seeking::at_start(self.now.tick, Span(0)));
        let (lost, tries, ring) = match std::mem::replace(&mut self.role, fresh) {
            RoleState::Seeking(seeking) => (seeking.lost, seeking.tries, seeking.ring),
            RoleState::Following(following) => (Some(following.leader), 0, RingRound::default()),
            RoleState::Candidate(candidate) => (candidate.lost, candidate.tries, RingRound::default()),
            RoleState::Leader(leader) => {
                self.drop_questions(leader.questions);
                (Some(self.me), 0, RingRound::default())
            }
        };
        let jitter = self.jitter(tries);
        let fresh = Seeking::at_start(self.now.tick, jitter);
        self.role = RoleState::Seeking(Seeking {
            lost,
            tries,
            is_prompt,
            ring,
            ..fresh
        });
        self.beat_due = true;
        self.reads.leader_changed();
    }

    /// From following: the leader is gone. Who was refused for its sake is answered anew, and we stand if we are the nominee.
    pub(super) fn lose_leader(&mut self, why: &str) {
        let RoleState::Following(following) = &mut self.role else {
            return;
        };
        let (leader, token) = (following.leader, following.token.take());
        let refused = std::mem::take(&mut following.refused);
        self.event(Level::Warn, format!("the leader {leader} is lost: {why}"));
        self.become_seeking(true);
        for (asker, (term, last)) in refused {
            self.on_pre_vote(asker, term, last);
        }
        if let Some(token) = token {
            self.on_token(token);
        }
        self.consider();
    }

    /// From leader: it can't lead any more.
    pub(super) fn step_down(&mut self, why: &str) {
        self.event(
            Level::Warn,
            format!("{} no longer leads in term {}: {why}", self.me, self.hard.term),
        );
        self.become_seeking(false);
    }

    /// From candidate, or while asking who would vote for us: we may not stand any more.
    pub(super) fn give_up_standing(&mut self) {
        let asks = matches!(&self.role, RoleState::Seeking(seeking) if seeking.ask.is_some());
        if asks || matches!(self.role, RoleState::Candidate(_)) {
            self.become_seeking(false);
        }
    }

    /// While seeking: begins another wait for our turn.
    pub(super) fn wait_again(&mut self) {
        let (at, tries) = (
            self.now.tick,
            if let RoleState::Seeking(seeking) = &self.role {
                seeking.tries
            } else {
                0
            },
        );
        let jitter = self.jitter(tries);
        if let RoleState::Seeking(seeking) = &mut self.role {
            seeking.wait_from = at;
            seeking.jitter = jitter;
        }
    }

    /// From seeking, candidate, or following nobody else in this term: an append of the leader of our term has come.
    pub(super) fn become_following(&mut self, leader: ServerId) {
        assert!(
            matches!(self.role, RoleState::Seeking(_) | RoleState::Candidate(_)),
            "only a server without a leader begins to follow one"
        );
        self.role = RoleState::Following(Following {
            leader,
            append_at: self.now.tick,
            beat_at: self.now.tick,
            round: 0,
            matched: LogIndex(0),
            is_answer_due: false,
            answered: None,
            undecided: None,
            refused: BTreeMap::new(),
            token: None,
            is_difference_reported: false,
        });
        self.beat_due = true;
        self.reads.leader_changed();
        self.event(Level::Info, format!("{leader} leads in term {}", self.hard.term));
    }

    /// From seeking (after a pre-vote), following (when the leader hands over) or leading (to be elected anew): asks for votes in the
    /// next term.
    pub(super) fn become_candidate(&mut self, is_transfer: bool) {
        assert!(self.is_voter(), "only a voter asks for votes");
        if let RoleState::Leader(leader) = &mut self.role {
            let questions = std::mem::take(&mut leader.questions);
            self.drop_questions(questions);
        }
        let (lost, tries) = match &self.role {
            RoleState::Seeking(seeking) => (seeking.lost, seeking.tries),
            RoleState::Following(following) if is_transfer => (Some(following.leader), 0),
            RoleState::Leader(_) if is_transfer => (Some(self.me), 0),
            _ => panic!("only a seeking server, or one that was asked to, becomes a candidate"),
        };
        let Some(term) = self.hard.term.0.checked_add(1).map(Term) else {
            return;
        };
        let until = self
            .now
            .tick
            .after(self.config.timing.election_timeout)
            .after(self.jitter(tries));
        self.set_term(term, Some((self.me, self.directory)));
        let votes = BTreeSet::new();
        self.role = RoleState::Candidate(Candidate {
            votes,
            is_transfer,
            until,
            lost,
            tries,
        });
        self.reads.leader_changed();
        self.beat_due = true;
        for server in self.linked_members() {
            self.send_vote(server);
        }
    }

    /// From candidate: a majority has voted for us.
    pub(super) fn become_leader(&mut self) {
        let RoleState::Candidate(candidate) = &self.role else {
            panic!("only a candidate becomes leader");
        };
        let voters = candidate.votes.clone();
        let votes: Vec<_> = voters.iter().map(ToString::to_string).collect();
        let why = if candidate.is_transfer {
            "the lead was handed over; votes of "
        } else {
            "votes of "
        };
        let text = format!(
            "{} leads in term {} ({why}{})",
            self.me,
            self.hard.term,
            votes.join(", ")
        );
        self.event(Level::Info, text);
        let (at, next) = (self.now.tick, self.log.last().index.next());
        let fresh = |(&server, peer): (&ServerId, &Peer)| {
            let mut progress = Progress::new(next, at);
            progress.directory = peer.link.as_ref().map(|link| link.directory);
            (server, progress)
        };
        let progress = self.peers.iter().map(fresh).collect();
        self.role = RoleState::Leader(Box::new(Leader {
            term_start: next,
            votes: voters,
            no_checkpoint_at: None,
            progress,
            round: 0,
            is_round_open: false,
            questions: VecDeque::new(),
            uncommitted_bytes: self.log.bytes_between(self.commit, self.log.last().index),
            proposed_at: self.now.tick,
            is_busy: false,
            untold_since: None,
            transfer: None,
            preferred: None,
        }));
        self.reads.leader_changed();
        self.beat_due = true;
        self.append_own(EntryKind::Noop, Blob::empty());
    }

    /// A little time, more after each vain try.
    fn jitter(&mut self, tries: u32) -> Span {
        let quarter = self.config.timing.election_timeout.0 / 4;
        Span(
            self.rng
                .below(quarter * (1 + u64::from(tries.min(limits::ELECTION_BACKOFF_MAX))) + 1),
        )
    }

    /// Asks a server for its vote, while a candidate.
    pub(super) fn send_vote(&mut self, server: ServerId) {
        if let RoleState::Candidate(candidate) = &self.role {
            let transfer = candidate.is_transfer;
            let (term, last) = (self.hard.term, self.log.last());
            self.send(
                server,
                Message::Vote {
                    group: GroupId::ROOT,
                    term,
                    last,
                    transfer,
                },
            );
        }
    }
}
