//! How a cluster is, judged from what its servers said of themselves. Pure.

use std::collections::BTreeMap;

use crate::types::ServerId;
use crate::wire::client::{Role, ServerAddress, StatusRow};

/// Entries that a server's log may be behind the leader's and still count as caught up.
pub const BEHIND_MAX: u64 = 1000;

/// What is known of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name; the address by which it was asked if nobody told the name.
    pub name: String,
    /// `host:port` for clients.
    pub address: String,
    /// Its place on the ring, if somebody told.
    pub ring: Option<u16>,
    /// The port of its heartbeats, if somebody told.
    pub heartbeat_port: Option<u16>,
    /// What it said of itself; `None` if it is offline.
    pub answer: Option<StatusRow>,
}

impl Row {
    /// A server that others have named.
    #[must_use]
    pub fn of(server: &ServerAddress, answer: Option<StatusRow>) -> Row {
        Row {
            name: server.id.to_string(),
            address: server.address.clone(),
            ring: Some(server.ring),
            heartbeat_port: Some(server.heartbeat_port),
            answer,
        }
    }

    /// An address that didn't answer, and that nobody knows.
    #[must_use]
    pub fn unknown(address: &str) -> Row {
        Row {
            name: address.to_string(),
            address: address.to_string(),
            ring: None,
            heartbeat_port: None,
            answer: None,
        }
    }
}

/// How a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All online, all agree on one leader, all caught up.
    Healthy,
    /// It works, but something is not as it should be.
    Degraded,
    /// No majority agrees on a leader.
    NoQuorum,
    /// No server answers.
    Unknown,
}

impl Health {
    /// As programs read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::NoQuorum => "no-quorum",
            Health::Unknown => "unknown",
        }
    }

    /// As people read it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Health::Healthy => "HEALTHY",
            Health::Degraded => "DEGRADED",
            Health::NoQuorum => "NO QUORUM",
            Health::Unknown => "UNKNOWN",
        }
    }

    /// With which code `syncnetctl status` ends, as monitoring plug-ins do.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Health::Healthy => 0,
            Health::Degraded => 1,
            Health::NoQuorum => 2,
            Health::Unknown => 3,
        }
    }
}

/// A judgement and its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The judgement.
    pub health: Health,
    /// Why.
    pub reason: String,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} - {}", self.health.title(), self.reason)
    }
}

/// Judges. `rows` has all servers of the cluster, if one of them answered.
#[must_use]
pub fn judge(rows: &[Row]) -> Verdict {
    let verdict = |health, reason: String| Verdict { health, reason };
    let online: Vec<&StatusRow> = rows.iter().filter_map(|row| row.answer.as_ref()).collect();
    if online.is_empty() {
        return verdict(Health::Unknown, "No server answers".to_string());
    }
    let majority = rows.len() / 2 + 1;
    if online.len() < majority {
        let (n, all) = (online.len(), rows.len());
        let reason = format!("Only {n} of {all} servers online, {majority} are needed");
        return verdict(Health::NoQuorum, reason);
    }
    let mut followers: BTreeMap<ServerId, usize> = BTreeMap::new();
    for leader in online.iter().filter_map(|row| row.leader) {
        *followers.entry(leader).or_default() += 1;
    }
    let Some((leader, _)) = followers.iter().find(|(_, n)| **n >= majority) else {
        let reason = if followers.is_empty() {
            "No server knows a leader".to_string()
        } else {
            "No majority agrees on a leader".to_string()
        };
        return verdict(Health::NoQuorum, reason);
    };
    let faults = faults(rows, &online, *leader);
    if faults.is_empty() {
        return verdict(Health::Healthy, "All servers online with single leader".to_string());
    }
    verdict(Health::Degraded, faults.join("; "))
}

