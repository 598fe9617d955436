//! The session and its commands: opening, acknowledgements, repetitions, and the end of a session that the cluster has forgotten.

use super::{Core, OWN, Repeats};
use crate::chat::command::{Code, Outcome};
use crate::client::calls::{Action, Event};
use crate::client::outbox;
use crate::limits;
use crate::types::{ClientSeq, SessionId, Tick};
use crate::wire::client::Ack;

impl Core {
    pub(super) fn opened(&mut self, now: Tick, session: SessionId, last: ClientSeq, name: String) {
        self.servers.works();
        self.quorum_proved();
        let new = self.session.opened(session);
        // A server that is behind may not have heard of a rename whose outcome we know already.
        if new || last >= self.outbox.acknowledged() {
            self.session.renamed(name);
        }
        let name = self.session.name().to_string();
        self.outbox.rewind();
        self.repeats = Repeats::default();
        self.repeats.overdue = self.overdue(now);
        self.tell(Event::Opened { session, name, new });
    }

    pub(super) fn open_refused(&mut self, now: Tick, code: Code, text: String) {
        match code {
            Code::Busy => self.session.busy(now),
            Code::NoSuchSession | Code::WrongSecret if self.session.id().is_some() => self.expire(),
            _ if self.closing.is_some() => self.end(),
            _ => {
                self.session.refuse();
                self.tell(Event::OpenRefused { code, text });
            }
        }
    }

    /// The cluster has forgotten the session. Whether what was sent got in before that, nobody can know; sent once more, in a
    /// new session, it could get in twice.
    pub(super) fn expire(&mut self) {
        self.session.forget();
        self.tell(Event::Expired);
        for ticket in self.outbox.forget_session() {
            if ticket == OWN {
                self.end();
                return;
            }
            self.tell(Event::Unknown { ticket });
        }
    }

    pub(super) fn acks(&mut self, now: Tick, acks: Vec<Ack>) {
        let Some(session) = self.session.attached() else {
            return;
        };
        self.servers.works();
        let expired = |ack: &Ack| ack.outcome == Outcome::Refused(Code::NoSuchSession);
        let forgotten = acks.iter().any(expired);
        for ack in acks.into_iter().filter(|ack| !expired(ack)) {
            if let Outcome::Posted { lamport, .. } = ack.outcome {
                self.saw(lamport);
            }
            self.outbox.acknowledge(ack.seq, ack.outcome);
        }
        let mut any = false;
        while let Some(finished) = self.outbox.finished() {
            any = true;
            match (&finished.action, &finished.outcome) {
                (Action::Close, _) => {
                    self.end();
                    return;
                }
                (Action::Rename { name }, Outcome::Done) => {
                    self.session.renamed(outbox::user_name(name).shown.to_string())
                }
                _ => {}
            }
            self.tell(Event::Done {
                ticket: finished.ticket,
                session,
                seq: finished.seq,
                outcome: finished.outcome,
            });
        }
        if any {
            self.repeats.count = 0;
            self.repeats.overdue = self.overdue(now);
        }
        if forgotten {
            self.expire();
        }
    }

    /// The server can't vouch for what it was sent. The first repetition goes at once; a server that goes on asking gets them
    /// at a slower and slower pace. Many commands on the way may ask many times for the same.
    pub(super) fn resend(&mut self, now: Tick, from: ClientSeq) {
        if self.outbox.rewind_to(from) && self.repeats.rest.is_none() {
            if self.repeats.count > 0 {
                let rest = limits::CLIENT_RESEND_REST
                    .times(1 << (self.repeats.count - 1).min(16))
                    .min(limits::CLIENT_BACKOFF_MAX);
                self.repeats.rest = Some(now.after(rest));
            }
            self.repeats.count = self.repeats.count.saturating_add(1);
        }
    }

    pub(super) fn overdue(&self, now: Tick) -> Option<Tick> {
        (self.outbox.unacknowledged() > 0).then(|| now.after(limits::CLIENT_RESEND_AFTER))
    }

    pub(super) fn refused(&mut self, now: Tick, code: Code, text: &str) {
        match code {
            // The connection doesn't know the session (any more): ask for it again.
            Code::NotOpen if self.session.attached().is_some() => {
                self.session.rewind();
                self.session.busy(now);
            }
            Code::Busy if self.session.asked() => self.session.busy(now),
            Code::Busy | Code::NotOpen => {
                self.outbox.rewind();
                self.repeats.rest = Some(now.after(limits::CLIENT_BUSY_REST));
            }
            _ => self.tell(Event::Notice(text.to_string())),
        }
    }
}
