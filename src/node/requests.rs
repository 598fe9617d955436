//! What clients ask, and how it is answered: sessions, commands, looking around, subscriptions. Questions that must not be answered
//! from the past wait until a majority has confirmed the leader, and until this server has applied what was committed then.

use std::collections::BTreeMap;

use super::doors::Opening;
use super::status::room_info;
use super::{Effect, Node};
use crate::chat::admission;
use crate::chat::command::{Code, Command};
use crate::limits;
use crate::log::ReadFrom;
use crate::types::{ConnId, LogIndex, RoomId, Seq, SessionId, Span, Tick};
use crate::wire::client::{self, From, Request, Response, RoomInfo, Until};
use crate::wire::{auth, common_version};

/// How long a question that nobody could answer rests before it is asked again.
const ASK_AGAIN: Span = Span::from_ms(250);

/// Rooms in one answer: with the longest names and topics they fill half a frame.
const ROOMS_PER_PAGE: usize =
    limits::CLIENT_FRAME_BYTES_MAX / 2 / (limits::TOPIC_BYTES_MAX + limits::ROOM_NAME_BYTES_MAX + 64);

/// A question whose answer must know everything that was committed when it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    Lookup {
        id: u64,
        name: String,
    },
    Subscribe {
        id: u64,
        room: RoomId,
        from: From,
        ends: bool,
    },
    Attach {
        session: SessionId,
        secret: [u8; 16],
    },
}

/// The questions that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Questions {
    /// For the leader to be confirmed, by the token of the question to the cluster.
    asked: BTreeMap<u64, (ConnId, Question)>,
    /// For this index to be applied.
    confirmed: BTreeMap<(LogIndex, u64), (ConnId, Question)>,
    /// To be asked again: nobody could confirm a leader.
    again: Vec<(ConnId, Question)>,
    /// When.
    again_at: Option<Tick>,
}

impl Questions {
    /// When some are to be asked again.
    pub fn deadline(&self) -> Option<Tick> {
        self.again_at
    }

    /// The connection has said since what it wants of that room. What it wanted before must not come true later: a question that waits may
    /// be answered behind one that was asked after it.
    fn forget_subscribe(&mut self, conn: ConnId, room: RoomId) {
        let is_other = |_: &_, (of, question): &mut (ConnId, Question)| {
            *of != conn || !matches!(question, Question::Subscribe { room: wanted, .. } if *wanted == room)
        };
        self.asked.retain(is_other);
        self.confirmed.retain(|key, waiting| is_other(&key.1, waiting));
    }
}

