//! What is typed in the chat: a text, or a command that begins with a slash.

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Nothing.
    Nothing,
    /// A message.
    Text(String),
    /// `/create ROOM`
    Create(String),
    /// `/join ROOM`
    Join(String),
    /// `/leave [ROOM]`
    Leave(Option<String>),
    /// `/rooms`
    Rooms,
    /// `/who [ROOM]`
    Who(Option<String>),
    /// `/whereami`
    WhereAmI,
    /// `/history [N]`
    History(u32),
    /// `/topic [TEXT]`
    Topic(Option<String>),
    /// `/name NAME`
    Name(String),
    /// `/ping`
    Ping,
    /// `/status`
    Status,
    /// `/help`
    Help,
    /// `/quit`
    Quit,
    /// None of these, and why.
    Wrong(String),
}

/// Messages that `/history` shows if it isn't told.
const HISTORY_DEFAULT: u32 = 20;

/// What `/help` prints.
pub const HELP: &str = "\
/create ROOM      make a room and join it
/join ROOM        join a room, or go to one that you are in
/leave [ROOM]     leave a room
/rooms            all rooms
/who [ROOM]       who is in the room
/whereami         your name, room and server
/history [N]      the last messages again (20)
/topic [TEXT]     the room's topic, or a new one
/name NAME        take another name
/ping             how far the server is away
/status           how the server is
/help             this
/quit             leave (so do Ctrl-D and Ctrl-C twice)
//TEXT            a message that begins with a slash";

/// Reads a line.
#[must_use]
pub fn parse(line: &str) -> Typed {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.trim().is_empty() {
        return Typed::Nothing;
    }
    let Some(command) = line.strip_prefix('/') else {
        return Typed::Text(line.to_string());
    };
    if command.starts_with('/') {
        return Typed::Text(command.to_string());
    }
    let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    let given = || (!rest.is_empty()).then(|| rest.to_string());
    let needs = |what: &str| Typed::Wrong(format!("/{word} needs {what}: /{word} {what}"));
    match word.to_ascii_lowercase().as_str() {
        "create" => given().map_or_else(|| needs("ROOM"), Typed::Create),
        "join" => given().map_or_else(|| needs("ROOM"), Typed::Join),
        "leave" => Typed::Leave(given()),
        "rooms" => Typed::Rooms,
        "who" => Typed::Who(given()),
        "whereami" => Typed::WhereAmI,
        "history" if rest.is_empty() => Typed::History(HISTORY_DEFAULT),
        "history" => rest.parse().map_or_else(
            |_| Typed::Wrong(format!("{rest} is no number of messages")),
            Typed::History,
        ),
        "topic" => Typed::Topic(given()),
        "name" | "nick" => given().map_or_else(|| needs("NAME"), Typed::Name),
        "ping" => Typed::Ping,
        "status" => Typed::Status,
        "help" | "" => Typed::Help,
        "quit" | "exit" => Typed::Quit,
        _ => Typed::Wrong(format!(
            "there is no command /{word}; /help lists them, //{word} says it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_begins_a_command_and_two_a_text() {
        assert_eq!(parse("hello /join"), Typed::Text("hello /join".into()));
        assert_eq!(parse("//etc is full"), Typed::Text("/etc is full".into()));
        assert_eq!(parse("/join  ops "), Typed::Join("ops".into()));
        assert_eq!(parse("/JOIN ops"), Typed::Join("ops".into()));
        assert_eq!(parse("/history 5"), Typed::History(5));
        assert_eq!(parse("/history"), Typed::History(20));
        assert_eq!(parse("/topic"), Typed::Topic(None));
        assert_eq!(parse("/topic new plan"), Typed::Topic(Some("new plan".into())));
        assert_eq!(parse("  "), Typed::Nothing);
        assert!(matches!(parse("/join"), Typed::Wrong(_)));
        assert!(matches!(parse("/history x"), Typed::Wrong(_)));
        assert!(matches!(parse("/jion ops"), Typed::Wrong(text) if text.contains("/help")));
    }

    #[test]
    fn help_names_every_command() {
        for command in [
            "create", "join", "leave", "rooms", "who", "whereami", "history", "topic", "name", "ping", "status",
            "help", "quit",
        ] {
            assert!(HELP.contains(&format!("/{command} ")), "{command}");
            assert!(!matches!(parse(&format!("/{command} 1")), Typed::Wrong(_)), "{command}");
        }
    }
}
