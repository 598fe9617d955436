//! The connections of this server's clients and what the server owes each: which session speaks on it, which commands were taken
//! from it and not yet applied, and when the client must be asked to send them again.
//!
//! A server keeps no copy of a command that it forwarded: the client has it in its outbox until it is acknowledged. So a command
//! that may be lost (another leader, a link that broke, a gap in the log) is answered with *resend from n*, and whatever comes twice is
//! recognised when it is applied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::chat::command::{KeyId, Name, SecretHash};
use crate::limits;
use crate::types::{ClientSeq, ConnId, Lamport, SessionId, Span, Tick};

/// How long commands may go without any being applied before the client is asked to send them again.
const STALLED: Span = Span::from_ms(2_000);
/// How long after a gap in the log or a refused forward the client is asked to send again: once for all that come close together.
pub(super) const RESEND_SOON: Span = Span::from_ms(20);

/// A connection that has said hello.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Conn {
    /// The session that speaks on it.
    pub bound: Option<Bound>,
    /// The session that it is opening. Boxed, for it soon is nothing.
    pub opening: Option<Box<Opening>>,
    /// When something must be done for it: the key in the timer table.
    timer: Option<Tick>,
}

/// A session that speaks on a connection of this server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bound {
    pub session: SessionId,
    /// The number that the next command must have; `None` takes any.
    next: Option<ClientSeq>,
    /// Commands that were taken and not yet applied: number and bytes.
    sent: VecDeque<(ClientSeq, usize)>,
    /// Bytes of these.
    bytes: usize,
    /// Commands came that were not the next: the client may not know what it was asked for.
    ignored: bool,
}

impl Bound {
    /// Whether the client waits for something.
    pub fn waits(&self) -> bool {
        self.ignored || !self.sent.is_empty()
    }
}

/// An Open that is on its way through the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Opening {
    pub name: Name,
    pub key: KeyId,
    pub secret: SecretHash,
    pub lamport: Lamport,
}

/// What to do with a command that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next: take it.
    Take,
    /// It was taken already, or it comes before the one that was asked for.
    Ignore,
    /// No session on this connection, or another's command.
    NotOpen,
}

/// All connections that have said hello.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Doors {
    conns: BTreeMap<ConnId, Conn>,
    by_session: BTreeMap<SessionId, ConnId>,
    by_secret: BTreeMap<SecretHash, ConnId>,
    timers: BTreeSet<(Tick, ConnId)>,
    /// Bytes of all commands that were taken and not yet applied.
    unapplied_bytes: usize,
}

impl Doors {
    pub fn open(&mut self, conn: ConnId) {
        self.conns.entry(conn).or_default();
    }

    pub fn get(&self, conn: ConnId) -> Option<&Conn> {
        self.conns.get(&conn)
    }

    pub fn len(&self) -> usize {
        self.conns.len()
    }