impl Node {
    pub(super) fn request(&mut self, conn: ConnId, request: Request) {
        if let Request::Hello { magic, versions, .. } = request {
            return self.hello(conn, magic, versions);
        }
        if let Request::Command(bytes) = request {
            return self.take_command(conn, &bytes);
        }
        if !self.has_said_hello(conn) {
            return;
        }
        match request {
            Request::Hello { .. } | Request::Command(_) => {}
            Request::Open {
                name,
                key,
                secret,
                lamport,
            } => {
                if self.redirect(conn) {
                    return;
                }
                match admission::fold_user(&name) {
                    Ok(name) => {
                        let (key, secret) = (auth::key_id(&key), auth::secret_hash(&secret));
                        self.open_session(
                            conn,
                            Opening {
                                name,
                                key,
                                secret,
                                lamport,
                            },
                        );
                    }
                    Err(code) => self.reply(
                        conn,
                        Response::OpenRefused {
                            code,
                            text: code.to_string(),
                        },
                    ),
                }
            }
            Request::Attach { session, secret } => {
                if self.redirect(conn) {
                    return;
                }
                if !self.attach(conn, session, secret) {
                    self.ask_fresh(conn, Question::Attach { session, secret });
                }
            }
            Request::Lookup { id, name, fresh } => {
                if fresh {
                    self.ask_fresh(conn, Question::Lookup { id, name });
                } else {
                    self.answer(conn, Question::Lookup { id, name }, true);
                }
            }
            Request::Rooms { id, after } => {
                let mut rooms: Vec<RoomInfo> = self
                    .state
                    .rooms_after(after)
                    .take(ROOMS_PER_PAGE + 1)
                    .map(room_info)
                    .collect();
                let more = rooms.len() > ROOMS_PER_PAGE;
                rooms.truncate(ROOMS_PER_PAGE);
                self.reply(conn, Response::Rooms { id, rooms, more });
            }
            Request::Who { id, room } => {
                let mut users = self.state.users_in(room);
                users.truncate(limits::CLIENT_FRAME_BYTES_MAX / (2 * limits::NAME_BYTES_MAX));
                self.reply(conn, Response::Who { id, users });
            }
            Request::Subscribe { id, room, from, until } => {
                let ends = until != Until::Forever;
                self.questions.forget_subscribe(conn, room);
                // A server that is behind doesn't know the newest rooms: that there is none is said only by one who can know.
                if until == Until::Now || (!ends && self.state.room(room).is_none()) {
                    self.ask_fresh(conn, Question::Subscribe { id, room, from, ends });
                } else {
                    self.subscribe(conn, id, room, from, ends, true);
                }
            }
            Request::Unsubscribe { room } => {
                self.questions.forget_subscribe(conn, room);
                self.fanout.unsubscribe(conn, room);
            }
            Request::Status { id } => {
                let (row, servers) = (self.status_row(), self.addresses());
                let cluster = self.config.name.clone();
                self.reply(
                    conn,
                    Response::Status {
                        id,
                        row,
                        servers,
                        cluster,
                    },
                );
            }
            Request::Ping { id } => self.reply(conn, Response::Pong { id }),
            Request::Usage { id } => self.effects.push_back(Effect::Usage(conn, id)),
        }
    }

    pub(super) fn has_said_hello(&mut self, conn: ConnId) -> bool {
        let has = self.doors.get(conn).is_some();
        if !has {
            self.fatal(conn, "the first frame must be a hello");
        }
        has
    }

    pub(super) fn gone(&mut self, conn: ConnId) {
        self.doors.close(conn);
        self.fanout.forget(conn);
        self.acks.remove(&conn);
        self.questions.confirmed.retain(|_, (asker, _)| *asker != conn);
    }

    fn hello(&mut self, conn: ConnId, magic: u32, versions: (u16, u16)) {
        if magic != client::MAGIC {
            return self.fatal(conn, "this port speaks SyncNet's client protocol");
        }
        let version = match common_version(client::VERSIONS, versions) {
            Ok(version) => version,
            Err(error) => {
                let (min, max) = client::VERSIONS;
                return self.fatal(
                    conn,
                    &format!("{error}, this server {min} to {max}: upgrade the older of the two"),
                );
            }
        };
        self.doors.open(conn);
        let quorum = self.serves() || self.told.1;
        let welcome = Response::Welcome {
            version,
            cluster: self.config.name.clone(),
            server: self.me,
            servers: self.addresses(),
            leader: self.cluster.leader(),
            quorum,
            message_bytes_max: self.config.chat.message_size_max as u32,
        };
        self.reply(conn, welcome);
    }

    pub(super) fn fatal(&mut self, conn: ConnId, text: &str) {
        self.reply(conn, Response::Fatal { text: text.to_string() });
        self.effects.push_back(Effect::Close(conn));
    }

    // --- Sessions -------------------------------------------------------------------------------

    /// Sends the client to the leader if that is how commands are routed. Whether it did.
    pub(super) fn redirect(&mut self, conn: ConnId) -> bool {
        if !self.redirects() {
            return false;
        }
        let Some(leader) = self.cluster.leader() else {
            return false;
        };
        if let Some(leader) = self.addresses().into_iter().find(|server| server.id == leader) {
            self.reply(conn, Response::Redirect { leader });
        }
        true
    }

