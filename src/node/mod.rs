//! The pure heart: cluster, chat and the sessions of this server's clients in one state machine. [`Node::step`] takes something that
//! happened, [`Node::poll`] drains what should happen next, [`Node::deadline`] says when it wants to be woken. Mutate, then drain to
//! the end, then mutate: what belongs together (the entries of a turn, the acknowledgements of a connection) leaves together,
//! because it is gathered when draining begins. It opens no socket or file, reads no clock, draws no random number but from the
//! seed that it was given. May call `cluster`, `chat`, `wire` and the shapes of `log`.
//!
//! Reading order: `seam` (what goes in and out), this file (the turn), [`doors`] (what is owed to each client), `requests` and `commands` (what clients ask),
//! `applying` (from committed entry to acknowledgement and item), `keeping` (checkpoints, damage), [`office`] (what the leader adds), [`fanout`] (cursors).

mod applying;
mod commands;
mod doors;
pub mod fanout;
mod keeping;
mod office;
mod requests;
mod seam;
mod status;

pub use crate::types::Level;
pub use seam::{Effect, Event, Input, Setup};

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::chat::State;
use crate::cluster::message::{Record, Sender};
use crate::cluster::{Cluster, Identity, Output, Purpose, Role};
use crate::config::{Config, Routing};
use crate::keep::Holdings;
use crate::limits;
use crate::log::{Append, ItemRef, ReadAnswer, ReadFrom, ReadRequest};
use crate::types::{AppendId, ConnId, GroupId, LogIndex, Now, Pieces, RoomId, ServerId, Span, Tick};
use crate::wire::client::{Ack, Response};
use crate::wire::peer::PeerMessage;

/// How long the commit position waits for records to ride along with.
const COMMIT_ALONE: Span = Span::from_ms(30);
/// A server that applies nothing for so long although there is something committed (its disk hangs) doesn't serve its clients.
const APPLIES_STUCK: Span = Span::from_ms(500);

/// What the reader was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    /// Entries for another server: for the next append, or because it can't read its own.
    Follower(ServerId, Purpose, LogIndex),
    /// Committed entries to be applied: after a start.
    Apply,
    /// A room's items for cursors; the fan-out's token.
    Items(u64, RoomId, ReadFrom),
}

/// One server of the cluster, without its sockets, files and clocks.
#[derive(Clone, Debug)]
pub struct Node {
    config: Arc<Config>,
    me: ServerId,
    started: Tick,
    now: Now,
    cluster: Cluster,
    state: State,
    doors: doors::Doors,
    fanout: fanout::Fanout,
    office: office::Office,
    keeping: keeping::Keeping,
    /// What is kept of the log.
    holdings: Holdings,
    applying: applying::Applying,
    questions: requests::Questions,
    /// Commands of this server's clients that go to the leader this turn.
    commands: Pieces,
    /// What the leader must know of each of these.
    abouts: Vec<office::About>,
    acks: BTreeMap<ConnId, Vec<Ack>>,
    readings: BTreeMap<u64, Reading>,
    reading: u64,
    appended: AppendId,
    persisted: AppendId,
    commit_logged: LogIndex,
    /// When the commit position goes to the log even if nothing else does.
    commit_due: Option<Tick>,
    effects: VecDeque<Effect>,
    /// Something has changed since the effects were gathered.
    dirty: bool,
    /// The leader that clients were told of, and whether there is a quorum: believed until it can be known.
    told: (Option<ServerId>, bool),
    /// Since when clients are not served here.
    unserved: Option<Tick>,
    touch_at: Tick,
    /// Why nothing more is applied: an entry that this program doesn't understand.
    halted: Option<String>,
    stopping: bool,
    stopped: bool,
    rest: Vec<u8>,
}

impl Node {
    /// A server that has recovered its log.
    ///
    /// # Errors
    /// How the members in the log differ from the configuration.
    pub fn new(setup: Setup, now: Now) -> Result<Node, String> {
        let Setup {
            config,
            me,
            directory,
            boot,
            recovered,
            state,
            replaced,
            seed,
        } = setup;
        let touch_at = now.tick.after(config.chat.touch_interval);
        let identity = Identity {
            server: me,
            directory,
            boot,
            replaced,
        };
        let mut cluster = Cluster::new(Arc::clone(&config), identity, recovered, now, seed)?;
        cluster.applied(state.applied());
        Ok(Node {
            config,
            me,
            started: now.tick,
            now,
            cluster,
            state,
            doors: doors::Doors::default(),
            fanout: fanout::Fanout::default(),
            office: office::Office::default(),
            keeping: keeping::Keeping::default(),
            holdings: Holdings::default(),
            applying: applying::Applying::default(),
            questions: requests::Questions::default(),
            commands: Pieces::default(),
            abouts: Vec::new(),
            acks: BTreeMap::new(),
            readings: BTreeMap::new(),
            reading: 0,
            appended: AppendId(0),
            persisted: AppendId(0),
            commit_logged: LogIndex(0),
            commit_due: None,
            effects: VecDeque::new(),
            dirty: true,
            told: (None, true),
            unserved: Some(now.tick),
            touch_at,
            halted: None,
            stopping: false,
            stopped: false,
            rest: Vec::new(),
        })
    }

