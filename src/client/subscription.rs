//! The rooms that a client reads: each item once and in order, by its position, over any number of connections and servers.

use std::collections::BTreeMap;

use super::calls::Event;
use crate::chat::command::Code;
use crate::limits;
use crate::types::{Position, RoomId, Seq, Tick};
use crate::wire::client::{From, Item, Request, RoomInfo, Until};

/// How often a server may say that a room isn't there before that is believed: one that has just come back may not know it yet.
const MISSING_BELIEVED: u32 = 10;

/// How far a subscription is on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// To be asked, not before this.
    Unasked(Tick),
    /// Asked under this id.
    Asked(u64),
    /// The server has said yes.
    Flowing,
}

/// A room that is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subscription {
    from: From,
    until: Until,
    stale: bool,
    stage: Stage,
    /// The position that comes next; `None` before the first item.
    next: Option<Position>,
    /// The last message's number, to tell what a gap took; `None` if it isn't known.
    seq: Option<Seq>,
    fresh: bool,
    /// It was asked without asking for freshness.
    weakened: bool,
    missing: u32,
    /// The position from which it was asked again because something was missing; if that stays so, it is gone for ever.
    gap_at: Option<Position>,
}

impl Subscription {
    /// Whether it is believed that what comes next is missing: only if it stays so when it is asked for once more.
    fn believes(&mut self, now: Tick, next: Position) -> bool {
        if self.gap_at != Some(next) {
            self.gap_at = Some(next);
            self.stage = Stage::Unasked(now);
            return false;
        }
        self.stage == Stage::Flowing
    }
}

/// What is to be done after a server's answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Tell the program.
    Tell(Vec<Event>),
    /// The server has no quorum, and the subscription wants one.
    NotFresh,
}

/// All rooms that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subscriptions {
    rooms: BTreeMap<RoomId, Subscription>,
}

/// Where to begin so that the last `count` messages of this room are shown and nothing is missed, however often the
/// connection is lost before the first item.
#[must_use]
pub fn last(count: u32, info: &RoomInfo) -> From {
    if count == 0 {
        From::Position(Position(info.position.0.saturating_add(1)))
    } else if info.seq == Seq(0) {
        From::AfterSeq(Seq(0))
    } else {
        From::Last(count)
    }
}

impl Subscriptions {
    /// Reads a room; false if there are too many.
    pub fn add(&mut self, now: Tick, room: RoomId, from: From, until: Until, stale: bool) -> bool {
        let full = self.rooms.len() >= limits::SUBSCRIPTIONS_PER_CONNECTION_MAX && !self.rooms.contains_key(&room);
        if !full {
            let next = match from {
                From::Position(position) => Some(position),
                _ => None,
            };
            let subscription = Subscription {
                from,
                until,
                stale,
                stage: Stage::Unasked(now),
                next,
                seq: match from {
                    From::AfterSeq(seq) => Some(seq),
                    From::Position(Position(0 | 1)) => Some(Seq(0)),
                    _ => None,
                },
                fresh: true,
                weakened: false,
                missing: 0,
                gap_at: None,
            };
            self.rooms.insert(room, subscription);
        }
        !full
    }

    /// Reads a room no more; whether it was read.
    pub fn remove(&mut self, room: RoomId) -> bool {
        self.rooms.remove(&room).is_some()
    }

    /// Whether none is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Whether any of them wants a server with a quorum.
    #[must_use]
    pub fn want_quorum(&self) -> bool {
        self.rooms.values().any(|s| !s.stale)
    }

    /// Whether an answer is due.
    #[must_use]
    pub fn await_answer(&self) -> bool {
        self.rooms
            .values()
            .any(|s| matches!(s.stage, Stage::Asked(_)) || s.until != Until::Forever)
    }

    /// The connection is another one: all are asked again.
    pub fn rewind(&mut self) {
        for subscription in self.rooms.values_mut() {
            subscription.stage = Stage::Unasked(Tick(0));
        }
    }

