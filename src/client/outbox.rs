//! What the program wants done, in order: commands on the way, with their numbers, and those that wait unsent behind them.
//! A command keeps its number through every repetition, so the cluster does it once; outcomes are handed out in order.

use std::collections::VecDeque;

use super::calls::{Action, Fate, Ticket};
use crate::chat::admission;
use crate::chat::command::{Command, Head, Name, Outcome};
use crate::limits;
use crate::types::{Blob, ClientSeq, Lamport, SessionId, Tick};
use crate::wire;

/// A command that has a number: it was sent, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sent {
    seq: ClientSeq,
    item: Item,
    /// The session's name when it was numbered.
    user: String,
    /// Known already, but not those before it.
    outcome: Option<Outcome>,
}

/// What the program submitted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item {
    ticket: Ticket,
    action: Action,
    deadline: Option<Tick>,
}

/// A command whose outcome is known, as are those of all before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Finished {
    /// The program's name for it.
    pub ticket: Ticket,
    /// Its number.
    pub seq: ClientSeq,
    /// What it was.
    pub action: Action,
    /// What it came to.
    pub outcome: Outcome,
}

/// The outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outbox {
    sent: VecDeque<Sent>,
    waiting: VecDeque<Item>,
    /// The number of the last command that got one.
    last: ClientSeq,
    /// How many of `sent` have gone out on this connection.
    cursor: usize,
    sent_bytes: usize,
    waiting_bytes: usize,
    /// No deadline is earlier than this.
    earliest: Option<Tick>,
}

impl Outbox {
    /// Whether there is nothing to do or to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.waiting.is_empty()
    }

    /// How many commands are sent and not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.sent.len()
    }

    /// Bytes of the texts of these.
    #[must_use]
    pub fn sent_bytes(&self) -> usize {
        self.sent_bytes
    }

    /// The highest number up to which all outcomes are known.
    #[must_use]
    pub fn acknowledged(&self) -> ClientSeq {
        self.sent.front().map_or(self.last, |first| first.seq.previous())
    }

    /// Whether another command finds room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting.len() < limits::CLIENT_WAITING_MAX && self.waiting_bytes < limits::CLIENT_WAITING_BYTES_MAX
    }

    /// Puts a command at the end. The caller has looked whether there is room.
    pub fn push(&mut self, ticket: Ticket, action: Action, deadline: Option<Tick>) {
        self.waiting_bytes += text_bytes(&action);
        self.earliest = earlier(self.earliest, deadline);
        self.waiting.push_back(Item {
            ticket,
            action,
            deadline,
        });
    }

    /// The connection is another: everything that has a number goes out again.
    pub fn rewind(&mut self) {
        self.cursor = 0;
    }

    /// Everything from this number on goes out again. False if nothing of it was sent on this connection.
    pub fn rewind_to(&mut self, from: ClientSeq) -> bool {
        let at = self.sent.partition_point(|sent| sent.seq < from);
        let back = at < self.cursor;
        self.cursor = self.cursor.min(at);
        back
    }

    /// The bytes of the next command to send, if there is one that may go now.
    pub fn next(&mut self, session: SessionId, name: &str, lamport: Lamport) -> Option<Blob> {
        while self.sent.get(self.cursor).is_some_and(|sent| sent.outcome.is_some()) {
            self.cursor += 1;
        }
        if self.cursor >= self.sent.len() {
            self.number_one(name)?;
        }
        let unacknowledged = self.sent.front().map_or(self.last.next(), |front| front.seq);
        let sent = self.sent.get(self.cursor)?;
        self.cursor += 1;
        let head = Head {
            session,
            seq: sent.seq,
            unacknowledged,
            lamport,
        };
        Some(wire::command::encode(&command(head, &sent.user, &sent.item.action)))
    }

    /// Gives the first waiting command its number, if it may go.
    fn number_one(&mut self, name: &str) -> Option<()> {
        let first = self.waiting.front()?;
        let bytes = text_bytes(&first.action);
        // A command names its user, and until a rename is handed out with its outcome nobody knows which name that will be. An
        // outcome that is known while those before it aren't has changed no name yet.
        let last = self.sent.back();
        let renaming = last.is_some_and(|sent| matches!(sent.item.action, Action::Rename { .. }));
        let full = self.sent.len() >= limits::SESSION_RESULTS_MAX
            || (!self.sent.is_empty() && self.sent_bytes + bytes > limits::CLIENT_INFLIGHT_BYTES_MAX);
        if renaming || full {
            return None;
        }
        let item = self.waiting.pop_front()?;
        self.waiting_bytes -= bytes;
        self.sent_bytes += bytes;
        self.last = self.last.next();
        self.sent.push_back(Sent {
            seq: self.last,
            item,
            user: name.to_string(),
            outcome: None,
        });
        Some(())
    }

    /// The cluster says what came of a command. A second answer to the same is ignored.
    pub fn acknowledge(&mut self, seq: ClientSeq, outcome: Outcome) {
        let at = self.sent.partition_point(|sent| sent.seq < seq);
        if let Some(sent) = self.sent.get_mut(at).filter(|sent| sent.seq == seq) {
            sent.outcome.get_or_insert(outcome);
        }
    }

    /// The next command, in order, whose outcome is known.
    pub fn finished(&mut self) -> Option<Finished> {
        self.sent.front()?.outcome.as_ref()?;
        let sent = self.sent.pop_front()?;
        self.cursor = self.cursor.saturating_sub(1);
        self.sent_bytes -= text_bytes(&sent.item.action);
        Some(Finished {
            ticket: sent.item.ticket,
            seq: sent.seq,
            action: sent.item.action,
            outcome: sent.outcome?,
        })
    }

    /// The session is gone: gives back what was sent and whose outcome nobody will ever know, and begins to count anew.
    pub fn forget_session(&mut self) -> Vec<Ticket> {
        self.cursor = 0;
        self.sent_bytes = 0;
        self.last = ClientSeq(0);
        self.sent.drain(..).map(|sent| sent.item.ticket).collect()
    }

    /// When the next deadline may come.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        self.earliest
    }

    /// Those whose deadline has come, each once; `unsent` is what becomes of those that were never sent.
    pub fn expired(&mut self, now: Tick, unsent: Fate) -> Vec<(Ticket, Fate)> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        let mut next = None;
        let sent = self.sent.iter_mut().map(|sent| (&mut sent.item, Fate::Unknown));
        let waiting = self.waiting.iter_mut().map(|item| (item, unsent));
        for (item, fate) in sent.chain(waiting) {
            if item.deadline.is_some_and(|deadline| deadline <= now) {
                item.deadline = None;
                expired.push((item.ticket, fate));
            }
            next = earlier(next, item.deadline);
        }
        self.earliest = next;
        expired
    }
}

