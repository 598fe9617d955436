//! How a survey of the cluster is shown: as a table, as JSON, in one line, and as what has changed since the last one. Pure.

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::ask::Survey;
use super::health::{Row, Verdict, judge};
use super::time;
use crate::wire::client::{Role, StatusRow};

const COLUMNS: [&str; 7] = ["Server", "Status", "Leader", "Uptime", "Clients", "Messages", "Ports"];

/// A survey, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the servers said.
    pub survey: Survey,
    /// What to think of it.
    pub verdict: Verdict,
}

impl Report {
    /// Judges a survey.
    #[must_use]
    pub fn new(survey: Survey) -> Report {
        let verdict = judge(&survey.rows);
        Report { survey, verdict }
    }

    /// Judges a survey that follows another: when nobody answers, the servers that were known then are the ones that are offline.
    #[must_use]
    pub fn next(survey: Survey, before: Option<&Report>) -> Report {
        let known = before
            .map(|before| &before.survey)
            .filter(|before| before.cluster.is_some());
        let Some(known) = known.filter(|_| survey.cluster.is_none()) else {
            return Report::new(survey);
        };
        let rows = known.rows.iter().map(|row| Row {
            answer: None,
            ..row.clone()
        });
        Report::new(Survey {
            cluster: known.cluster.clone(),
            rows: rows.collect(),
            failures: survey.failures,
        })
    }

    /// `host:port` of the servers in it.
    pub fn addresses(&self) -> impl Iterator<Item = String> {
        self.survey.rows.iter().map(|row| row.address.clone())
    }

    fn leaders(&self) -> usize {
        let online = self.survey.rows.iter().filter_map(|row| row.answer.as_ref());
        online.filter(|row| row.role == Role::Leader).count()
    }

    /// For people. `now_ms` is the time in milliseconds since 1970.
    #[must_use]
    pub fn table(&self, now_ms: u64) -> String {
        let rows = &self.survey.rows;
        let mut cells = vec![COLUMNS.map(str::to_string)];
        cells.extend(rows.iter().map(table_row));
        let width = |column: usize| {
            let widths = cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.width());
            widths.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
        let rule: String = "-".repeat(widths.iter().sum::<usize>() + 2 * (COLUMNS.len() - 1));

        let cluster = self
            .survey
            .cluster
            .as_deref()
            .map_or(String::new(), |name| format!(": {}", clean(name)));
        let mut text = format!("SyncNet cluster status{cluster}\n{}\n\n", time::for_people(now_ms));
        for (n, row) in cells.iter().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line += cell;
                line += &" ".repeat(width - cell.width() + 2);
            }
            text += line.trim_end();
            text.push('\n');
            if n == 0 {
                text += &rule;
                text.push('\n');
            }
        }
        let online = rows.iter().filter(|row| row.answer.is_some()).count();
        let (all, leaders) = (rows.len(), self.leaders());
        text += &format!(
            "\nSummary: {online}/{all} servers online, {leaders} leader(s)\n{}\n",
            self.verdict
        );
        text
    }

    /// A line a server: what it is, or that it is offline.
    #[must_use]
    pub fn simple(&self) -> String {
        let line = |row: &Row| match &row.answer {
            None => format!("{} offline\n", clean(&row.name)),
            Some(answer) => format!("{} online {}\n", clean(&row.name), role_name(answer.role)),
        };
        self.survey.rows.iter().map(line).collect()
    }

    /// One object in one line, without its end.
    #[must_use]
    pub fn json(&self) -> String {
        let report = JsonReport {
            cluster: self.survey.cluster.as_deref(),
            health: self.verdict.health.name(),
            servers: self.survey.rows.iter().map(JsonRow::new).collect(),
        };
        // Texts and numbers only: nothing in it can fail.
        serde_json::to_string(&report).unwrap_or_default()
    }

    /// What has changed since an earlier report, a line for each: its kind and what it is now. All of it if there is none.
    #[must_use]
    pub fn changes(&self, before: Option<&Report>) -> Vec<String> {
        let mut lines = Vec::new();
        for row in &self.survey.rows {
            let old = before.and_then(|report| report.survey.rows.iter().find(|old| old.name == row.name));
            if old.map(|old| old.answer.is_some()) != Some(row.answer.is_some()) {
                let status = if row.answer.is_some() { "online" } else { "offline" };
                lines.push(format!("server {} {status} ({})", row.name, clean(&row.address)));
            } else if let (Some(old), Some(new)) = (old.and_then(|old| old.answer.as_ref()), &row.answer)
                && new.uptime_ms < old.uptime_ms
            {
                // Gone and back between two looks.
                let since = time::span(new.uptime_ms);
                lines.push(format!("server {} restarted ({since} ago)", row.name));
            }
        }
        let old = before.map(Report::leader);
        let new = self.leader();
        if old.as_ref() != Some(&new) {
            lines.push(match &new {
                Some((leader, term)) => format!("leader {leader} (term {term})"),
                None => "leader none".to_string(),
            });
        }
        if before.map(|report| &report.verdict) != Some(&self.verdict) {
            lines.push(format!("health {}", self.verdict));
        }
        lines
    }

    /// The server that says that it leads, in the highest term if there are several.
    fn leader(&self) -> Option<(String, u64)> {
        let online = self.survey.rows.iter().filter_map(|row| row.answer.as_ref());
        let leading = online.filter(|row| row.role == Role::Leader);
        leading
            .max_by_key(|row| row.term)
            .map(|row| (row.id.to_string(), row.term))
    }
}

