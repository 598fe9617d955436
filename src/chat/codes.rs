//! What a refusal is called: a stable name for programs, and words for people that name the remedy.

use std::fmt;

use super::command::Code;

impl Code {
    /// The stable name that the programs print as JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Code::NoSuchRoom => "no_such_room",
            Code::RoomExists => "room_exists",
            Code::NameTaken => "name_taken",
            Code::BadName => "bad_name",
            Code::BadRoomName => "bad_room_name",
            Code::EmptyText => "empty_text",
            Code::TextTooLong => "text_too_long",
            Code::BadText => "bad_text",
            Code::NotMember => "not_member",
            Code::WrongName => "wrong_name",
            Code::TooManyRooms => "too_many_rooms",
            Code::RoomsFull => "rooms_full",
            Code::SessionsFull => "sessions_full",
            Code::KeysFull => "keys_full",
            Code::NoSuchSession => "no_such_session",
            Code::WrongSecret => "wrong_secret",
            Code::Malformed => "malformed",
            Code::NotOpen => "not_open",
            Code::Busy => "busy",
        }
    }

    /// What happened and what helps, in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Code::NoSuchRoom => "there is no such room; create it first",
            Code::RoomExists => "a room of that name exists already; join it or choose another name",
            Code::NameTaken => "somebody else has that name; choose another, or wait a minute if it was yours",
            Code::BadName => {
                "a name has 1 to 32 bytes, no spaces, control or invisible characters, and doesn't begin with / or -"
            }
            Code::BadRoomName => {
                "a room name has 1 to 64 bytes, no spaces, control or invisible characters, and doesn't begin with / or -"
            }
            Code::EmptyText => "the text is empty; write something",
            Code::TextTooLong => "the text is too long; send it in parts",
            Code::BadText => "the text isn't UTF-8 or has control characters; take them out",
            Code::NotMember => "you are not in that room; join it first",
            Code::WrongName => "the session has another name by now; send it again under that name",
            Code::TooManyRooms => "you are in as many rooms as one can be; leave one first",
            Code::RoomsFull => "the cluster has as many rooms as it can have; use one of them",
            Code::SessionsFull => "the cluster has as many sessions as it can have; try again later",
            Code::KeysFull => {
                "the cluster keeps as many idempotency keys as it can; try again later, or send without a key"
            }
            Code::NoSuchSession => "the session has expired or never was; open a new one",
            Code::WrongSecret => "that session belongs to another client; open one of your own",
            Code::Malformed => "the server can't read the command; are client and server of the same version?",
            Code::NotOpen => "no session is open on this connection; open one first",
            Code::Busy => "the server can't take more now; try again in a moment",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn the_words_about_names_tell_the_true_limits() {
        let bytes = |max: usize| format!("1 to {max} bytes");
        assert!(Code::BadName.to_string().contains(&bytes(limits::NAME_BYTES_MAX)));
        assert!(
            Code::BadRoomName
                .to_string()
                .contains(&bytes(limits::ROOM_NAME_BYTES_MAX))
        );
    }
}