    fn open_session(&mut self, conn: ConnId, opening: Opening) {
        let found = self
            .state
            .session_by_secret(&opening.secret)
            .and_then(|id| self.state.session(id));
        if let Some(session) = found.filter(|session| session.named && session.key == opening.key) {
            return self.bind(conn, session.id);
        }
        // One session at a time: a connection can't fill the table of sessions, which are kept for long.
        let bound = self
            .doors
            .get(conn)
            .and_then(|door| door.bound.as_ref())
            .map(|bound| bound.session);
        if bound.is_some_and(|bound| self.state.session(bound).is_some()) {
            let code = Code::Busy;
            let text = "this connection has a session: close it before another is opened".to_string();
            return self.reply(conn, Response::OpenRefused { code, text });
        }
        self.doors.begin_opening(self.now.tick, conn, opening.clone());
        self.send_open(opening);
    }

    fn send_open(&mut self, opening: Opening) {
        let Opening {
            name,
            key,
            secret,
            lamport,
        } = opening;
        self.push_command(&Command::Open {
            name,
            key,
            secret,
            lamport,
        });
    }

    /// Goes on with a session that this server knows. Whether it could be told.
    fn attach(&mut self, conn: ConnId, session: SessionId, secret: [u8; 16]) -> bool {
        let Some(known) = self.state.session(session) else {
            return false;
        };
        if known.secret == auth::secret_hash(&secret) {
            self.bind(conn, session);
            // It has been silent: its name may be near release.
            self.push_command(&Command::Touch {
                server: self.me,
                sessions: vec![session],
            });
        } else {
            let code = Code::WrongSecret;
            self.reply(
                conn,
                Response::OpenRefused {
                    code,
                    text: code.to_string(),
                },
            );
        }
        true
    }

    /// The session speaks on this connection from now on.
    pub(super) fn bind(&mut self, conn: ConnId, session: SessionId) {
        let Some(known) = self.state.session(session) else {
            return;
        };
        let (last, name) = (known.last, known.name.shown.to_string());
        if let Some(old) = self.doors.bind(conn, session) {
            self.fatal(old, "the session goes on at another connection");
        }
        // What is known of an earlier session of the connection is said before.
        self.send_acks(conn);
        self.reply(conn, Response::Opened { session, last, name });
    }

    /// Commands of a connection may be lost: ask the client to send them again.
    pub(super) fn retry(&mut self, conn: ConnId) {
        let Some(door) = self.doors.get(conn) else { return };
        if let Some(opening) = door.opening.clone() {
            if !self.redirect(conn) {
                self.open_session(conn, *opening);
            }
            return;
        }
        let Some(bound) = door.bound.as_ref().filter(|bound| bound.waits()) else {
            return;
        };
        let session = bound.session;
        if self.redirect(conn) {
            return;
        }
        if let Some(known) = self.state.session(session) {
            let from = known.last.next();
            self.doors.restart(self.now.tick, conn, from);
            self.reply(conn, Response::Resend { from });
        } else {
            self.doors.forget_session(conn);
            self.send_acks(conn);
            let code = Code::NoSuchSession;
            self.reply(
                conn,
                Response::OpenRefused {
                    code,
                    text: code.to_string(),
                },
            );
        }
    }

    /// Sends the acknowledgements that were gathered for a connection, in frames that fit.
    pub(super) fn send_acks(&mut self, conn: ConnId) {
        let mut acks = self.acks.remove(&conn).unwrap_or_default();
        while !acks.is_empty() {
            let rest = acks.split_off(acks.len().min(ROOMS_PER_PAGE));
            self.reply(conn, Response::Acks(std::mem::replace(&mut acks, rest)));
        }
    }

    /// Tells the log which sessions are connected here.
    pub(super) fn touch(&mut self) {
        let sessions: Vec<SessionId> = self.doors.sessions().collect();
        for sessions in sessions.chunks(limits::TOUCH_SESSIONS_MAX) {
            let touch = Command::Touch {
                server: self.me,
                sessions: sessions.to_vec(),
            };
            self.push_command(&touch);
        }
    }

    // --- Questions ------------------------------------------------------------------------------