fn table_row(row: &Row) -> [String; 7] {
    let port = row.address.rsplit(':').next().unwrap_or_default();
    let ports = match row.heartbeat_port {
        Some(heartbeat) => format!("{}/{heartbeat}", clean(port)),
        None => clean(port),
    };
    let name = clean(&row.name);
    let none = || "-".to_string();
    match &row.answer {
        None => [name, "offline".to_string(), none(), none(), none(), none(), ports],
        Some(answer) => [
            name,
            "online".to_string(),
            answer.leader.map_or_else(none, |leader| leader.to_string()),
            time::span(answer.uptime_ms),
            answer.clients.to_string(),
            answer.messages.to_string(),
            ports,
        ],
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
    }
}

/// What others wrote may hold what a terminal obeys.
fn clean(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{FFFD}' } else { c };
    text.chars().map(visible).collect()
}

#[derive(Serialize)]
struct JsonReport<'a> {
    cluster: Option<&'a str>,
    health: &'static str,
    servers: Vec<JsonRow<'a>>,
}

/// A row that is offline has `null` in all but its name, status, ring position and address.
#[derive(Serialize)]
struct JsonRow<'a> {
    id: &'a str,
    status: &'static str,
    role: Option<&'static str>,
    leader: Option<String>,
    term: Option<u64>,
    ring_position: Option<u16>,
    uptime_s: Option<f64>,
    clients: Option<u64>,
    messages: Option<u64>,
    commit: Option<u64>,
    applied: Option<u64>,
    last_log: Option<u64>,
    repairing: Option<bool>,
    address: &'a str,
}

