//! The numbers of commands, counted apart from the state: of each session only the next is taken, whatever has become of those before.
//! A number that comes again or too early makes nothing and is no outcome.

use std::collections::BTreeMap;

use syncnet::chat::command::Command;
use syncnet::chat::{State, content};
use syncnet::types::{ClientSeq, LogIndex, SessionId};

#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// The last number that was taken.
    taken: BTreeMap<SessionId, ClientSeq>,
}

impl Numbers {
    /// Whether a command belongs to a session that is there: asked before it is applied.
    pub fn concerns(command: &Command, model: &State) -> bool {
        content::head(command).is_some_and(|head| model.session(head.session).is_some())
    }

    /// A command of a session was applied, and made items or not.
    pub fn applied(
        &mut self,
        (index, command): (LogIndex, &Command),
        concerns: bool,
        made: bool,
        model: &State,
    ) -> Result<(), String> {
        let Some(head) = content::head(command).filter(|_| concerns) else {
            return Ok(());
        };
        let taken = self.taken.entry(head.session).or_default();
        if head.seq == taken.next() {
            *taken = head.seq;
        } else if made {
            return Err(format!(
                "entry {index} makes something of number {} of session {}, whose last was {taken}",
                head.seq, head.session
            ));
        }
        match model.session(head.session) {
            Some(session) if session.last != *taken => Err(format!(
                "session {} stands at {} after entry {index}, and {taken} was the last that was due",
                head.session, session.last
            )),
            _ => Ok(()),
        }
    }
}
