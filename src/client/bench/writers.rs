//! Connections that post, and what becomes of their posts.

use std::collections::VecDeque;

use super::crew::{Cluster, Session, close, rooms};
use super::net::{Net, decode};
use super::pace::Pace;
use super::report::Latencies;
use super::{Setup, Trouble};
use crate::chat::command::Outcome;
use crate::limits;
use crate::types::{ClientSeq, Position, RoomId};
use crate::wire::bulk::{Posted, each_posted};
use crate::wire::client::Response;

/// Bytes of a text in which the time stands at which the message was due.
pub const STAMP_BYTES: usize = 16;

/// One connection.
struct Writer {
    link: usize,
    session: Session,
    /// When those that aren't acknowledged were due.
    due: VecDeque<u64>,
    /// The number of its first post.
    first: ClientSeq,
    /// The room of that, as its place in the list; each later one goes to the next.
    room: usize,
    /// Due, and not posted yet.
    waiting: Vec<u64>,
    /// A server has lost what was posted from this one on, or may have: it is to be posted again.
    again: Option<ClientSeq>,
    /// The last that was posted again: up to it, acknowledgements may come twice.
    repeated: ClientSeq,
}

impl Writer {
    fn room_of(&self, seq: ClientSeq, rooms: &[RoomId]) -> RoomId {
        let at = (self.room as u64 + seq.0 - self.first.0) % rooms.len().max(1) as u64;
        rooms.get(at as usize).copied().unwrap_or_default()
    }
}

/// All of them. Their connections have the lowest numbers, in this order.
pub struct Writers {
    list: Vec<Writer>,
    rooms: Vec<RoomId>,
    /// The positions of the rooms before the first post.
    pub before: Vec<Position>,
    text: Vec<u8>,
    stamped: bool,
    next: usize,
    /// Something that is due waits for acknowledgements.
    held: bool,
    /// Posted.
    pub sent: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Posted again, because a server had lost them.
    pub repeated: u64,
    /// When the last acknowledgement came.
    pub last: u64,
    /// Since when an acknowledgement is missed: the last one, the first post after a rest, or the last repetition.
    since: u64,
    /// From when a post was due to its acknowledgement.
    pub latencies: Latencies,
    /// How late the generator itself posted what was due.
    pub late: Latencies,
}

/// After so long without an acknowledgement all is posted again.
const NUDGE_AFTER: u64 = limits::CLIENT_RESEND_AFTER.0 * 1000;

/// What the writers write.
#[derive(Clone, Debug)]
pub struct Texts {
    /// The rooms' names.
    pub rooms: Vec<String>,
    /// Bytes of a text.
    pub size: usize,
    /// Whether the time at which a message was due stands at the front of its text.
    pub stamped: bool,
}

impl Writers {
    /// So many of them, each with a session, and the rooms found or made.
    ///
    /// # Errors
    /// If a server can't be reached, or refuses.
    pub fn open(
        net: &mut Net,
        setup: &Setup<'_>,
        cluster: &Cluster,
        count: usize,
        texts: &Texts,
    ) -> Result<Writers, Trouble> {
        let links = cluster.connect(net, count)?;
        let mut sessions = Session::open(net, setup, &links)?;
        let first = links.first().copied().zip(sessions.first_mut());
        let Some((link, session)) = first else {
            return Err(Trouble::failed("no connection was made"));
        };
        let found = rooms(net, link, session, &texts.rooms)?;
        let list = links.into_iter().zip(sessions).enumerate();
        let list = list.map(|(n, (link, session))| Writer {
            link,
            first: session.last.next(),
            session,
            due: VecDeque::new(),
            // Each begins with another room.
            room: n % found.len().max(1),
            waiting: Vec::new(),
            again: None,
            repeated: ClientSeq(0),
        });
        Ok(Writers {
            list: list.collect(),
            rooms: found.iter().map(|(room, _)| *room).collect(),
            before: found.iter().map(|(_, position)| *position).collect(),
            text: vec![b'x'; texts.size],
            stamped: texts.stamped,
            next: 0,
            held: false,
            sent: 0,
            acknowledged: 0,
            repeated: 0,
            last: 0,
            since: 0,
            latencies: Latencies::new(),
            late: Latencies::new(),
        })
    }

