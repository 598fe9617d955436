//! Commands of this server's clients: what the door looks at before it takes one, and how those of a turn get to the leader.

use super::doors::Verdict;
use super::office::About;
use super::{Effect, Node};
use crate::chat::admission;
use crate::chat::command::{Code, Command, Head, Outcome};
use crate::chat::content::{head, user};
use crate::cluster::Role;
use crate::limits;
use crate::types::{ClientSeq, ConnId, GroupId, SessionId};
use crate::wire::client::{Ack, Response};
use crate::wire::command;
use crate::wire::peer::PeerMessage;

impl Node {
    /// A command of the server's own, or one in another form than it came in.
    pub(super) fn push_command(&mut self, command: &Command<'_>) {
        if let Some(about) = About::of(command) {
            self.commands.push_with(|out| command::encode_into(command, out));
            self.abouts.push(about);
        }
    }

    /// A command came on a connection.
    pub(super) fn take_command(&mut self, conn: ConnId, bytes: &[u8]) {
        if !self.has_said_hello(conn) {
            return;
        }
        let mut decoded = match command::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.fatal(conn, &format!("the command can't be taken: {error}")),
        };
        let Some(&Head {
            session,
            seq,
            unacknowledged,
            ..
        }) = head(&decoded).filter(|_| is_clients(&decoded))
        else {
            return self.fatal(conn, "the command isn't one that clients may give");
        };
        if let Some(outcome) = self.known_outcome(conn, session, seq) {
            self.doors.applied(self.now.tick, conn, seq);
            return self.acks.entry(conn).or_default().push(Ack { seq, outcome });
        }
        if self.redirect(conn) {
            return;
        }
        match self
            .doors
            .take(self.now.tick, conn, session, seq, unacknowledged, bytes.len())
        {
            Verdict::Ignore => {}
            Verdict::NotOpen => {
                let code = Code::NotOpen;
                self.reply(
                    conn,
                    Response::Refused {
                        id: seq.0,
                        code,
                        text: code.to_string(),
                    },
                );
            }
            Verdict::Take => match self.admit(&mut decoded) {
                Ok(false) => {
                    if let Some(about) = About::of(&decoded) {
                        self.commands.push(bytes);
                        self.abouts.push(about);
                    }
                }
                Ok(true) => self.push_command(&decoded),
                Err(code) => {
                    // The number is spent, so that the commands behind it are taken.
                    let head = Head {
                        session,
                        seq,
                        unacknowledged,
                        lamport: Default::default(),
                    };
                    self.push_command(&Command::Skip { head, code });
                }
            },
        }
    }

    /// What became of a command that was applied before: a retry is answered at once.
    fn known_outcome(&mut self, conn: ConnId, session: SessionId, seq: ClientSeq) -> Option<Outcome> {
        let bound = self.doors.get(conn)?.bound.as_ref()?;
        if bound.session != session {
            return None;
        }
        self.state.outcome(session, seq).cloned()
    }

    /// Checks form and size, and folds names. Whether the command was changed by that.
    fn admit(&self, command: &mut Command) -> Result<bool, Code> {
        let most = self.config.chat.message_size_max;
        if user(command).is_some_and(|user| user.len() > limits::NAME_BYTES_MAX) {
            return Err(Code::WrongName);
        }
        match command {
            Command::Post { text, .. } => admission::check_text(text, most).map(|()| false),
            Command::Topic { text, .. } => admission::check_topic(text).map(|()| false),
            Command::Create { room, .. } | Command::Join { room, .. } => {
                let folded = admission::fold_room(&room.shown)?;
                let changed = *room != folded;
                *room = folded;
                Ok(changed)
            }
            Command::Rename { name, .. } => {
                let folded = admission::fold_user(&name.shown)?;
                let changed = *name != folded;
                *name = folded;
                Ok(changed)
            }
            _ => Ok(false),
        }
    }

    /// This server's commands of the turn go where the leader is; without one they are dropped, and the clients will be asked again.
    pub(super) fn route(&mut self) {
        if self.commands.is_empty() {
            return;
        }
        let commands = self.commands.take();
        let abouts = self.abouts.drain(..);
        if self.cluster.role() == Role::Leader {
            let held = commands.zip(abouts);
            held.for_each(|(command, about)| self.office.hold(command, about));
            return;
        }
        let Some(leader) = self.cluster.leader() else { return };
        let (group, term) = (GroupId::ROOT, self.cluster.term());
        let mut bytes = 0;
        let mut frame = Vec::new();
        for command in commands {
            if bytes + command.len() > limits::APPEND_BYTES_MAX && !frame.is_empty() {
                let commands = std::mem::take(&mut frame);
                self.effects
                    .push_back(Effect::Peer(leader, PeerMessage::Forward { group, term, commands }));
                bytes = 0;
            }
            bytes += command.len();
            frame.push(command);
        }
        self.effects.push_back(Effect::Peer(
            leader,
            PeerMessage::Forward {
                group,
                term,
                commands: frame,
            },
        ));
    }
}

/// Whether clients may give this command.
fn is_clients(command: &Command) -> bool {
    matches!(
        command,
        Command::Post { .. }
            | Command::Create { .. }
            | Command::Join { .. }
            | Command::Leave { .. }
            | Command::Topic { .. }
            | Command::Rename { .. }
            | Command::Close { .. }
    )
}