    /// Takes something that happened.
    pub fn step(&mut self, now: Now, input: Input) {
        self.now = now;
        self.dirty = true;
        match input {
            Input::Client(conn, request) => self.request(conn, request),
            Input::ClientGone(conn) => self.gone(conn),
            Input::LinkUp {
                server,
                directory,
                boot,
            } => {
                self.cluster.link_up(now, server, directory, boot);
                if self.told.0 == Some(server) {
                    // What was forwarded over the old link may not have arrived.
                    self.doors.doubt_all(now.tick.after(doors::RESEND_SOON));
                }
            }
            Input::LinkDown { server } => self.cluster.link_down(now, server),
            Input::Heard(server) => self.cluster.heard(now, server),
            Input::Peer(from, message) => self.peer(from, message),
            Input::Datagram(from, directory, datagram) => self.cluster.datagram(now, from, directory, datagram),
            Input::Persisted(id) => {
                self.persisted = self.persisted.max(id);
                self.cluster.persisted(now, id);
            }
            Input::Read(answer) => self.read(answer),
            Input::Kept(kept) => self.kept(kept),
            Input::Timer => self.timer(),
            Input::Stop => {
                self.stopping = true;
                self.cluster.stop(now);
            }
        }
    }

    /// Takes a command of a client: as [`Node::step`] with [`Request::Command`](crate::wire::client::Request), of bytes that stay where
    /// they are.
    pub fn command(&mut self, now: Now, conn: ConnId, bytes: &[u8]) {
        self.now = now;
        self.dirty = true;
        self.take_command(conn, bytes);
    }

    /// The next thing that should happen; drain to the end before the next step.
    pub fn poll(&mut self) -> Option<Effect> {
        if self.effects.is_empty() && self.dirty {
            self.dirty = false;
            self.settle();
        }
        self.effects.pop_front()
    }