impl<'a> JsonRow<'a> {
    fn new(row: &'a Row) -> JsonRow<'a> {
        let answer = row.answer.as_ref();
        let number = |get: fn(&StatusRow) -> u64| answer.map(get);
        JsonRow {
            id: &row.name,
            status: if answer.is_some() { "online" } else { "offline" },
            role: answer.map(|row| role_name(row.role)),
            leader: answer.and_then(|row| row.leader).map(|leader| leader.to_string()),
            term: number(|row| row.term),
            ring_position: row.ring,
            // Tenths are enough, and print as such.
            uptime_s: answer.map(|row| (row.uptime_ms / 100) as f64 / 10.0),
            clients: number(|row| row.clients),
            messages: number(|row| row.messages),
            commit: number(|row| row.commit),
            applied: number(|row| row.applied),
            last_log: number(|row| row.last_log),
            repairing: answer.map(|row| row.repairing),
            address: &row.address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ServerId;
    use crate::wire::client::ServerAddress;

    fn report(online: [bool; 3], leader: usize, term: u64) -> Report {
        let id = |n: usize| ServerId::new(&format!("server{}", n + 1)).unwrap();
        let row = |n: usize| {
            let address = format!("127.0.0.1:{}", 8000 + n);
            let server = ServerAddress {
                id: id(n),
                address: address.clone(),
                ring: n as u16,
                heartbeat_port: 8020 + n as u16,
            };
            let answer = StatusRow {
                id: id(n),
                role: if n == leader { Role::Leader } else { Role::Follower },
                leader: Some(id(leader)),
                term,
                ring_position: n as u16,
                uptime_ms: 41_867,
                clients: n as u64,
                messages: 15,
                commit: 17,
                applied: 17,
                last_log: 17,
                repairing: false,
                address,
            };
            Row::of(&server, online[n].then_some(answer))
        };
        Report::new(Survey {
            cluster: Some("sync\u{1b}net".to_string()),
            rows: vec![row(0), row(1), row(2)],
            failures: vec![],
        })
    }

    #[test]
    fn the_table_shows_what_there_is() {
        let expected = "\
SyncNet cluster status: sync\u{FFFD}net
2000-02-29 12:34:56 UTC

Server   Status   Leader   Uptime  Clients  Messages  Ports
---------------------------------------------------------------
server1  offline  -        -       -        -         8000/8020
server2  online   server3  41s     1        15        8001/8021
server3  online   server3  41s     2        15        8002/8022

Summary: 2/3 servers online, 1 leader(s)
DEGRADED - server1 is offline
";
        assert_eq!(report([false, true, true], 2, 2).table(951_827_696_789), expected);
        let healthy = report([true; 3], 2, 2).table(0);
        assert!(healthy.ends_with(
            "\nSummary: 3/3 servers online, 1 leader(s)\nHEALTHY - All servers online with single leader\n"
        ));
    }

    #[test]
    fn the_json_has_the_promised_keys_in_their_order() {
        let json = report([false, true, true], 2, 2).json();
        let start = "{\"cluster\":\"sync\\u001bnet\",\"health\":\"degraded\",\"servers\":[";
        let offline = "{\"id\":\"server1\",\"status\":\"offline\",\"role\":null,\"leader\":null,\"term\":null,\
             \"ring_position\":0,\"uptime_s\":null,\"clients\":null,\"messages\":null,\"commit\":null,\"applied\":null,\
             \"last_log\":null,\"repairing\":null,\"address\":\"127.0.0.1:8000\"},";
        let online = "{\"id\":\"server2\",\"status\":\"online\",\"role\":\"follower\",\"leader\":\"server3\",\"term\":2,\
             \"ring_position\":1,\"uptime_s\":41.8,\"clients\":1,\"messages\":15,\"commit\":17,\"applied\":17,\
             \"last_log\":17,\"repairing\":false,\"address\":\"127.0.0.1:8001\"},";
        assert!(json.starts_with(&format!("{start}{offline}{online}")), "{json}");
    }

    #[test]
    fn changes_are_told_once() {
        let first = report([true; 3], 2, 2);
        assert_eq!(first.changes(None).len(), 5);
        assert!(first.changes(Some(&first)).is_empty());
        let second = report([true, true, false], 1, 3);
        assert_eq!(
            second.changes(Some(&first)),
            [
                "server server3 offline (127.0.0.1:8002)",
                "leader server2 (term 3)",
                "health DEGRADED - server3 is offline"
            ]
        );
        let none = Report::new(Survey {
            cluster: None,
            rows: vec![Row::unknown("127.0.0.1:8000")],
            failures: vec![],
        });
        assert_eq!(
            none.changes(None),
            [
                "server 127.0.0.1:8000 offline (127.0.0.1:8000)",
                "leader none",
                "health UNKNOWN - No server answers"
            ]
        );
        let gone = Report::next(none.survey.clone(), Some(&second));
        assert_eq!(
            gone.changes(Some(&second)),
            [
                "server server1 offline (127.0.0.1:8000)",
                "server server2 offline (127.0.0.1:8001)",
                "leader none",
                "health UNKNOWN - No server answers"
            ]
        );
        assert_eq!(gone.addresses().count(), 3);
        let mut restarted = first.clone();
        if let Some(answer) = &mut restarted.survey.rows[0].answer {
            answer.uptime_ms = 100;
        }
        assert_eq!(restarted.changes(Some(&first)), ["server server1 restarted (0s ago)"]);
    }
}
