//! What `syncnetctl status` says all the while: never two leaders in a term, and no server's term ever goes back.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::load::number;
use crate::support::cluster::Cluster;

/// What was said so far.
#[derive(Default)]
struct History {
    /// Who led in a term.
    leaders: BTreeMap<u64, String>,
    /// The highest term that each server named.
    terms: BTreeMap<String, u64>,
    complaints: Vec<String>,
    reports: u64,
}

impl History {
    /// Takes a report of `syncnetctl status --json`.
    fn take(&mut self, report: &Value) {
        self.reports += 1;
        for row in report["servers"].as_array().into_iter().flatten() {
            if row["status"] != "online" {
                continue;
            }
            let (id, term) = (row["id"].as_str().unwrap_or_default().to_string(), number(row, "term"));
            let before = self.terms.entry(id.clone()).or_default();
            if term < *before {
                self.complaints
                    .push(format!("{id} was in term {before}, then in {term}"));
            }
            *before = term;
            if row["role"] == "leader" {
                let leader = self.leaders.entry(term).or_insert_with(|| id.clone());
                if *leader != id {
                    self.complaints
                        .push(format!("{leader} and {id} both led in term {term}"));
                }
            }
        }
    }
}

/// Asks again and again, until it is dropped.
pub struct Watch {
    history: Arc<Mutex<History>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The same command once more.
fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args()).env_clear();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            copy.env(key, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        copy.current_dir(dir);
    }
    copy
}

fn held(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(|e| e.into_inner())
}

impl Watch {
    /// Begins to ask.
    pub fn start(cluster: &Cluster) -> Watch {
        let command = cluster.command("syncnetctl", &["status", "--json", "--timeout", "1"]);
        let history = Arc::new(Mutex::new(History::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&history), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let output = again(&command).output().expect("syncnetctl can be started");
                if let Ok(report) = serde_json::from_slice(&output.stdout) {
                    held(&shared).take(&report);
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        Watch {
            history,
            stop,
            thread: Some(thread),
        }
    }

    /// A server's disk is damaged: it may come back as one that knows of no term.
    pub fn forget(&self, id: &str) {
        held(&self.history).terms.remove(id);
    }

    /// What was wrong so far; and how many reports there were.
    pub fn judge(&self) -> (Vec<String>, u64) {
        let history = held(&self.history);
        (history.complaints.clone(), history.reports)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn the_watch_notices_two_leaders_in_a_term_and_terms_that_go_back() {
    let row =
        |id: &str, role: &str, term: u64| serde_json::json!({"id": id, "status": "online", "role": role, "term": term});
    let mut history = History::default();
    history.take(&serde_json::json!({"servers": [row("a", "leader", 2), row("b", "follower", 2)]}));
    history.take(&serde_json::json!({"servers": [row("a", "leader", 2), row("b", "leader", 3)]}));
    assert!(history.complaints.is_empty(), "{:?}", history.complaints);
    history.take(&serde_json::json!({"servers": [row("a", "leader", 3)]}));
    assert_eq!(history.complaints.len(), 1, "{:?}", history.complaints);
    history.take(&serde_json::json!({"servers": [row("b", "follower", 2)]}));
    assert_eq!(history.complaints.len(), 2, "{:?}", history.complaints);
}