    /// When [`Input::Timer`] should come at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        if self.dirty || !self.effects.is_empty() || self.applying.has_more() {
            return Some(self.now.tick);
        }
        let notice = self
            .unserved
            .filter(|_| self.told.1)
            .map(|since| since.after(limits::NO_QUORUM_NOTICE));
        let stuck = self
            .applying
            .stuck_since()
            .filter(|_| self.unserved.is_none())
            .map(|since| since.after(APPLIES_STUCK));
        let office = self
            .office
            .deadline(&self.config, &self.state, &self.holdings)
            .filter(|_| self.cluster.can_propose());
        let touch = (self.doors.sessions().next().is_some()).then_some(self.touch_at);
        let all = [
            self.cluster.deadline(),
            self.doors.deadline(),
            office,
            stuck,
            self.keeping.deadline(),
            self.questions.deadline(),
            notice,
            touch,
        ];
        all.into_iter().flatten().min()
    }

    /// The next whole items for a connection, one behind the other; the connection sends what it can and says so with
    /// [`Node::taken`]. `None`: nothing now, [`Effect::Deliver`] comes when there is.
    pub fn pump(&mut self, conn: ConnId) -> Option<&[u8]> {
        self.fanout.offer(conn);
        // A question to the reader may have come of it.
        self.dirty |= self.fanout.has_news();
        self.fanout.offered()
    }

    /// The connection has taken `n` bytes of what [`Node::pump`] gave. The rest of the item that was cut into is given back, to be kept
    /// by the connection and sent before anything else.
    pub fn taken(&mut self, conn: ConnId, n: usize) -> &[u8] {
        self.rest.clear();
        self.fanout.taken(conn, n, &mut self.rest);
        // A subscription may have come to its end.
        self.dirty |= self.fanout.has_news();
        &self.rest
    }

    /// Whether the next request of a connection may be handed in now; ask again next turn.
    #[must_use]
    pub fn accepts_commands(&self, conn: ConnId) -> bool {
        let leads = self.cluster.role() == Role::Leader;
        self.doors.has_room(conn) && (!leads || self.office.has_room(limits::HELD_BYTES_MAX / 2))
    }

    /// Who this server is, for datagrams and handshakes.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.cluster.sender()
    }

    /// The replicated state, to be looked at.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The replicated log, to be looked at.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn peer(&mut self, from: ServerId, message: PeerMessage) {
        let now = self.now;
        match message {
            PeerMessage::Cluster(message) => self.cluster.message(now, from, message),
            PeerMessage::Forward { group, term, commands } => {
                self.cluster.heard(now, from);
                let bytes: usize = commands.iter().map(|command| command.len()).sum();
                let taken = self.cluster.role() == Role::Leader
                    && term == self.cluster.term()
                    && group == GroupId::ROOT
                    && self.office.has_room(bytes);
                if taken {
                    self.cluster.forwarded(now, from);
                    commands
                        .into_iter()
                        .for_each(|command| self.office.hold_forwarded(command));
                } else {
                    let refused = PeerMessage::ForwardRefused {
                        group,
                        term: self.cluster.term(),
                    };
                    self.effects.push_back(Effect::Peer(from, refused));
                }
            }
            PeerMessage::ForwardRefused { .. } => {
                self.cluster.heard(now, from);
                self.doors.doubt_all(now.tick.after(doors::RESEND_SOON));
            }
        }
    }

    fn timer(&mut self) {
        let now = self.now;
        self.cluster.timer(now);
        self.ask_again();
        self.read_again();
        self.retry_due();
        if now.tick >= self.touch_at {
            self.touch_at = now.tick.after(self.config.chat.touch_interval);
            self.touch();
        }
    }

    /// Lets everything come to rest, then gathers what should happen: appends first, then what depends on nothing, in an order that
    /// is the same for the same inputs.
    fn settle(&mut self) {
        let mut records = Vec::new();
        let mut turn = Turn::default();
        loop {
            self.route();
            let mut quiet = !self.work();
            while let Some(output) = self.cluster.poll() {
                quiet = false;
                self.output(output, &mut records, &mut turn);
            }
            quiet &= !self.apply(&mut turn);
            if quiet {
                break;
            }
        }
        self.tell_leader();
        self.answer_questions();
        self.append(records);
        if !turn.refs.is_empty() {
            self.effects.push_back(Effect::Index(std::mem::take(&mut turn.refs)));
        }
        self.keep();
        self.effects.append(&mut turn.later);
        while let Some((&conn, _)) = self.acks.first_key_value() {
            self.send_acks(conn);
        }
        self.deliver();
        // An answer may have left a command behind.
        self.dirty = !self.commands.is_empty();
        if self.stopping && !self.stopped && self.cluster.stopped(self.now) {
            self.stopped = true;
            self.effects.push_back(Effect::Stopped);
        }
    }

    fn work(&mut self) -> bool {
        let (config, cluster) = (&self.config, &mut self.cluster);
        self.office.work(self.now, config, cluster, &self.state, &self.holdings)
    }

    fn output(&mut self, output: Output, records: &mut Vec<Record>, turn: &mut Turn) {
        match output {
            Output::Send(to, message) => turn.later.push_back(Effect::Peer(to, PeerMessage::Cluster(message))),
            Output::Datagram(datagram) => turn.later.push_back(Effect::Datagram(datagram)),
            Output::Record(record) => records.push(record),
            Output::ReadEntries {
                follower,
                purpose,
                from,
                to,
                bytes_max,
            } => {
                let token = self.ask(Reading::Follower(follower, purpose, from));
                let group = GroupId::ROOT;
                let request = ReadRequest::Entries {
                    token,
                    group,
                    from,
                    to,
                    bytes_max,
                };
                turn.later.push_back(Effect::Read(request));
            }
            Output::ReadDone { token, index } => self.question_answered(token, index),
            Output::LeaderChanged => self.leader_changed(),
            Output::Event { level, text } => self.effects.push_back(Effect::Event(Event { level, text })),
            Output::ReadCheckpoint { follower, id, offset } => self.read_piece(follower, id, offset),
            Output::StoreCheckpoint { id, offset, bytes } => self.store_piece(id, offset, bytes),
            Output::Renounce(text) => self.effects.push_back(Effect::Renounce(text)),
            Output::Misconfigured(text) => self.effects.push_back(Effect::Misconfigured(text)),
        }
    }

    fn append(&mut self, records: Vec<Record>) {
        let commit = self.cluster.commit();
        if records.is_empty() {
            // It rides along with records; alone it goes only when there are none for a while, so that a lone message doesn't wake the
            // writer twice.
            if commit == self.commit_logged {
                return;
            }
            let due = *self.commit_due.get_or_insert(self.now.tick.after(COMMIT_ALONE));
            if self.now.tick < due {
                return;
            }
            // Behind a disk that hangs they would pile up.
            if self.persisted < self.appended {
                self.commit_due = Some(self.now.tick.after(COMMIT_ALONE));
                return;
            }
        }
        self.commit_due = None;
        self.commit_logged = commit;
        self.appended = self.appended.next();
        let sync = !records.is_empty();
        let append = Append {
            id: self.appended,
            records,
            commits: vec![(GroupId::ROOT, commit)],
            sync,
        };
        self.cluster.appended(self.appended);
        self.effects.push_back(Effect::Append(append));
    }

    fn ask(&mut self, reading: Reading) -> u64 {
        self.reading += 1;
        self.readings.insert(self.reading, reading);
        self.reading
    }

    fn read(&mut self, answer: ReadAnswer) {
        let token = match &answer {
            ReadAnswer::Entries { token, .. } | ReadAnswer::Items { token, .. } | ReadAnswer::Damaged { token, .. } => {
                *token
            }
        };
        let Some(reading) = self.readings.remove(&token) else {
            return;
        };
        match (reading, answer) {
            (reading, ReadAnswer::Damaged { holes, what, .. }) => self.unreadable(reading, &holes, what),
            (Reading::Follower(follower, purpose, _), ReadAnswer::Entries { from, entries, .. }) => {
                self.cluster.entries_read(self.now, follower, purpose, from, entries);
            }
            (Reading::Apply, ReadAnswer::Entries { entries, .. }) => self.applying.answer(self.now.tick, entries),
            (
                Reading::Items(token, ..),
                ReadAnswer::Items {
                    room,
                    start,
                    before,
                    items,
                    ..
                },
            ) => self.items_read(token, room, (start, before), &items),
            (_, answer) => panic!("the reader answered another question: {answer:?}"),
        }
    }

    fn event(&mut self, level: Level, text: String) {
        self.effects.push_back(Effect::Event(Event { level, text }));
    }

    fn reply(&mut self, conn: ConnId, response: Response) {
        self.effects.push_back(Effect::Reply(conn, response));
    }

    /// What cursors have come to: connections with something to send, questions to the reader, ends.
    fn deliver(&mut self) {
        for wanted in self.fanout.drain_wanted() {
            let token = self.ask(Reading::Items(wanted.token, wanted.room, wanted.from));
            let request = ReadRequest::Items {
                token,
                room: wanted.room,
                from: wanted.from,
                bytes_max: limits::READ_BYTES_MAX,
            };
            self.effects.push_back(Effect::Read(request));
        }
        for (conn, room) in self.fanout.drain_done() {
            self.reply(conn, Response::End { room });
        }
        for conn in self.fanout.drain_ready() {
            self.effects.push_back(Effect::Deliver(conn));
        }
    }

    /// Whether clients are well served here: a leader is known, and what it commits is applied.
    fn serves(&self) -> bool {
        let stuck = self
            .applying
            .stuck_since()
            .is_some_and(|since| self.now.tick.since(since) >= APPLIES_STUCK);
        self.cluster.leader().is_some() && self.halted.is_none() && self.applying.is_caught_up() && !stuck
    }

    /// Whether this server has not served for so long that it is no mere change of leaders.
    fn is_quorum_lost(&self) -> bool {
        let lost = |since| self.now.tick.since(since) >= limits::NO_QUORUM_NOTICE;
        !self.serves() && self.unserved.is_some_and(lost)
    }

    /// Clients are told when there is another leader, and when this server has not served them for so long that others may do better.
    fn tell_leader(&mut self) {
        if self.serves() {
            self.unserved = None;
        } else {
            self.unserved.get_or_insert(self.now.tick);
        }
        let leader = self.cluster.leader();
        let told = if self.unserved.is_none() {
            (leader, true)
        } else if self.is_quorum_lost() {
            (leader, false)
        } else {
            return;
        };
        if told == self.told {
            return;
        }
        self.told = told;
        for conn in self.doors.ids() {
            let (leader, available) = told;
            self.reply(conn, Response::Quorum { available, leader });
        }
    }

    fn leader_changed(&mut self) {
        if self.cluster.role() != Role::Leader {
            self.office.close();
        }
        if self.cluster.leader().is_some() {
            // Commands that went to another leader, or to none, may be lost.
            self.doors.doubt_all(self.now.tick);
            self.retry_due();
        }
    }

    /// Asks the clients whose commands may be lost, and whose time has come.
    fn retry_due(&mut self) {
        while let Some(conn) = self.doors.pop_due(self.now.tick) {
            self.retry(conn);
        }
    }

    fn redirects(&self) -> bool {
        self.config.routing == Routing::Redirect && self.cluster.role() != Role::Leader
    }
}

/// What a settling node gathers, to be said in the right order.
#[derive(Default)]
struct Turn {
    /// Items for the room index.
    refs: Vec<ItemRef>,
    /// Effects that come after appends and index.
    later: VecDeque<Effect>,
    /// How many entries were applied.
    applied: usize,
}

#[cfg(test)]
mod tests;