    /// When the next is to be asked.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let due = |s: &Subscription| match s.stage {
            Stage::Unasked(at) => Some(at),
            _ => None,
        };
        self.rooms.values().filter_map(due).min()
    }

    /// The next request, if one is due; `id` is used for it. A server without a quorum is asked for what it has: for more it
    /// would only keep the question for as long as it hopes.
    pub fn ask(&mut self, now: Tick, id: u64, quorum: bool) -> Option<Request> {
        for (&room, subscription) in &mut self.rooms {
            if matches!(subscription.stage, Stage::Unasked(at) if at <= now) {
                subscription.stage = Stage::Asked(id);
                let weakened = !quorum && subscription.until == Until::Now;
                subscription.weakened = weakened;
                return Some(Request::Subscribe {
                    id,
                    room,
                    from: subscription.next.map_or(subscription.from, From::Position),
                    until: if weakened { Until::Here } else { subscription.until },
                });
            }
        }
        None
    }

    /// The answer to a request.
    pub fn subscribed(
        &mut self,
        now: Tick,
        id: u64,
        room: RoomId,
        exists: bool,
        fresh: bool,
        last_try: bool,
    ) -> Verdict {
        let Some(subscription) = self.rooms.get_mut(&room).filter(|s| s.stage == Stage::Asked(id)) else {
            return Verdict::Tell(Vec::new());
        };
        if !fresh && !subscription.stale && !last_try {
            return Verdict::NotFresh;
        }
        subscription.fresh = fresh && !subscription.weakened;
        if exists {
            subscription.stage = Stage::Flowing;
            return Verdict::Tell(Vec::new());
        }
        subscription.missing += 1;
        if subscription.missing < MISSING_BELIEVED {
            subscription.stage = Stage::Unasked(now.after(limits::CLIENT_BUSY_REST));
            return Verdict::Tell(Vec::new());
        }
        self.rooms.remove(&room);
        Verdict::Tell(vec![refused(room, Code::NoSuchRoom, "there is no such room")])
    }

    /// A request was refused. `None` if the id is none of ours.
    pub fn refused(&mut self, now: Tick, id: u64, code: Code, text: &str) -> Option<Vec<Event>> {
        let (&room, subscription) = self.rooms.iter_mut().find(|(_, s)| s.stage == Stage::Asked(id))?;
        if code == Code::Busy {
            subscription.stage = Stage::Unasked(now.after(limits::CLIENT_BUSY_REST));
            return Some(Vec::new());
        }
        self.rooms.remove(&room);
        Some(vec![refused(room, code, text)])
    }

    /// Something in a room. What was seen already is dropped.
    pub fn item(&mut self, now: Tick, item: Item) -> Vec<Event> {
        let Some(subscription) = self.rooms.get_mut(&item.room) else {
            return Vec::new();
        };
        // Between asking and the answer, what an earlier subscription had on the way may still come; with a position to
        // compare, it is as good as any other.
        if subscription.stage != Stage::Flowing && subscription.next.is_none() {
            return Vec::new();
        }
        let next = subscription.next.unwrap_or(item.position);
        if item.position < next {
            return Vec::new();
        }
        let mut events = Vec::new();
        if item.position > next {
            if !subscription.believes(now, next) {
                return Vec::new();
            }
            let last = if item.seq == Seq(0) {
                subscription.seq.unwrap_or_default()
            } else {
                item.seq.previous()
            };
            let first = subscription.seq.map_or(last.next(), Seq::next);
            events.push(Event::Gap {
                room: item.room,
                positions: (next, item.position.previous()),
                seqs: (first, last),
            });
        }
        subscription.next = Some(Position(item.position.0.saturating_add(1)));
        if item.seq > Seq(0) {
            subscription.seq = Some(item.seq);
        }
        // A server that was behind began after the last message that it had.
        let known = matches!(subscription.from, From::AfterSeq(after) if Seq(0) < item.seq && item.seq <= after);
        if !known {
            events.push(Event::Item(item));
        }
        events
    }

    /// The server says that these items are kept no more, and goes on behind them.
    pub fn gap(&mut self, now: Tick, room: RoomId, positions: (Position, Position), seqs: (Seq, Seq)) -> Vec<Event> {
        let Some(subscription) = self.rooms.get_mut(&room) else {
            return Vec::new();
        };
        // As with items: what an earlier subscription had on the way is as good, if there is a position to compare.
        let next = subscription.next;
        if (subscription.stage != Stage::Flowing && next.is_none()) || next.is_some_and(|next| positions.1 < next) {
            return Vec::new();
        }
        if let Some(next) = next
            && positions.0 > next
            && !subscription.believes(now, next)
        {
            return Vec::new();
        }
        // Who asked for the last ones gets as many as there are, and misses nothing.
        let asked_for = next.is_some() || !matches!(subscription.from, From::Last(_));
        let first = match (subscription.seq, seqs.0) {
            (Some(seq), first) => seq.next().max(first),
            (None, Seq(0)) => seqs.1.next(),
            (None, first) => first,
        };
        subscription.next = Some(positions.1.next());
        subscription.seq = Some(subscription.seq.unwrap_or_default().max(seqs.1));
        if !asked_for {
            return Vec::new();
        }
        vec![Event::Gap {
            room,
            positions: (next.unwrap_or(positions.0), positions.1),
            seqs: (first, seqs.1),
        }]
    }

    /// A subscription has come to its end.
    pub fn end(&mut self, room: RoomId) -> Vec<Event> {
        match self.rooms.get(&room) {
            Some(s) if s.stage == Stage::Flowing && s.until != Until::Forever => {
                let fresh = s.fresh;
                self.rooms.remove(&room);
                vec![Event::End { room, fresh }]
            }
            _ => Vec::new(),
        }
    }
}

