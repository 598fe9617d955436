//! Read positions (Ongaro's thesis, 2014, §6.4): how far must a server have applied to show everything that was committed when
//! it was asked? The leader answers only after an entry of its own term is committed and a majority has answered an append
//! that was sent after the question: a leader that was hung would answer from the past.

use std::collections::VecDeque;

use crate::cluster::message::{Member, Message};
use crate::cluster::role::RoleState;
use crate::cluster::{Cluster, Output, quorum};
use crate::limits;
use crate::types::{GroupId, LogIndex, Now, ServerId, Span, Tick};

/// The questions of this server's own clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    last_token: u64,
    last_id: u64,
    /// Oldest first.
    waiting: VecDeque<Waiting>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    token: u64,
    since: Tick,
    /// The question to the leader that it is part of, whom it went to, and when.
    asked: Option<(u64, ServerId, Tick)>,
}

/// A question that a leader has to answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// Who asks; this server itself for its own clients.
    pub(super) from: ServerId,
    id: u64,
    since: Tick,
    /// A majority must have answered this round.
    round: u64,
    /// How far the log was committed when it came.
    commit: LogIndex,
}

impl Reads {
    /// Questions that went to the old leader are asked again.
    pub(super) fn leader_changed(&mut self) {
        for waiting in &mut self.waiting {
            waiting.asked = None;
        }
    }

    pub(super) fn link_down(&mut self, server: ServerId) {
        for waiting in &mut self.waiting {
            if waiting.asked.is_some_and(|(_, to, _)| to == server) {
                waiting.asked = None;
            }
        }
    }

    /// When the oldest question ends without an answer.
    pub(super) fn deadline(&self) -> Option<Tick> {
        Some(self.waiting.front()?.since.after(limits::READ_TIMEOUT))
    }
}

impl Cluster {
    /// Asks for a position that shows everything committed by now; answered by [`Output::ReadDone`]. `None`: too many wait.
    pub fn read(&mut self, now: Now) -> Option<u64> {
        self.wake(now);
        if self.reads.waiting.len() >= limits::READS_WAITING_MAX {
            return None;
        }
        self.reads.last_token += 1;
        let token = self.reads.last_token;
        self.reads.waiting.push_back(Waiting {
            token,
            since: self.now.tick,
            asked: None,
        });
        Some(token)
    }

    /// Asks the leader, once for all questions that came since the last time.
    pub(super) fn flush_reads(&mut self) {
        let (at, me) = (self.now.tick, self.me);
        let Some(leader) = self.leader() else {
            return;
        };
        if (leader != me && !self.is_linked(leader)) || self.reads.waiting.iter().all(|waiting| waiting.asked.is_some())
        {
            return;
        }
        self.reads.last_id += 1;
        let id = self.reads.last_id;
        for waiting in &mut self.reads.waiting {
            waiting.asked.get_or_insert((id, leader, at));
        }
        if leader == me {
            self.on_read_index(me, id);
        } else {
            self.send(
                leader,
                Message::ReadIndex {
                    group: GroupId::ROOT,
                    id,
                },
            );
        }
    }

    /// A follower asks.
    pub(super) fn on_read_index(&mut self, from: ServerId, id: u64) {
        let (since, commit) = (self.now.tick, self.commit);
        match &mut self.role {
            RoleState::Leader(leader) if leader.questions.len() < limits::READS_WAITING_MAX => {
                // A round that nobody was asked yet is asked after this question too.
                if !leader.is_round_open {
                    leader.is_round_open = true;
                    leader.round += 1;
                }
                leader.questions.push_back(Question {
                    from,
                    id,
                    since,
                    round: leader.round,
                    commit,
                });
            }
            _ => self.answer_question(from, id, None),
        }
    }

    /// Answers what a majority has confirmed.
    pub(super) fn flush_questions(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        if self.commit < leader.term_start || leader.questions.is_empty() {
            return;
        }
        let rounds = |server: ServerId| match leader.progress.get(&server) {
            _ if server == self.me => leader.round,
            Some(progress) => progress.round,
            None => 0,
        };
        let Some(members) = self.roster.in_force() else {
            return;
        };
        let certain = |member: &Member| {
            if self.roster.is_certain(member) {
                rounds(member.id)
            } else {
                0
            }
        };
        let confirmed = quorum::reached(members.members.iter().map(certain).collect());
        let mut done = Vec::new();
        while let Some(question) = leader.questions.front().filter(|question| question.round <= confirmed) {
            // Everything that earlier leaders have committed is below our first entry.
            done.push((question.from, question.id, question.commit.max(leader.term_start)));
            leader.questions.pop_front();
        }
        for (from, id, index) in done {
            self.answer_question(from, id, Some(index));
        }
    }

    fn answer_question(&mut self, to: ServerId, id: u64, index: Option<LogIndex>) {
        if to == self.me {
            self.on_read_index_answer(to, id, index);
        } else {
            self.send(
                to,
                Message::ReadIndexAnswer {
                    group: GroupId::ROOT,
                    id,
                    index,
                },
            );
        }
    }

    /// We don't lead any more.
    pub(super) fn drop_questions(&mut self, questions: VecDeque<Question>) {
        for question in questions {
            self.answer_question(question.from, question.id, None);
        }
    }

    /// The leader has answered, or doesn't lead.
    pub(super) fn on_read_index_answer(&mut self, from: ServerId, id: u64, index: Option<LogIndex>) {
        let ours = |waiting: &Waiting| waiting.asked.is_some_and(|(asked, to, _)| asked == id && to == from);
        let Some(index) = index else {
            return; // asked again by `check_reads`, not at once: two servers could disagree on the leader for a while
        };
        let answered: Vec<_> = self
            .reads
            .waiting
            .iter()
            .filter(|waiting| ours(waiting))
            .map(|waiting| waiting.token)
            .collect();
        self.reads.waiting.retain(|waiting| !ours(waiting));
        for token in answered {
            self.outputs.push_back(Output::ReadDone {
                token,
                index: Some(index),
            });
        }
    }

    /// Asks again what was asked long ago, and gives up what is too old.
    pub(super) fn check_reads(&mut self) {
        let now = self.now.tick;
        let again = Span(self.config.timing.heartbeat_interval.0.saturating_mul(3));
        let mut dead = Vec::new();
        while let Some(waiting) = self.reads.waiting.front() {
            if now.since(waiting.since) < limits::READ_TIMEOUT {
                break;
            }
            dead.push(waiting.token);
            self.reads.waiting.pop_front();
        }
        for waiting in &mut self.reads.waiting {
            if waiting.asked.is_some_and(|(_, _, at)| now.since(at) >= again) {
                waiting.asked = None;
            }
        }
        for token in dead {
            self.outputs.push_back(Output::ReadDone { token, index: None });
        }
        if let RoleState::Leader(leader) = &mut self.role {
            leader
                .questions
                .retain(|question| now.since(question.since) < limits::READ_TIMEOUT);
        }
    }
}
