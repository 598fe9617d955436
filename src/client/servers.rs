//! The servers that a client knows, and which it tries next. A round is one attempt at each; the first round after a
//! connection that worked costs no wait, so that a fail-over takes milliseconds, and later rounds wait longer and longer.

use crate::limits;
use crate::rng::Rng;
use crate::types::{ServerId, Span};
use crate::wire::client::ServerAddress;

/// A server that the client knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Known {
    address: String,
    /// Who answers there, once that is known.
    id: Option<ServerId>,
}

/// The servers, and the place in the round.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Servers {
    known: Vec<Known>,
    only: bool,
    rng: Rng,
    current: Option<usize>,
    preferred: Option<usize>,
    attempts: usize,
    rounds: u32,
}

impl Servers {
    /// Begins with the addresses that were given: in their order, or in a random one.
    #[must_use]
    pub fn new(addresses: &[String], in_order: bool, only: bool, mut rng: Rng) -> Servers {
        let mut known: Vec<Known> = Vec::new();
        for address in addresses {
            if known.len() < limits::CLIENT_SERVERS_MAX && !known.iter().any(|k| &k.address == address) {
                known.push(Known {
                    address: address.clone(),
                    id: None,
                });
            }
        }
        if !in_order {
            rng.shuffle(&mut known);
        }
        Servers {
            known,
            only,
            rng,
            current: None,
            preferred: None,
            attempts: 0,
            rounds: 0,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The address of the attempt or connection that is under way.
    #[must_use]
    pub fn address(&self) -> &str {
        self.current
            .and_then(|at| self.known.get(at))
            .map_or("", |known| &known.address)
    }

    /// The server at the current address has said who it is, and who the others are.
    pub fn learn(&mut self, server: ServerId, all: &[ServerAddress]) {
        if let Some(known) = self.current.and_then(|at| self.known.get_mut(at)) {
            known.id = Some(server);
        }
        if self.only {
            return;
        }
        let before = self.known.len();
        for other in all {
            self.add(other);
        }
        let added = self.known.get_mut(before..).unwrap_or_default();
        self.rng.shuffle(added);
    }

    fn add(&mut self, other: &ServerAddress) -> Option<usize> {
        // The address that the user gave is kept for a server that has said its id: it may be the one that works from here.
        let same = |known: &Known| known.id == Some(other.id) || known.address == other.address;
        if let Some(at) = self.known.iter().position(same) {
            if let Some(known) = self.known.get_mut(at) {
                known.id = Some(other.id);
            }
            return Some(at);
        }
        if self.only || self.known.len() >= limits::CLIENT_SERVERS_MAX {
            return None;
        }
        self.known.push(Known {
            address: other.address.clone(),
            id: Some(other.id),
        });
        Some(self.known.len() - 1)
    }

    /// The next attempt goes to this server. False if it may not be used, or is the one that said so.
    pub fn prefer(&mut self, server: &ServerAddress) -> bool {
        self.preferred = self.add(server).filter(|&at| Some(at) != self.current);
        self.preferred.is_some()
    }

    /// Whether that server may not be used.
    pub fn bars(&mut self, server: &ServerAddress) -> bool {
        self.add(server).is_none()
    }

    /// How long to rest before the next attempt, if the round is over. Asked once before each [`Servers::choose`].
    pub fn rest(&mut self) -> Option<Span> {
        if self.attempts < self.known.len().max(1) {
            return None;
        }
        self.attempts = 0;
        let longest = limits::CLIENT_BACKOFF_MIN
            .times(1 << self.rounds.min(16))
            .min(limits::CLIENT_BACKOFF_MAX);
        self.rounds = self.rounds.saturating_add(1);
        // Between half and all of it, so that a thousand clients of a server that died don't come as one.
        Some(Span(self.rng.between(longest.0 / 2, longest.0)))
    }

    /// Whom to try now; `None` if no server is known.
    pub fn choose(&mut self) -> Option<&str> {
        if self.known.is_empty() {
            return None;
        }
        let after = self.current.map_or(0, |at| (at + 1) % self.known.len());
        let at = self.preferred.take().unwrap_or(after);
        self.attempts += 1;
        self.current = Some(at);
        self.known.get(at).map(|known| known.address.as_str())
    }

    /// The current one works: after it, the first round costs no wait again.
    pub fn works(&mut self) {
        self.attempts = 0;
        self.rounds = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn address(id: &str, address: &str) -> ServerAddress {
        ServerAddress {
            id: ServerId::new(id).unwrap(),
            address: address.to_string(),
            ring: 0,
            heartbeat_port: 0,
        }
    }

    #[test]
    fn given_servers_come_first_and_in_order_then_the_learnt() {
        let mut servers = Servers::new(&addresses(&["b:1", "a:1"]), true, false, Rng::new(1));
        assert_eq!(servers.choose(), Some("b:1"));
        servers.learn(
            ServerId::new("s2").unwrap(),
            &[address("s1", "a:1"), address("s2", "other:1"), address("s3", "c:1")],
        );
        assert_eq!(servers.len(), 3, "s2 is known under the given address");
        assert_eq!(servers.choose(), Some("a:1"));
        assert_eq!(servers.choose(), Some("c:1"));
        assert_eq!(servers.choose(), Some("b:1"));
    }

    #[test]
    fn only_keeps_to_the_given() {
        let mut servers = Servers::new(&addresses(&["a:1"]), true, true, Rng::new(1));
        servers.choose();
        servers.learn(ServerId::new("s1").unwrap(), &[address("s3", "c:1")]);
        assert_eq!(servers.len(), 1);
        assert!(!servers.prefer(&address("s3", "c:1")));
    }

    #[test]
    fn the_first_round_costs_no_wait_and_later_ones_wait_longer_within_a_bound() {
        let mut servers = Servers::new(&addresses(&["a:1", "b:1"]), true, false, Rng::new(1));
        let mut rests = Vec::new();
        for _ in 0..40 {
            if let Some(rest) = servers.rest() {
                rests.push(rest);
            }
            servers.choose();
        }
        assert_eq!(rests.len(), 19);
        assert!(rests[0] <= limits::CLIENT_BACKOFF_MIN);
        assert!(rests.iter().all(|&rest| rest <= limits::CLIENT_BACKOFF_MAX));
        assert!(rests[18] >= Span(limits::CLIENT_BACKOFF_MAX.0 / 2));
        servers.works();
        assert_eq!(servers.rest(), None);
    }

    #[test]
    fn servers_that_nobody_ordered_are_tried_in_the_order_of_the_seed() {
        let all = addresses(&["a:1", "b:1", "c:1"]);
        let first = |seed| {
            Servers::new(&all, false, false, Rng::new(seed))
                .choose()
                .map(str::to_string)
        };
        assert!((0..20).any(|seed| first(seed) != first(0)));
        assert_eq!(first(3), first(3));
    }
}