fn refused(room: RoomId, code: Code, text: &str) -> Event {
    Event::SubscribeRefused {
        room,
        code,
        text: text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClientSeq, Lamport, SessionId};
    use crate::wire::client::What;

    const ROOM: RoomId = RoomId(1);

    fn item(position: u64) -> Item {
        Item {
            room: ROOM,
            position: Position(position),
            seq: Seq(position),
            lamport: Lamport(position),
            time_ms: 0,
            session: SessionId(0),
            client_seq: ClientSeq(0),
            user: "ann".into(),
            what: What::Message("x".into()),
        }
    }

    fn flowing(from: From) -> Subscriptions {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(Tick(0), ROOM, from, Until::Forever, false);
        answer(&mut subscriptions, 1);
        subscriptions
    }

    fn answer(subscriptions: &mut Subscriptions, id: u64) -> Option<Request> {
        let request = subscriptions.ask(Tick(0), id, true);
        subscriptions.subscribed(Tick(0), id, ROOM, true, true, false);
        request
    }

    fn positions(events: &[Event]) -> Vec<u64> {
        let position = |event: &Event| match event {
            Event::Item(item) => item.position.0,
            Event::Gap { .. } => 0,
            other => panic!("unexpected {other:?}"),
        };
        events.iter().map(position).collect()
    }

    #[test]
    fn after_a_lost_connection_reading_goes_on_without_repeats_or_gaps() {
        let mut subscriptions = flowing(From::Last(10));
        assert_eq!(positions(&subscriptions.item(Tick(0), item(7))), [7]);
        assert_eq!(positions(&subscriptions.item(Tick(0), item(8))), [8]);
        subscriptions.rewind();
        let request = answer(&mut subscriptions, 2);
        assert!(
            matches!(
                request,
                Some(Request::Subscribe {
                    from: From::Position(Position(9)),
                    ..
                })
            ),
            "{request:?}"
        );
        assert_eq!(positions(&subscriptions.item(Tick(0), item(8))), [] as [u64; 0]);
        assert_eq!(positions(&subscriptions.item(Tick(0), item(9))), [9]);
    }

    #[test]
    fn messages_before_the_first_that_was_asked_for_are_not_shown() {
        let mut subscriptions = flowing(From::AfterSeq(Seq(50)));
        let mut shown = Vec::new();
        for position in 41..=52 {
            shown.extend(positions(&subscriptions.item(Tick(0), item(position))));
        }
        assert_eq!(shown, [51, 52]);
    }

    #[test]
    fn a_hole_is_asked_for_again_and_told_only_if_it_stays() {
        let mut subscriptions = flowing(From::AfterSeq(Seq(0)));
        subscriptions.item(Tick(0), item(1));
        assert!(subscriptions.item(Tick(0), item(4)).is_empty());
        assert!(answer(&mut subscriptions, 2).is_some());
        let events = subscriptions.item(Tick(0), item(4));
        assert_eq!(
            events[0],
            Event::Gap {
                room: ROOM,
                positions: (Position(2), Position(3)),
                seqs: (Seq(2), Seq(3))
            }
        );
        assert_eq!(positions(&events), [0, 4]);
    }

    fn seqs(events: &[Event]) -> Option<(u64, u64)> {
        match events {
            [Event::Gap { seqs: (from, to), .. }] => Some((from.0, to.0)),
            [] => None,
            other => panic!("unexpected {other:?}"),
        }
    }

    fn gap(subscriptions: &mut Subscriptions, positions: (u64, u64), seqs: (u64, u64)) -> Vec<Event> {
        let positions = (Position(positions.0), Position(positions.1));
        subscriptions.gap(Tick(0), ROOM, positions, (Seq(seqs.0), Seq(seqs.1)))
    }

    #[test]
    fn a_gap_is_told_once_and_reading_goes_on_behind_it() {
        let mut subscriptions = flowing(From::AfterSeq(Seq(3)));
        let events = gap(&mut subscriptions, (0, 20), (4, 20));
        assert_eq!(seqs(&events), Some((4, 20)));
        assert!(gap(&mut subscriptions, (0, 20), (4, 20)).is_empty());
        assert!(subscriptions.item(Tick(0), item(20)).is_empty());
        assert_eq!(positions(&subscriptions.item(Tick(0), item(21))), [21]);
        // The connection is another one, and more is gone meanwhile: what was seen isn't lost.
        subscriptions.rewind();
        let request = answer(&mut subscriptions, 2);
        assert!(
            matches!(request, Some(Request::Subscribe { from: From::Position(at), .. }) if at == Position(22)),
            "{request:?}"
        );
        let events = gap(&mut subscriptions, (22, 30), (0, 30));
        assert_eq!(
            events,
            [Event::Gap {
                room: ROOM,
                positions: (Position(22), Position(30)),
                seqs: (Seq(22), Seq(30))
            }]
        );
        assert_eq!(positions(&subscriptions.item(Tick(0), item(31))), [31]);
    }

    #[test]
    fn who_asks_for_the_last_ones_gets_as_many_as_there_are_and_no_gap() {
        let mut subscriptions = flowing(From::Last(10));
        assert!(gap(&mut subscriptions, (0, 20), (15, 20)).is_empty());
        assert_eq!(positions(&subscriptions.item(Tick(0), item(21))), [21]);
        assert_eq!(seqs(&gap(&mut subscriptions, (22, 25), (0, 25))), Some((22, 25)));
    }

    #[test]
    fn items_missing_before_a_gap_are_asked_for_again() {
        let mut subscriptions = flowing(From::AfterSeq(Seq(0)));
        subscriptions.item(Tick(0), item(1));
        assert!(gap(&mut subscriptions, (4, 9), (0, 9)).is_empty());
        assert!(answer(&mut subscriptions, 2).is_some());
        assert_eq!(positions(&subscriptions.item(Tick(0), item(2))), [2]);
        assert_eq!(positions(&subscriptions.item(Tick(0), item(3))), [3]);
        assert_eq!(seqs(&gap(&mut subscriptions, (4, 9), (0, 9))), Some((4, 9)));
    }

    #[test]
    fn a_gap_of_an_earlier_question_is_not_taken_for_the_answer() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(Tick(0), ROOM, From::AfterSeq(Seq(90)), Until::Forever, false);
        subscriptions.ask(Tick(0), 1, true);
        assert!(gap(&mut subscriptions, (1, 50), (1, 50)).is_empty());
        subscriptions.subscribed(Tick(0), 1, ROOM, true, true, false);
        assert_eq!(positions(&subscriptions.item(Tick(0), item(91))), [91]);
    }

    #[test]
    fn an_empty_room_loses_nothing_that_comes_while_the_connection_is_down() {
        let mut info = RoomInfo {
            room: ROOM,
            name: "lobby".into(),
            topic: String::new(),
            members: 0,
            position: Position(0),
            seq: Seq(0),
        };
        assert_eq!(last(10, &info), From::AfterSeq(Seq(0)));
        assert_eq!(last(0, &info), From::Position(Position(1)));
        info.seq = Seq(3);
        assert_eq!(last(10, &info), From::Last(10));
    }

    #[test]
    fn a_server_that_does_not_know_the_room_yet_is_asked_again() {
        let mut subscriptions = flowing(From::Last(1));
        subscriptions.rewind();
        subscriptions.ask(Tick(0), 2, true);
        let verdict = subscriptions.subscribed(Tick(0), 2, ROOM, false, true, false);
        assert_eq!(verdict, Verdict::Tell(Vec::new()));
        assert_eq!(subscriptions.ask(Tick(0), 3, true), None);
        assert!(
            subscriptions
                .ask(Tick(0).after(limits::CLIENT_BUSY_REST), 3, true)
                .is_some()
        );
    }

    #[test]
    fn an_end_says_whether_all_that_was_committed_is_there() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(Tick(0), ROOM, From::Last(1), Until::Now, false);
        subscriptions.ask(Tick(0), 1, true);
        let verdict = subscriptions.subscribed(Tick(0), 1, ROOM, true, false, false);
        assert_eq!(verdict, Verdict::NotFresh);
        subscriptions.rewind();
        subscriptions.ask(Tick(0), 2, true);
        subscriptions.subscribed(Tick(0), 2, ROOM, true, false, true);
        assert_eq!(
            subscriptions.end(ROOM),
            [Event::End {
                room: ROOM,
                fresh: false
            }]
        );
        assert!(subscriptions.is_empty());
    }
}