fn earlier(a: Option<Tick>, b: Option<Tick>) -> Option<Tick> {
    [a, b].into_iter().flatten().min()
}

/// What a command weighs in memory, roughly.
fn text_bytes(action: &Action) -> usize {
    match action {
        Action::Post { text, .. } | Action::Topic { text, .. } => text.len(),
        Action::Create { room, .. } | Action::Join { room } => room.len(),
        Action::Rename { name } => name.len(),
        Action::Leave { .. } | Action::Close => 0,
    }
}

/// A user's name in the form in which the cluster has it. One that can't be a name stays as it is, for the server to refuse.
pub(super) fn user_name(text: &str) -> Name {
    admission::fold_user(text).unwrap_or_else(|_| as_typed(text))
}

fn room_name(text: &str) -> Name {
    admission::fold_room(text).unwrap_or_else(|_| as_typed(text))
}

fn as_typed(text: &str) -> Name {
    Name::new(text, text)
}

fn command<'a>(head: Head, user: &'a str, action: &'a Action) -> Command<'a> {
    let user = user.into();
    match action {
        Action::Post { room, text, dedup } => Command::Post {
            head,
            room: *room,
            user,
            text: text.into(),
            dedup: *dedup,
        },
        Action::Create { room, or_find } => Command::Create {
            head,
            user,
            room: room_name(room),
            or_find: *or_find,
        },
        Action::Join { room } => Command::Join {
            head,
            user,
            room: room_name(room),
        },
        Action::Leave { room } => Command::Leave {
            head,
            user,
            room: *room,
        },
        Action::Topic { room, text } => Command::Topic {
            head,
            user,
            room: *room,
            text: text.into(),
        },
        Action::Rename { name: new } => Command::Rename {
            head,
            user,
            name: user_name(new),
        },
        Action::Close => Command::Close { head, user },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RoomId;

    fn post(text: &str) -> Action {
        Action::Post {
            room: RoomId(1),
            text: text.to_string(),
            dedup: None,
        }
    }

    fn filled(count: u64) -> Outbox {
        let mut outbox = Outbox::default();
        for n in 1..=count {
            outbox.push(Ticket(n), post("hello"), None);
        }
        outbox
    }

    fn send_all(outbox: &mut Outbox) -> Vec<Head> {
        let mut heads = Vec::new();
        while let Some(bytes) = outbox.next(SessionId(9), "ann", Lamport(5)) {
            match wire::command::decode(&bytes).unwrap() {
                Command::Post { head, .. } | Command::Rename { head, .. } => heads.push(head),
                other => panic!("unexpected {other:?}"),
            }
        }
        heads
    }

    fn seqs(heads: &[Head]) -> Vec<u64> {
        heads.iter().map(|head| head.seq.0).collect()
    }

    #[test]
    fn outcomes_come_out_in_order_whatever_order_they_come_in() {
        let mut outbox = filled(3);
        assert_eq!(seqs(&send_all(&mut outbox)), [1, 2, 3]);
        outbox.acknowledge(ClientSeq(3), Outcome::Done);
        outbox.acknowledge(ClientSeq(2), Outcome::Done);
        assert_eq!(outbox.finished(), None);
        outbox.acknowledge(ClientSeq(1), Outcome::Done);
        let order: Vec<u64> = std::iter::from_fn(|| outbox.finished()).map(|f| f.ticket.0).collect();
        assert_eq!(order, [1, 2, 3]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_new_connection_gets_everything_unacknowledged_again_with_the_same_numbers() {
        let mut outbox = filled(4);
        send_all(&mut outbox);
        outbox.acknowledge(ClientSeq(1), Outcome::Done);
        outbox.acknowledge(ClientSeq(3), Outcome::Done);
        outbox.finished();
        outbox.rewind();
        let again = send_all(&mut outbox);
        assert_eq!(seqs(&again), [2, 4], "3 is known and isn't asked again");
        assert_eq!(again[0].unacknowledged, ClientSeq(2));
    }

    #[test]
    fn no_more_is_on_the_way_than_the_cluster_keeps_outcomes_for() {
        let mut outbox = filled(1500);
        assert_eq!(send_all(&mut outbox).len(), limits::SESSION_RESULTS_MAX);
        outbox.acknowledge(ClientSeq(1), Outcome::Done);
        outbox.finished();
        assert_eq!(seqs(&send_all(&mut outbox)), [1025]);
    }

    #[test]
    fn what_follows_a_rename_waits_for_its_outcome() {
        let mut outbox = filled(1);
        outbox.push(Ticket(2), Action::Rename { name: "bob".into() }, None);
        outbox.push(Ticket(3), post("as bob"), None);
        assert_eq!(seqs(&send_all(&mut outbox)), [1, 2]);
        outbox.acknowledge(ClientSeq(1), Outcome::Done);
        outbox.acknowledge(ClientSeq(2), Outcome::Done);
        while outbox.finished().is_some() {}
        let bytes = outbox.next(SessionId(9), "bob", Lamport(5)).unwrap();
        let Command::Post { user, .. } = wire::command::decode(&bytes).unwrap() else {
            panic!()
        };
        assert_eq!(user, "bob");
    }

    #[test]
    fn a_rename_whose_outcome_came_early_holds_back_what_follows_all_the_same() {
        let mut outbox = filled(1);
        outbox.push(Ticket(2), Action::Rename { name: "bob".into() }, None);
        outbox.push(Ticket(3), post("as bob"), None);
        send_all(&mut outbox);
        outbox.acknowledge(ClientSeq(2), Outcome::Done);
        assert_eq!(outbox.finished(), None);
        assert!(send_all(&mut outbox).is_empty());
    }

    #[test]
    fn a_resend_goes_back_to_where_the_server_can_vouch_again() {
        let mut outbox = filled(5);
        send_all(&mut outbox);
        assert!(outbox.rewind_to(ClientSeq(3)));
        assert_eq!(seqs(&send_all(&mut outbox)), [3, 4, 5]);
        assert!(!outbox.rewind_to(ClientSeq(6)), "nothing to repeat");
    }

    #[test]
    fn a_gone_session_gives_back_what_was_sent_and_keeps_the_rest() {
        let mut outbox = filled(2);
        send_all(&mut outbox);
        outbox.push(Ticket(3), post("never sent"), None);
        assert_eq!(outbox.forget_session(), [Ticket(1), Ticket(2)]);
        assert_eq!(seqs(&send_all(&mut outbox)), [1], "a new session counts anew");
    }

    #[test]
    fn a_deadline_is_told_once_and_says_whether_it_was_sent() {
        let mut outbox = Outbox::default();
        outbox.push(Ticket(1), post("a"), Some(Tick(10)));
        send_all(&mut outbox);
        outbox.push(Ticket(2), post("b"), Some(Tick(20)));
        outbox.push(Ticket(3), post("c"), Some(Tick(30)));
        assert_eq!(outbox.deadline(), Some(Tick(10)));
        assert_eq!(outbox.expired(Tick(9), Fate::NoQuorum), []);
        assert_eq!(
            outbox.expired(Tick(20), Fate::NoQuorum),
            [(Ticket(1), Fate::Unknown), (Ticket(2), Fate::NoQuorum)]
        );
        assert_eq!(outbox.deadline(), Some(Tick(30)));
    }
}
