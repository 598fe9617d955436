//! What the sabotage tests break, each at the edge of the simulation: the code under test is never touched. That a judge notices a
//! crime is known only when it has seen one.

use syncnet::chat::command::Command;
use syncnet::cluster::message::{AppendResult, Entry, EntryKind, Message, Refusal};
use syncnet::keep::KeepJob;
use syncnet::log::ReadAnswer;
use syncnet::types::Lsn;
use syncnet::wire::client::{Request, encode_request};
use syncnet::wire::command;
use syncnet::wire::peer::PeerMessage;

use super::plan::server_id;
use super::world::World;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Disks say that they have synced, and haven't.
    LyingDisks,
    /// The network turns refused votes into granted ones.
    ForgedVotes,
    /// The network says of entries that a follower has received that they are on its disk.
    ForgedAppends,
    /// Each message of a client comes a second time under the next number, as from a client that counts anew when it repeats.
    RenumberedRetries,
    /// A machine that lost power comes back with the disk that it had at an earlier fault: a backup was restored.
    RestoredDisks,
    /// The reader of a log gives other bytes than stand there, as if it didn't look at checks: another letter in a message.
    AlteredItems,
    /// A replica that reads its log anew forgets who opened a session.
    ForgottenSessions,
    /// The live state is another than the log makes, as after a fault of the memory: its digest at a checkpoint is.
    OtherStates,
}

pub const SABOTAGES: [Sabotage; 8] = [
    Sabotage::LyingDisks,
    Sabotage::ForgedVotes,
    Sabotage::ForgedAppends,
    Sabotage::RenumberedRetries,
    Sabotage::RestoredDisks,
    Sabotage::AlteredItems,
    Sabotage::ForgottenSessions,
    Sabotage::OtherStates,
];

impl Sabotage {
    pub fn named(name: &str) -> Option<Sabotage> {
        SABOTAGES.into_iter().find(|sabotage| format!("{sabotage:?}") == name)
    }
}

impl World {
    pub(super) fn take_backups(&mut self) {
        if self.sabotage == Some(Sabotage::RestoredDisks) {
            let backup = |server: &super::server::Server| (server.disk.disk.copy(), server.reached);
            self.backups = self.servers.iter().map(backup).collect();
        }
    }

    pub(super) fn restore_backup(&mut self, at: usize) {
        // Without its identity file there is nothing to restore.
        if let Some((disk, reached)) = self.backups.get(at)
            && *reached > Lsn(0)
        {
            self.servers[at].disk.disk = disk.copy();
            self.servers[at].reached = *reached;
        }
    }

    /// What the network makes of a message.
    pub fn forge(&mut self, from: usize, to: usize, message: PeerMessage) -> PeerMessage {
        let (Some(sabotage), PeerMessage::Cluster(message)) = (self.sabotage, &message) else {
            return message;
        };
        let forged = match (sabotage, message) {
            (Sabotage::ForgedVotes, Message::PreVote { term, .. }) => {
                self.asked_for[from] = *term;
                message.clone()
            }
            (
                Sabotage::ForgedVotes,
                &Message::PreVoteAnswer {
                    group, granted: false, ..
                },
            ) => Message::PreVoteAnswer {
                group,
                term: self.asked_for[to],
                granted: true,
                refusal: Refusal::None,
            },
            (Sabotage::ForgedVotes, &Message::VoteAnswer { group, term, .. }) => Message::VoteAnswer {
                group,
                term,
                granted: true,
            },
            (
                Sabotage::ForgedAppends,
                Message::AppendAnswer {
                    group,
                    term,
                    round,
                    result,
                },
            ) => {
                let result = match *result {
                    AppendResult::Matched { received, .. } => AppendResult::Matched {
                        received,
                        durable: received,
                    },
                    refused => refused,
                };
                Message::AppendAnswer {
                    group: *group,
                    term: *term,
                    round: *round,
                    result,
                }
            }
            _ => message.clone(),
        };
        PeerMessage::Cluster(forged)
    }
}

/// What the sabotage makes of what the housekeeper is asked for.
pub fn misled(sabotage: Option<Sabotage>, mut job: KeepJob) -> KeepJob {
    if let (Some(Sabotage::OtherStates), KeepJob::Make { digest, .. }) = (sabotage, &mut job) {
        *digest ^= 1;
    }
    job
}

/// What the sabotage makes of what a log reader answers.
pub fn altered(sabotage: Option<Sabotage>, mut answer: ReadAnswer) -> ReadAnswer {
    match (sabotage, &mut answer) {
        (Some(Sabotage::AlteredItems), ReadAnswer::Items { items, .. }) => {
            items.iter_mut().for_each(|(_, _, entry)| alter(entry, other_text));
        }
        (Some(Sabotage::ForgottenSessions), ReadAnswer::Entries { entries, .. }) => {
            entries.iter_mut().for_each(|entry| alter(entry, nobody));
        }
        _ => {}
    }
    answer
}

/// Puts another command into an entry, in the same form and with the same stamp.
fn alter(entry: &mut Entry, change: impl Fn(Command<'_>) -> Option<Command<'_>>) {
    if entry.kind == EntryKind::Command
        && let Ok((stamp, command)) = command::open_payload(&entry.payload)
        && let Some(other) = change(command)
    {
        entry.payload = command::payload(&stamp, &command::encode(&other));
    }
}

fn other_text(command: Command<'_>) -> Option<Command<'_>> {
    match command {
        Command::Post {
            head,
            room,
            user,
            text,
            dedup,
        } => Some(Command::Post {
            head,
            room,
            user,
            text: text.replacen('/', ":", 1).into(),
            dedup,
        }),
        _ => None,
    }
}

fn nobody(command: Command<'_>) -> Option<Command<'_>> {
    matches!(command, Command::Open { .. }).then(|| Command::Touch {
        server: server_id(0),
        sessions: Vec::new(),
    })
}

/// The frames of a client that counts its repetitions anew.
pub fn renumbered(request: &Request, bytes: &mut Vec<u8>) {
    let Request::Command(blob) = request else { return };
    if let Ok(mut command) = command::decode(blob)
        && let Command::Post { head, .. } = &mut command
    {
        head.seq = head.seq.next();
        encode_request(&Request::Command(command::encode(&command)), bytes);
    }
}