    pub fn ids(&self) -> Vec<ConnId> {
        self.conns.keys().copied().collect()
    }

    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.by_session.keys().copied()
    }

    pub fn of_session(&self, session: SessionId) -> Option<ConnId> {
        self.by_session.get(&session).copied()
    }

    pub fn of_secret(&self, secret: &SecretHash) -> Option<ConnId> {
        self.by_secret.get(secret).copied()
    }

    /// Whether a command of this connection can be taken now.
    pub fn has_room(&self, conn: ConnId) -> bool {
        let bound = self.conns.get(&conn).and_then(|conn| conn.bound.as_ref());
        let full = bound.is_some_and(|bound| {
            bound.sent.len() >= limits::SESSION_RESULTS_MAX || bound.bytes >= limits::UNAPPLIED_BYTES_PER_CONNECTION_MAX
        });
        !full && self.unapplied_bytes < limits::UNAPPLIED_BYTES_MAX
    }

    /// The connection is gone; what it had is nobody's.
    pub fn close(&mut self, conn: ConnId) {
        self.unbind(conn);
        self.end_opening(conn);
        self.set_timer(conn, None);
        self.conns.remove(&conn);
    }

    /// The session speaks on this connection from now on. Gives the connection of this server on which it spoke before.
    pub fn bind(&mut self, conn: ConnId, session: SessionId) -> Option<ConnId> {
        let old = self.of_session(session).filter(|&old| old != conn);
        if let Some(old) = old {
            self.unbind(old);
        }
        self.unbind(conn);
        self.end_opening(conn);
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.bound = Some(Bound {
                bytes: 0,
                session,
                next: None,
                sent: VecDeque::new(),
                ignored: false,
            });
            self.by_session.insert(session, conn);
        }
        old
    }

    fn unbind(&mut self, conn: ConnId) {
        let Some(bound) = self.conns.get_mut(&conn).and_then(|entry| entry.bound.take()) else {
            return;
        };
        self.unapplied_bytes -= bound.bytes;
        self.by_session.remove(&bound.session);
        self.set_timer(conn, None);
    }

    /// The connection waits for an Open to be applied. Another connection on which the same client opened the same session before is
    /// not waited for any more.
    pub fn begin_opening(&mut self, now: Tick, conn: ConnId, opening: Opening) {
        self.end_opening(conn);
        if let Some(before) = self.of_secret(&opening.secret) {
            self.end_opening(before);
        }
        if let Some(entry) = self.conns.get_mut(&conn) {
            self.by_secret.insert(opening.secret, conn);
            entry.opening = Some(Box::new(opening));
            self.set_timer(conn, Some(now.after(STALLED)));
        }
    }

    pub fn end_opening(&mut self, conn: ConnId) {
        let Some(opening) = self.conns.get_mut(&conn).and_then(|entry| entry.opening.take()) else {
            return;
        };
        self.by_secret.remove(&opening.secret);
        self.set_timer(conn, None);
    }

    /// The session that spoke on the connection is no more.
    pub fn forget_session(&mut self, conn: ConnId) {
        self.unbind(conn);
    }

    /// Whether a command that came on the connection is the one to take; if it is, it counts as taken.
    pub fn take(
        &mut self,
        now: Tick,
        conn: ConnId,
        session: SessionId,
        seq: ClientSeq,
        unacknowledged: ClientSeq,
        bytes: usize,
    ) -> Verdict {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return Verdict::NotOpen;
        };
        let Some(bound) = entry.bound.as_mut().filter(|bound| bound.session == session) else {
            return Verdict::NotOpen;
        };
        // A server that is behind what the client has seen elsewhere asks for too much; the client begins at the lowest number whose
        // outcome it doesn't know. Commands that were under way when it was asked have a higher one.
        let expected = bound
            .next
            .is_none_or(|next| seq == next || (seq > next && seq == unacknowledged));
        if !expected {
            if bound.next.is_some_and(|next| seq > next) {
                bound.ignored = true;
            }
            return Verdict::Ignore;
        }
        bound.next = Some(seq.next());
        bound.ignored = false;
        bound.sent.push_back((seq, bytes));
        bound.bytes += bytes;
        self.unapplied_bytes += bytes;
        if entry.timer.is_none() {
            self.set_timer(conn, Some(now.after(STALLED)));
        }
        Verdict::Take
    }

    /// The outcome of a command of the session on this connection is known: all up to it are applied.
    pub fn applied(&mut self, now: Tick, conn: ConnId, seq: ClientSeq) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let is_opening = entry.opening.is_some();
        let Some(bound) = entry.bound.as_mut() else { return };
        let mut progress = false;
        while let Some(&(first, bytes)) = bound.sent.front()
            && first <= seq
        {
            bound.sent.pop_front();
            bound.bytes -= bytes;
            self.unapplied_bytes -= bytes;
            progress = true;
        }
        // What was asked for again may have been in the log after all; the client goes on behind it.
        bound.next = bound.next.map(|next| next.max(seq.next()));
        let waits = bound.waits();
        if progress && !is_opening {
            self.set_timer(conn, waits.then(|| now.after(STALLED)));
        }
    }

    /// The commands on this connection may be lost: ask the client at `at`, unless some are applied before.
    pub fn doubt(&mut self, conn: ConnId, at: Tick) {
        let Some(entry) = self.conns.get(&conn) else { return };
        let waits = entry.bound.as_ref().is_some_and(Bound::waits) || entry.opening.is_some();
        if waits && entry.timer.is_none_or(|timer| timer > at) {
            self.set_timer(conn, Some(at));
        }
    }

    /// The commands of all connections may be lost.
    pub fn doubt_all(&mut self, at: Tick) {
        for conn in self.ids() {
            self.doubt(conn, at);
        }
    }

    /// Begins again after the session's last applied command: the client is to send from `from` on.
    pub fn restart(&mut self, now: Tick, conn: ConnId, from: ClientSeq) {
        let Some(bound) = self.conns.get_mut(&conn).and_then(|entry| entry.bound.as_mut()) else {
            return;
        };
        self.unapplied_bytes -= std::mem::take(&mut bound.bytes);
        bound.sent.clear();
        bound.ignored = false;
        bound.next = Some(from);
        self.set_timer(conn, Some(now.after(STALLED)));
    }

    /// When the next connection is due.
    pub fn deadline(&self) -> Option<Tick> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// A connection that is due; its timer is off.
    pub fn pop_due(&mut self, now: Tick) -> Option<ConnId> {
        let &(at, conn) = self.timers.first()?;
        if at > now {
            return None;
        }
        self.set_timer(conn, None);
        Some(conn)
    }

    pub fn set_timer(&mut self, conn: ConnId, at: Option<Tick>) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        // All that is applied in a turn puts it off to the same moment.
        if entry.timer == at {
            return;
        }
        if let Some(old) = entry.timer.take() {
            self.timers.remove(&(old, conn));
        }
        if let Some(at) = at {
            self.timers.insert((at, conn));
            entry.timer = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId(1);
    const SESSION: SessionId = SessionId(9);
    const NOW: Tick = Tick::from_ms(1000);

    fn bound() -> Doors {
        let mut doors = Doors::default();
        doors.open(CONN);
        assert_eq!(doors.bind(CONN, SESSION), None);
        doors
    }

    fn take(doors: &mut Doors, seq: u64, unacknowledged: u64) -> Verdict {
        doors.take(NOW, CONN, SESSION, ClientSeq(seq), ClientSeq(unacknowledged), 100)
    }

    #[test]
    fn commands_under_way_when_the_client_was_asked_again_are_not_taken() {
        let mut doors = bound();
        for seq in 5..=8 {
            assert_eq!(take(&mut doors, seq, 5), Verdict::Take);
        }
        doors.restart(NOW, CONN, ClientSeq(5));
        assert_eq!(take(&mut doors, 9, 5), Verdict::Ignore, "sent before the client knew");
        assert_eq!(take(&mut doors, 5, 5), Verdict::Take);
        assert_eq!(take(&mut doors, 5, 5), Verdict::Ignore, "taken already");
        assert_eq!(take(&mut doors, 6, 5), Verdict::Take);
    }

    #[test]
    fn a_server_that_is_behind_takes_what_the_client_still_has() {
        let mut doors = bound();
        doors.restart(NOW, CONN, ClientSeq(3));
        // The client knows the outcomes up to 6 from another server.
        assert_eq!(take(&mut doors, 8, 7), Verdict::Ignore);
        assert_eq!(take(&mut doors, 7, 7), Verdict::Take);
    }

    #[test]
    fn what_was_in_the_log_after_all_is_not_waited_for() {
        let mut doors = bound();
        for seq in 5..=7 {
            assert_eq!(take(&mut doors, seq, 5), Verdict::Take);
        }
        doors.restart(NOW, CONN, ClientSeq(5));
        doors.applied(NOW, CONN, ClientSeq(6));
        assert_eq!(
            take(&mut doors, 7, 5),
            Verdict::Take,
            "5 and 6 are answered from the state"
        );
    }

    #[test]
    fn a_session_that_is_opened_again_on_another_connection_is_answered_there() {
        let mut doors = bound();
        doors.open(ConnId(2));
        let opening = Opening {
            name: Name::default(),
            key: KeyId::default(),
            secret: SecretHash([1; 16]),
            lamport: Lamport(0),
        };
        doors.begin_opening(NOW, CONN, opening.clone());
        doors.begin_opening(NOW, ConnId(2), opening);
        doors.close(CONN);
        assert_eq!(doors.of_secret(&SecretHash([1; 16])), Some(ConnId(2)));
    }

    #[test]
    fn one_connection_does_not_take_the_room_of_all() {
        let mut doors = bound();
        let half = limits::UNAPPLIED_BYTES_PER_CONNECTION_MAX / 2;
        for seq in 1..=2 {
            assert!(doors.has_room(CONN));
            doors.take(NOW, CONN, SESSION, ClientSeq(seq), ClientSeq(1), half);
        }
        assert!(!doors.has_room(CONN));
        doors.open(ConnId(2));
        assert!(doors.has_room(ConnId(2)));
    }

    #[test]
    fn another_session_is_not_spoken_for() {
        let mut doors = bound();
        let other = doors.take(NOW, CONN, SessionId(8), ClientSeq(1), ClientSeq(1), 100);
        assert_eq!(other, Verdict::NotOpen);
        assert_eq!(
            doors.take(NOW, ConnId(2), SESSION, ClientSeq(1), ClientSeq(1), 100),
            Verdict::NotOpen
        );
    }

    #[test]
    fn what_is_taken_is_bounded_and_what_is_applied_makes_room() {
        let mut doors = bound();
        for seq in 1..=limits::SESSION_RESULTS_MAX as u64 {
            assert!(doors.has_room(CONN));
            take(&mut doors, seq, 1);
        }
        assert!(!doors.has_room(CONN));
        doors.applied(NOW, CONN, ClientSeq(10));
        assert!(doors.has_room(CONN));
        doors.close(CONN);
        assert_eq!(doors.unapplied_bytes, 0);
        assert_eq!(doors.deadline(), None);
    }

    #[test]
    fn silence_is_noticed_and_progress_puts_it_off() {
        let mut doors = bound();
        take(&mut doors, 1, 1);
        take(&mut doors, 2, 1);
        let first = doors.deadline();
        assert_eq!(first, Some(NOW.after(STALLED)));
        let later = NOW.after(RESEND_SOON);
        doors.applied(later, CONN, ClientSeq(1));
        assert_eq!(doors.deadline(), Some(later.after(STALLED)));
        assert_eq!(doors.pop_due(later), None);
        doors.doubt(CONN, later);
        assert_eq!(doors.pop_due(later), Some(CONN));
        doors.applied(later, CONN, ClientSeq(2));
        assert_eq!(doors.deadline(), None);
        doors.doubt(CONN, later);
        assert_eq!(doors.deadline(), None, "nothing waits");
    }

    #[test]
    fn a_session_that_goes_on_elsewhere_leaves_its_old_connection() {
        let mut doors = bound();
        take(&mut doors, 1, 1);
        doors.open(ConnId(2));
        assert_eq!(doors.bind(ConnId(2), SESSION), Some(CONN));
        assert_eq!(doors.of_session(SESSION), Some(ConnId(2)));
        assert_eq!(doors.unapplied_bytes, 0);
        assert_eq!(take(&mut doors, 2, 1), Verdict::NotOpen);
        doors.close(CONN);
        assert_eq!(
            doors.of_session(SESSION),
            Some(ConnId(2)),
            "the old connection's end changes nothing"
        );
    }
}