/// Everything that isn't as it should be in a cluster whose majority follows `leader`.
fn faults(rows: &[Row], online: &[&StatusRow], leader: ServerId) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |who: Vec<String>, what: &str, all: &str| match who.as_slice() {
        [] => {}
        [one] => faults.push(format!("{one} {what}")),
        more => faults.push(format!("{} {all}", more.join(", "))),
    };
    let names = |select: &dyn Fn(&StatusRow) -> bool| -> Vec<String> {
        let selected = online.iter().filter(|row| select(row));
        selected.map(|row| row.id.to_string()).collect()
    };

    let offline = rows.iter().filter(|row| row.answer.is_none());
    fault(
        offline.map(|row| row.name.clone()).collect(),
        "is offline",
        "are offline",
    );

    let leading = names(&|row| row.role == Role::Leader);
    if leading.len() > 1 {
        fault(vec![leading.join(" and ")], "both say that they lead", "");
    }
    fault(names(&|row| row.leader.is_none()), "knows no leader", "know no leader");
    let other = names(&|row| row.leader.is_some_and(|other| other != leader));
    fault(
        other,
        &format!("doesn't follow {leader}"),
        &format!("don't follow {leader}"),
    );

    let said = online.iter().find(|row| row.id == leader);
    if let Some(said) = said {
        if said.role != Role::Leader {
            fault(vec![leader.to_string()], "doesn't say that it leads", "");
        }
        let elsewhere = names(&|row| row.leader == Some(leader) && row.term != said.term);
        fault(
            elsewhere,
            &format!("is in another term than {leader}"),
            &format!("are in another term than {leader}"),
        );
        for row in online {
            let behind = said.last_log.saturating_sub(row.last_log);
            if behind > BEHIND_MAX {
                let what = format!("is {behind} entries behind");
                fault(vec![row.id.to_string()], &what, "");
            }
        }
    }
    fault(names(&|row| row.repairing), "is repairing", "are repairing");
    fault(names(&|row| row.role == Role::Learner), "doesn't vote", "don't vote");
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ServerId {
        ServerId::new(&format!("server{n}")).expect("an id")
    }

    /// So many servers, all well, led by the last.
    fn cluster(n: usize) -> Vec<Row> {
        let rows = (1..=n).map(|i| {
            let server = ServerAddress {
                id: id(i),
                address: format!("127.0.0.1:{}", 7999 + i),
                ring: i as u16 - 1,
                heartbeat_port: 8019 + i as u16,
            };
            let answer = StatusRow {
                id: server.id,
                role: if i == n { Role::Leader } else { Role::Follower },
                leader: Some(id(n)),
                term: 2,
                ring_position: server.ring,
                uptime_ms: 41_800,
                clients: 0,
                messages: 15,
                commit: 5000,
                applied: 5000,
                last_log: 5000,
                repairing: false,
                address: server.address.clone(),
            };
            Row::of(&server, Some(answer))
        });
        rows.collect()
    }

    fn change(rows: &mut [Row], n: usize, change: impl FnOnce(&mut StatusRow)) {
        change(rows[n - 1].answer.as_mut().expect("online"));
    }

    #[track_caller]
    fn expect(rows: &[Row], health: Health, reason: &str) {
        let verdict = judge(rows);
        assert_eq!((verdict.health, verdict.reason.as_str()), (health, reason));
    }

    #[test]
    fn healthy_is_all_online_with_a_single_leader() {
        for n in 1..=5 {
            let verdict = judge(&cluster(n));
            assert_eq!(verdict.to_string(), "HEALTHY - All servers online with single leader");
            assert_eq!(verdict.health.exit_code(), 0);
        }
    }

    #[test]
    fn one_offline_is_degraded_and_a_majority_offline_no_quorum() {
        let mut rows = cluster(3);
        rows[0].answer = None;
        expect(&rows, Health::Degraded, "server1 is offline");
        rows[1].answer = None;
        expect(&rows, Health::NoQuorum, "Only 1 of 3 servers online, 2 are needed");
        rows[2].answer = None;
        expect(&rows, Health::Unknown, "No server answers");
        expect(&[], Health::Unknown, "No server answers");
        let mut rows = cluster(5);
        (rows[0].answer, rows[1].answer) = (None, None);
        expect(&rows, Health::Degraded, "server1, server2 are offline");
        let mut rows = cluster(4);
        (rows[0].answer, rows[1].answer) = (None, None);
        expect(&rows, Health::NoQuorum, "Only 2 of 4 servers online, 3 are needed");
    }

    #[test]
    fn no_majority_that_agrees_is_no_quorum() {
        let mut rows = cluster(3);
        for n in 1..=3 {
            change(&mut rows, n, |row| row.leader = None);
        }
        expect(&rows, Health::NoQuorum, "No server knows a leader");
        for n in 1..=3 {
            change(&mut rows, n, |row| row.leader = Some(id(n)));
        }
        expect(&rows, Health::NoQuorum, "No majority agrees on a leader");
    }

    #[test]
    fn disagreement_is_degraded() {
        let mut rows = cluster(3);
        change(&mut rows, 1, |row| row.leader = None);
        expect(&rows, Health::Degraded, "server1 knows no leader");
        let mut rows = cluster(3);
        change(&mut rows, 1, |row| row.leader = Some(id(2)));
        expect(&rows, Health::Degraded, "server1 doesn't follow server3");
        let mut rows = cluster(3);
        change(&mut rows, 1, |row| row.term = 1);
        expect(&rows, Health::Degraded, "server1 is in another term than server3");
        let mut rows = cluster(3);
        change(&mut rows, 1, |row| row.role = Role::Leader);
        expect(&rows, Health::Degraded, "server1 and server3 both say that they lead");
        let mut rows = cluster(3);
        change(&mut rows, 3, |row| row.role = Role::Follower);
        expect(&rows, Health::Degraded, "server3 doesn't say that it leads");
    }

    #[test]
    fn caught_up_is_within_a_thousand_entries_of_the_leader() {
        let mut rows = cluster(3);
        change(&mut rows, 1, |row| row.last_log = 4000);
        assert_eq!(judge(&rows).health, Health::Healthy);
        change(&mut rows, 1, |row| row.last_log = 3999);
        expect(&rows, Health::Degraded, "server1 is 1001 entries behind");
        // More than the leader has is what a follower of a dead leader may have.
        change(&mut rows, 1, |row| row.last_log = 9000);
        assert_eq!(judge(&rows).health, Health::Healthy);
    }

    #[test]
    fn repairing_and_not_voting_are_degraded() {
        let mut rows = cluster(3);
        change(&mut rows, 1, |row| row.repairing = true);
        change(&mut rows, 2, |row| row.role = Role::Learner);
        expect(&rows, Health::Degraded, "server1 is repairing; server2 doesn't vote");
    }

    #[test]
    fn names_and_codes_are_those_that_monitoring_reads() {
        let all = [Health::Healthy, Health::Degraded, Health::NoQuorum, Health::Unknown];
        assert_eq!(all.map(Health::name), ["healthy", "degraded", "no-quorum", "unknown"]);
        assert_eq!(all.map(Health::exit_code), [0, 1, 2, 3]);
    }
}
