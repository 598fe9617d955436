//! What the oracle knows of ages, from the log alone: which session was heard of when, and which idempotency key posted what. A session
//! must not expire early, and a key that can't have been forgotten yet must not post twice.

use std::collections::BTreeMap;

use syncnet::chat::command::{Command, DedupKey, KeyId, Outcome, Stamp};
use syncnet::chat::{State, content};
use syncnet::types::SessionId;

use super::counts::Counts;

#[derive(Clone, Debug, Default)]
pub struct Ages {
    /// The log age at which each session was last heard of.
    heard: BTreeMap<SessionId, u64>,
    keys: BTreeMap<(KeyId, DedupKey), (u64, Outcome)>,
}

/// What was so before a command was applied.
pub struct Before {
    named: bool,
    there: bool,
    /// Of a message with a key that was the next of its session.
    key: Option<(KeyId, DedupKey)>,
    expiry_ms: u64,
    release_ms: u64,
}

impl Ages {
    /// Looks at the state before a command is applied.
    pub fn before(&self, command: &Command, model: &State) -> Before {
        let session = about(command).and_then(|id| model.session(id));
        let key = match command {
            Command::Post {
                head,
                dedup: Some(dedup),
                ..
            } => session
                .filter(|session| session.last.next() == head.seq)
                .map(|session| (session.key, *dedup)),
            _ => None,
        };
        Before {
            named: session.is_some_and(|session| session.named),
            there: session.is_some(),
            key,
            expiry_ms: model.settings().session_expiry_ms,
            release_ms: model.settings().name_release_ms,
        }
    }

    /// Looks at it afterwards; `made` says whether the command made an item.
    pub fn after(
        &mut self,
        before: &Before,
        (stamp, command): (&Stamp, &Command),
        model: &State,
        made: bool,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let age = stamp.age_ms;
        match command {
            Command::Release { session, .. } => {
                let named = model.session(*session).is_some_and(|session| session.named);
                if before.named && !named {
                    counts.one("names released");
                    self.silent_for(*session, age, before.release_ms, "lost its name")?;
                }
            }
            Command::Expire { session } => {
                if before.there && model.session(*session).is_none() {
                    counts.one("sessions expired");
                    self.silent_for(*session, age, before.expiry_ms, "expired")?;
                }
            }
            Command::Touch { sessions, .. } => {
                counts.one("reports of live sessions");
                self.heard.extend(sessions.iter().map(|&session| (session, age)));
            }
            Command::ForgetKeys => counts.one("times that keys were forgotten"),
            Command::Settings(_) => counts.one("changes of the settings"),
            _ => {
                if let Some(head) = content::head(command) {
                    self.heard.insert(head.session, age);
                }
            }
        }
        match (before.key, command) {
            (Some(key), Command::Post { head, .. }) => {
                let outcome = model.outcome(head.session, head.seq);
                self.posted(key, age, before.expiry_ms, made, outcome, counts)
            }
            _ => Ok(()),
        }
    }

    fn silent_for(&self, session: SessionId, age: u64, least: u64, what: &str) -> Result<(), String> {
        let heard = self.heard.get(&session).copied().unwrap_or(0);
        if heard + least > age {
            return Err(format!(
                "session {session} {what} at the age of {age} ms, and was heard of at {heard}; {least} ms are due"
            ));
        }
        Ok(())
    }

    fn posted(
        &mut self,
        key: (KeyId, DedupKey),
        age: u64,
        expiry_ms: u64,
        made: bool,
        outcome: Option<&Outcome>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let known = self.keys.get(&key).filter(|(at, _)| at + expiry_ms > age);
        match (known, outcome) {
            (Some(_), Some(Outcome::Posted { .. })) if made => Err(format!("{key:?} has posted twice")),
            (Some((_, first)), Some(now @ Outcome::Posted { .. })) if now != first => {
                Err(format!("{key:?} has come to {first:?}, and now to {now:?}"))
            }
            (Some(_), Some(Outcome::Posted { .. })) => {
                counts.one("keys recognised");
                Ok(())
            }
            (_, Some(posted @ Outcome::Posted { .. })) if made => {
                self.keys.insert(key, (age, posted.clone()));
                counts.one("messages with keys");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Whose session a command is about.
fn about(command: &Command) -> Option<SessionId> {
    match command {
        Command::Release { session, .. } | Command::Expire { session } => Some(*session),
        _ => content::head(command).map(|head| head.session),
    }
}
