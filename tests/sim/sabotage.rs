//! What the sabotage tests break, each at the edge of the simulation: the code under test is never touched. That a judge notices a
//! crime is known only when it has seen one.

use syncnet::cluster::message::{AppendResult, Message, Refusal};
use syncnet::wire::client::{Request, encode_request};
use syncnet::wire::command;
use syncnet::wire::peer::PeerMessage;

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
}

pub const SABOTAGES: [Sabotage; 4] = [
    Sabotage::LyingDisks,
    Sabotage::ForgedVotes,
    Sabotage::ForgedAppends,
    Sabotage::RenumberedRetries,
];

impl Sabotage {
    pub fn named(name: &str) -> Option<Sabotage> {
        SABOTAGES.into_iter().find(|sabotage| format!("{sabotage:?}") == name)
    }
}

impl World {
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

/// The frames of a client that counts its repetitions anew.
pub fn renumbered(request: &Request, bytes: &mut Vec<u8>) {
    let Request::Command(blob) = request else { return };
    if let Ok(mut command) = command::decode(blob)
        && let syncnet::chat::command::Command::Post { head, .. } = &mut command
    {
        head.seq = head.seq.next();
        encode_request(&Request::Command(command::encode(&command)), bytes);
    }
}