    /// The first room.
    #[must_use]
    pub fn room(&self) -> Option<RoomId> {
        self.rooms.first().copied()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// How many posts of a writer aren't acknowledged.
    #[must_use]
    pub fn outstanding(&self, writer: usize) -> u64 {
        self.list.get(writer).map_or(0, |writer| writer.session.outstanding())
    }

    /// Whether everything that was posted is acknowledged.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.acknowledged == self.sent
    }

    /// Appends a post of a writer that was due at that time.
    pub fn post(&mut self, writer: usize, due: u64, out: &mut Vec<u8>) {
        let Some(writer) = self.list.get_mut(writer) else {
            return;
        };
        if self.stamped {
            stamp(due, &mut self.text);
        }
        let seq = writer.session.last.next();
        writer
            .session
            .post(seq, writer.room_of(seq, &self.rooms), &self.text, out);
        writer.session.last = seq;
        writer.due.push_back(due);
        if self.acknowledged == self.sent {
            self.since = due;
        }
        self.sent += 1;
    }

    /// Appends once more what a server has asked for again. It is applied once all the same.
    pub fn post_again(&mut self, writer: usize, out: &mut Vec<u8>) {
        let Some(writer) = self.list.get_mut(writer) else {
            return;
        };
        let Some(from) = writer.again.take() else { return };
        let from = from.max(writer.session.acknowledged.next());
        for seq in (from.0..=writer.session.last.0).map(ClientSeq) {
            let due = writer.due.get((seq.0 - writer.session.acknowledged.0 - 1) as usize);
            if self.stamped {
                stamp(due.copied().unwrap_or_default(), &mut self.text);
            }
            writer
                .session
                .post(seq, writer.room_of(seq, &self.rooms), &self.text, out);
            self.repeated += 1;
        }
        writer.repeated = writer.session.last;
    }

    /// If nothing was acknowledged for long, everything is posted again: a server may have lost it with its link to another.
    ///
    /// # Errors
    /// A connection that is gone.
    pub fn nudge(&mut self, net: &mut Net, now: u64) -> Result<(), Trouble> {
        if self.is_quiet() || now < self.since + NUDGE_AFTER {
            return Ok(());
        }
        self.since = now;
        for n in 0..self.list.len() {
            let Some(writer) = self.list.get_mut(n) else { break };
            writer.again = Some(writer.session.acknowledged.next());
            net.send(writer.link, |out| self.post_again(n, out))?;
        }
        Ok(())
    }

    /// Posts what is due by now, by the writers in turn. Whether all of it went: what can't waits
    /// for acknowledgements.
    ///
    /// # Errors
    /// A connection that is gone.
    pub fn keep_pace(&mut self, net: &mut Net, pace: &mut Pace, end: u64) -> Result<bool, Trouble> {
        let now = net.now();
        let mut all = true;
        while pace.due() <= now && pace.due() < end {
            let Some(free) = self.free() else {
                all = false;
                break;
            };
            let Some(due) = pace.take(now) else { break };
            // What waited for acknowledgements is late because of the servers.
            if !self.held {
                self.late.record(now - due);
            }
            if let Some(writer) = self.list.get_mut(free) {
                writer.waiting.push(due);
            }
        }
        self.held = !all;
        for n in 0..self.list.len() {
            let Some(writer) = self.list.get_mut(n) else { break };
            if writer.waiting.is_empty() {
                continue;
            }
            let (link, mut waiting) = (writer.link, std::mem::take(&mut writer.waiting));
            net.send(link, |out| waiting.iter().for_each(|due| self.post(n, *due, out)))?;
            waiting.clear();
            if let Some(writer) = self.list.get_mut(n) {
                writer.waiting = waiting;
            }
        }
        Ok(all)
    }