    fn ask_fresh(&mut self, conn: ConnId, question: Question) {
        // Who waits for what has been missing for long only waits longer.
        if self.is_quorum_lost() || self.questions.confirmed.len() >= limits::READS_WAITING_MAX {
            return self.answer(conn, question, false);
        }
        match self.cluster.read(self.now) {
            Some(token) => {
                self.questions.asked.insert(token, (conn, question));
            }
            None => self.answer(conn, question, false),
        }
    }

    /// Asks again what nobody could answer, for those who are still there.
    pub(super) fn ask_again(&mut self) {
        if self.questions.again_at.is_none_or(|at| self.now.tick < at) {
            return;
        }
        self.questions.again_at = None;
        for (conn, question) in std::mem::take(&mut self.questions.again) {
            if self.doors.get(conn).is_some() {
                self.ask_fresh(conn, question);
            }
        }
    }

    pub(super) fn question_answered(&mut self, token: u64, index: Option<LogIndex>) {
        let Some((conn, question)) = self.questions.asked.remove(&token) else {
            return;
        };
        match index {
            Some(index) => {
                self.questions.confirmed.insert((index, token), (conn, question));
            }
            None => self.answer(conn, question, false),
        }
    }

    /// Answers the questions for which enough is applied, and all if that has stopped.
    pub(super) fn answer_questions(&mut self) {
        let lost = self.is_quorum_lost();
        while let Some(first) = self.questions.confirmed.first_entry()
            && (lost || first.key().0 <= self.state.applied())
        {
            let fresh = first.key().0 <= self.state.applied();
            let (conn, question) = first.remove();
            self.answer(conn, question, fresh);
        }
    }

    fn answer(&mut self, conn: ConnId, question: Question, fresh: bool) {
        if self.doors.get(conn).is_none() {
            return;
        }
        match question {
            Question::Lookup { id, name } => {
                let folded = admission::fold_room(&name);
                let room = folded
                    .ok()
                    .and_then(|name| self.state.room_named(&name.folded))
                    .map(room_info);
                self.reply(conn, Response::Room { id, room, fresh });
            }
            Question::Subscribe { id, room, from, ends } => self.subscribe(conn, id, room, from, ends, fresh),
            Question::Attach { session, secret } => {
                if self.attach(conn, session, secret) {
                } else if fresh {
                    let code = Code::NoSuchSession;
                    self.reply(
                        conn,
                        Response::OpenRefused {
                            code,
                            text: code.to_string(),
                        },
                    );
                } else {
                    // Nobody can tell whether the session is one. Ask again; if there is no quorum, the client was told so and tries
                    // elsewhere meanwhile.
                    self.questions.again.push((conn, Question::Attach { session, secret }));
                    self.questions.again_at.get_or_insert(self.now.tick.after(ASK_AGAIN));
                }
            }
        }
    }

    fn subscribe(&mut self, conn: ConnId, id: u64, room: RoomId, from: From, ends: bool, fresh: bool) {
        let known = self.state.room(room).map(|room| (room.position, room.seq));
        self.reply(
            conn,
            Response::Subscribed {
                id,
                room,
                exists: known.is_some(),
                fresh,
            },
        );
        let Some((position, seq)) = known else { return };
        if self.fanout.subscriptions(conn) >= limits::SUBSCRIPTIONS_PER_CONNECTION_MAX {
            let code = Code::Busy;
            return self.reply(
                conn,
                Response::Refused {
                    id,
                    code,
                    text: code.to_string(),
                },
            );
        }
        let from = match from {
            From::Position(at) => ReadFrom::Position(at),
            From::AfterSeq(after) => ReadFrom::AfterSeq(after.min(seq)),
            From::Last(0) => ReadFrom::Position(position.next()),
            From::Last(count) => ReadFrom::AfterSeq(Seq(seq.0.saturating_sub(u64::from(count)))),
        };
        let end = ends.then_some(position);
        self.fanout.subscribe(conn, room, from, end, position);
    }
}
