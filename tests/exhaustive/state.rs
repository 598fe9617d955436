//! A state of the world in numbers, what may happen to it, how often, and what is broken on purpose.

use syncnet::cluster::message::{AppendResult, Message, Refusal};
use syncnet::rng::mix;
use syncnet::types::{Boot, LogIndex, Term};

use super::server::SERVERS;

/// Ordered pairs of servers: (from, to).
pub const WAYS: [(usize, usize); 6] = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)];
/// Unordered pairs.
pub const PAIRS: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];

pub fn way(from: usize, to: usize) -> usize {
    WAYS.iter().position(|&way| way == (from, to)).expect("two servers")
}

pub fn pair(a: usize, b: usize) -> usize {
    PAIRS
        .iter()
        .position(|&pair| pair == (a.min(b), a.max(b)))
        .expect("two servers")
}

/// How often each of the things may happen that would otherwise happen without end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub crashes: u8,
    pub resets: u8,
    pub timeouts: u8,
    /// Single deadlines: heartbeats, repeated tokens.
    pub timers: u8,
    pub proposals: u8,
    pub stops: u8,
    /// Heartbeats that arrive.
    pub heartbeats: u8,
}

impl Bounds {
    /// From text: `crashes=2,timeouts=1`; what isn't named doesn't happen.
    pub fn parse(text: &str) -> Result<Bounds, String> {
        let mut bounds = Bounds::default();
        for part in text.split(',') {
            let bad = || format!("bounds are written as crashes=2,timeouts=1: {part}");
            let (name, times) = part.split_once('=').ok_or_else(bad)?;
            let bound = match name.trim() {
                "crashes" => &mut bounds.crashes,
                "resets" => &mut bounds.resets,
                "timeouts" => &mut bounds.timeouts,
                "timers" => &mut bounds.timers,
                "proposals" => &mut bounds.proposals,
                "stops" => &mut bounds.stops,
                "heartbeats" => &mut bounds.heartbeats,
                _ => return Err(bad()),
            };
            *bound = times.trim().parse().map_err(|_| bad())?;
        }
        Ok(bounds)
    }
}

/// What may happen next. Numbers are servers, ways or pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Persist(u8),
    Timeout(u8),
    Timer(u8),
    Propose(u8),
    Stop(u8),
    /// A process dies; so many of its unsynced records are on the disk nevertheless.
    Crash(u8, u8),
    Start(u8),
    /// The oldest frame of a way arrives.
    Deliver(u8),
    Heartbeat(u8),
    Token(u8),
    /// A link breaks; what is on it may still arrive until the receiver learns of it.
    Reset(u8),
    /// The receiver of a way learns that its link is broken.
    Learn(u8),
    Connect(u8),
}

/// What is broken on purpose, at the edge of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Refused votes arrive as granted ones.
    ForgedVotes,
    /// What a follower has on its disk arrives as one entry more, if the leader has it.
    ForgedDurable,
    /// A candidate's log arrives as longer than any.
    ForgedLogs,
    /// A crash loses the last sync too.
    LyingDisks,
}

/// A state of the world, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub servers: [u32; SERVERS],
    /// Frames on each way, oldest first; 0 is the empty queue.
    pub queues: [u32; 6],
    /// The last heartbeat on each way that hasn't arrived, plus one; an older one is lost.
    pub heartbeats: [u32; 6],
    pub tokens: [u32; 6],
    pub history: u32,
    /// Whether the link of each pair works.
    pub links: [bool; 3],
    /// Whether the receiver of each way believes that it does.
    pub believes: [bool; 6],
    pub used: Bounds,
}

impl State {
    /// The bounds begin here, and datagrams that are on their way are lost.
    pub fn begin(&mut self) {
        self.used = Bounds::default();
        self.heartbeats = [0; 6];
        self.tokens = [0; 6];
    }

    /// 128 bits that tell states apart.
    pub fn fingerprint(&self) -> u128 {
        let used = self.used;
        let bits = |bits: &[bool]| bits.iter().fold(0u32, |sum, &bit| sum << 1 | u32::from(bit));
        let words = self
            .servers
            .iter()
            .chain(&self.queues)
            .chain(&self.heartbeats)
            .chain(&self.tokens);
        let rest = [
            self.history,
            bits(&self.links) << 8 | bits(&self.believes),
            u32::from_le_bytes([used.crashes, used.resets, used.timeouts, used.timers]),
            u32::from_le_bytes([used.proposals, used.stops, used.heartbeats, 0]),
        ];
        let (mut one, mut two) = (0x9E37_79B9_7F4A_7C15_u64, 0xD1B5_4A32_D192_ED03_u64);
        for &word in words.chain(&rest) {
            one = mix(one ^ u64::from(word));
            two = mix(two.wrapping_add(u64::from(word)).rotate_left(17));
        }
        u128::from(one) << 64 | u128::from(two)
    }
}

/// What a state was reached by that is worth counting.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub elected: bool,
    /// Elected while something that was proposed is committed.
    pub elected_after_commit: bool,
    pub committed: bool,
    pub cut: bool,
    pub lost: bool,
    pub refused_vote: bool,
    pub mismatch: bool,
    pub handed_over: bool,
}

/// What history says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// Who has led each term, and in which life.
    pub leaders: Vec<(Term, usize, Boot)>,
    /// Every committed entry, with the term of the leader that committed it.
    pub committed: Vec<(u32, Term)>,
}

/// What the others must know of a server's state.
#[derive(Debug)]
pub struct Facts {
    pub is_up: bool,
    pub boot: Boot,
    pub leads: Option<Term>,
    pub term: Term,
    pub commit: usize,
    pub waiting: usize,
    pub log: u32,
    pub disk: Vec<u32>,
}

/// A step that was taken before: the server after it, and what it sent.
pub struct Step {
    pub server: u32,
    pub sends: Vec<(u8, u32)>,
    pub heartbeat: Option<u32>,
    pub tokens: Vec<(u8, u32)>,
    pub is_cut: bool,
    pub has_lost: bool,
}

/// What arrives instead of a message, if anything else does, at a receiver of that term whose log ends there.
pub fn forge(sabotage: Sabotage, message: &Message, receiver: Term, last: LogIndex) -> Option<Message> {
    match (sabotage, message) {
        (Sabotage::ForgedVotes, &Message::VoteAnswer { group, term, .. }) => Some(Message::VoteAnswer {
            group,
            term,
            granted: true,
        }),
        (Sabotage::ForgedVotes, &Message::PreVoteAnswer { group, .. }) => Some(Message::PreVoteAnswer {
            group,
            term: receiver.next(),
            granted: true,
            refusal: Refusal::None,
        }),
        (
            Sabotage::ForgedDurable,
            &Message::AppendAnswer {
                group,
                term,
                round,
                result: AppendResult::Matched { received, .. },
            },
        ) if received < last => Some(Message::AppendAnswer {
            group,
            term,
            round,
            result: AppendResult::Matched {
                received: received.next(),
                durable: received.next(),
            },
        }),
        (Sabotage::ForgedLogs, Message::PreVote { .. } | Message::Vote { .. }) => {
            let mut forged = message.clone();
            if let Message::PreVote { last, .. } | Message::Vote { last, .. } = &mut forged {
                last.term = Term(last.term.0 + 1000);
            }
            Some(forged)
        }
        _ => None,
    }
}