    /// The next writer that may post.
    fn free(&mut self) -> Option<usize> {
        for _ in 0..self.list.len() {
            let at = self.next;
            self.next = (at + 1) % self.list.len().max(1);
            let writer = self.list.get(at)?;
            if writer.session.outstanding() + (writer.waiting.len() as u64) < WINDOW_MAX {
                return Some(at);
            }
        }
        None
    }

    /// Hears an answer to a writer.
    ///
    /// # Errors
    /// A post that was refused, lost or repeated.
    pub fn hear(
        &mut self,
        writer: usize,
        body: &[u8],
        now: u64,
        mut check: impl FnMut(&Posted) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let Some(writer) = self.list.get_mut(writer) else {
            return Ok(());
        };
        let mut wrong = Ok(());
        let all = each_posted(body, |posted| {
            let session = &mut writer.session;
            if posted.seq <= session.acknowledged && posted.seq <= writer.repeated {
                return;
            }
            if posted.seq != session.acknowledged.next() || wrong.is_err() {
                let text = || {
                    format!(
                        "{}: the acknowledgement of message {} came after that of {}",
                        session.name, posted.seq, session.acknowledged
                    )
                };
                wrong = wrong.clone().and_then(|()| Err(Trouble::wrong(text())));
                return;
            }
            session.acknowledged = posted.seq;
            session.lamport = session.lamport.max(posted.lamport);
            self.latencies
                .record(now.saturating_sub(writer.due.pop_front().unwrap_or(now)));
            self.acknowledged += 1;
            self.last = now;
            self.since = now;
            wrong = check(&posted);
        });
        wrong?;
        if all {
            return Ok(());
        }
        match decode(body)? {
            Response::Resend { from } => {
                writer.again = Some(writer.again.map_or(from, |again| again.min(from)));
                Ok(())
            }
            Response::Acks(acks) => {
                let refused = acks.into_iter().find_map(|ack| match ack.outcome {
                    Outcome::Posted { .. } => None,
                    Outcome::Refused(code) => Some(format!("message {}: {code}", ack.seq)),
                    other => Some(format!("message {}: {other:?}", ack.seq)),
                });
                Err(Trouble::refused(&refused.unwrap_or_default()))
            }
            // What servers say unasked.
            _ => Ok(()),
        }
    }

    /// Ends the sessions.
    ///
    /// # Errors
    /// A refusal.
    pub fn close(mut self, net: &mut Net) -> Result<(), Trouble> {
        let links: Vec<usize> = self.list.iter().map(|writer| writer.link).collect();
        let mut sessions: Vec<Session> = self.list.drain(..).map(|writer| writer.session).collect();
        close(net, &links, &mut sessions)
    }
}

/// The most that one session may have unacknowledged.
pub const WINDOW_MAX: u64 = limits::SESSION_RESULTS_MAX as u64;

/// Writes a time to the front of a text.
fn stamp(time: u64, text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (n, place) in text.iter_mut().take(STAMP_BYTES).enumerate() {
        *place = DIGITS[(time >> (60 - 4 * n)) as usize & 15];
    }
}

/// The time at the front of a text.
#[must_use]
pub fn stamp_of(text: &[u8]) -> Option<u64> {
    let digits = text.get(..STAMP_BYTES)?;
    digits.iter().try_fold(0_u64, |time, digit| {
        let digit = (*digit as char).to_digit(16)?;
        Some(time << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_comes_back_out_of_a_text() {
        for time in [0, 1, 0x1234_5678_9abc_def0, u64::MAX] {
            let mut text = vec![b'x'; 20];
            stamp(time, &mut text);
            assert_eq!(stamp_of(&text), Some(time));
            assert_eq!(&text[16..], b"xxxx");
        }
        assert_eq!(stamp_of(b"xxxxxxxxxxxxxxxx"), None);
        assert_eq!(stamp_of(b"00"), None);
    }
}
