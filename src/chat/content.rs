//! What can be told from a command alone, without the state: its head, who gave it, and what the items say that it makes.
//! Live readers and readers of old history both use these functions, so both see the same.

use super::command::{Command, Content, Head};
use crate::types::{ClientSeq, SessionId};

/// What the items of this command say, if it makes any. Whether it makes any, and where, only
/// [`State::apply`](super::State::apply) knows.
#[must_use]
pub fn content<'a>(command: &'a Command<'_>) -> Option<Content<'a>> {
    match command {
        Command::Post { user, text, .. } => Some(Content::Message { user, text }),
        Command::Create { user, .. } => Some(Content::Created { user }),
        Command::Join { user, .. } => Some(Content::Joined { user }),
        Command::Leave { user, .. } | Command::Close { user, .. } | Command::Release { user, .. } => {
            Some(Content::Left { user })
        }
        Command::Topic { user, text, .. } => Some(Content::Topic { user, text }),
        Command::Rename { user, name, .. } => Some(Content::Renamed {
            user,
            name: &name.shown,
        }),
        Command::Skip { .. }
        | Command::Open { .. }
        | Command::Touch { .. }
        | Command::Expire { .. }
        | Command::ForgetKeys
        | Command::Settings(_)
        | Command::Trim { .. } => None,
    }
}

/// The head of a command of a session; `None` for the others.
#[must_use]
pub fn head<'a>(command: &'a Command<'_>) -> Option<&'a Head> {
    match command {
        Command::Post { head, .. }
        | Command::Create { head, .. }
        | Command::Join { head, .. }
        | Command::Leave { head, .. }
        | Command::Topic { head, .. }
        | Command::Rename { head, .. }
        | Command::Skip { head, .. }
        | Command::Close { head, .. } => Some(head),
        Command::Open { .. }
        | Command::Touch { .. }
        | Command::Release { .. }
        | Command::Expire { .. }
        | Command::ForgetKeys
        | Command::Settings(_)
        | Command::Trim { .. } => None,
    }
}

/// The name under which a session's command was sent; `None` where the session's name doesn't matter.
#[must_use]
pub fn user<'a>(command: &'a Command<'_>) -> Option<&'a str> {
    match command {
        Command::Post { user, .. }
        | Command::Create { user, .. }
        | Command::Join { user, .. }
        | Command::Leave { user, .. }
        | Command::Topic { user, .. }
        | Command::Rename { user, .. }
        | Command::Close { user, .. } => Some(user),
        _ => None,
    }
}

/// The session and number by which a client knows its own items; zeros if no command of a session made them.
#[must_use]
pub fn origin(command: &Command<'_>) -> (SessionId, ClientSeq) {
    head(command).map_or((SessionId(0), ClientSeq(0)), |head| (head.session, head.seq))
}
