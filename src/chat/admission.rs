//! What is checked before a command enters the log: the form and size of names and texts. Names are folded here, once, and
//! carried in the command, so that every server compares alike whatever its Unicode tables.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::command::{Code, Name};
use crate::limits;

/// A room's name: "Ops" and "ops" are one room.
///
/// # Errors
/// [`Code::BadRoomName`].
pub fn fold_room(text: &str) -> Result<Name, Code> {
    fold(text, limits::ROOM_NAME_BYTES_MAX).ok_or(Code::BadRoomName)
}

/// A user's name.
///
/// # Errors
/// [`Code::BadName`].
pub fn fold_user(text: &str) -> Result<Name, Code> {
    fold(text, limits::NAME_BYTES_MAX).ok_or(Code::BadName)
}

/// A message of at most `bytes_max` bytes.
///
/// # Errors
/// [`Code::EmptyText`], [`Code::TextTooLong`], or [`Code::BadText`] for control characters other than tab and newline.
pub fn check_text(text: &str, bytes_max: usize) -> Result<(), Code> {
    if text.len() > bytes_max {
        return Err(Code::TextTooLong);
    }
    if text.trim().is_empty() {
        return Err(Code::EmptyText);
    }
    if !is_plain(text) && text.chars().any(|c| c.is_control() && c != '\t' && c != '\n') {
        return Err(Code::BadText);
    }
    Ok(())
}

/// Whether all of a text is printable ASCII, tabs and newlines, as most are: told from the bytes, many at a time.
fn is_plain(text: &str) -> bool {
    let odd = |byte: u8| !(0x20..0x7f).contains(&byte) && byte != b'\t' && byte != b'\n';
    !text.bytes().fold(false, |found, byte| found | odd(byte))
}

/// A topic: one line, which may be empty.
///
/// # Errors
/// [`Code::TextTooLong`], or [`Code::BadText`] for control characters.
pub fn check_topic(text: &str) -> Result<(), Code> {
    if text.len() > limits::TOPIC_BYTES_MAX {
        return Err(Code::TextTooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(Code::BadText);
    }
    Ok(())
}

/// The name in the one form (NFKC) in which names that look the same are the same, and in that form without case. Both must
/// fit: folding may make a name longer.
fn fold(text: &str, bytes_max: usize) -> Option<Name> {
    // NFKC makes nothing shorter by more than this, and normalising megabytes to refuse them would be wasteful.
    if text.len() > bytes_max * 8 {
        return None;
    }
    let shown: String = text.nfkc().collect();
    let first = shown.chars().next()?;
    // A slash begins a command, a dash an option; a combining mark would join whatever is printed before it.
    if matches!(first, '/' | '-') || is_combining_mark(first) || shown.chars().any(is_unseen) {
        return None;
    }
    let folded = without_case(&shown);
    let fits = |name: &str| !name.is_empty() && name.len() <= bytes_max;
    (fits(&shown) && fits(&folded)).then(|| Name::new(&shown, &folded))
}

/// Down, up, and down again: so "ß", "ẞ" and "SS" are alike, and both forms of the small sigma, which lower case alone would
/// keep apart.
fn without_case(text: &str) -> String {
    text.chars()
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .nfkc()
        .collect()
}

/// Whether a character leaves no ink or changes what stands around it: white space, control and format characters, and others
/// by which two names could look alike.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || c.is_whitespace()
        || matches!(c,
            '\u{00AD}' | '\u{034F}' | '\u{0600}'..='\u{0605}' | '\u{061C}' | '\u{06DD}' | '\u{070F}'
            | '\u{0890}'..='\u{0891}' | '\u{08E2}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{110BD}' | '\u{110CD}' | '\u{13430}'..='\u{1343F}' | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(text: &str) -> Option<(String, String)> {
        fold_room(text)
            .ok()
            .map(|name| (name.shown.to_string(), name.folded.to_string()))
    }

    #[test]
    fn names_that_look_alike_are_one() {
        let folded = |text: &str| fold_user(text).unwrap().folded;
        assert_eq!(room("Ops"), Some(("Ops".to_string(), "ops".to_string())));
        assert_eq!(folded("Zoe\u{308}"), folded("ZOË"));
        assert_eq!(folded("ＯＰＳ"), folded("ops"));
        assert_eq!(folded("straße"), folded("STRASSE"));
        assert_eq!(folded("ΟΔΟΣ"), folded("οδος"));
        assert_eq!(folded("ΟΔΟΣ"), folded("οδοσ"));
        assert_ne!(folded("anna"), folded("ann"));
    }

    #[test]
    fn folding_twice_is_folding_once() {
        // Every character that can be in a name, between two others that it may join.
        let names = ('\0'..=char::MAX).map(|c| format!("o{c}\u{301}"));
        for once in names.filter_map(|text| fold_room(&text).ok()) {
            assert_eq!(fold_room(&once.shown).as_ref(), Ok(&once));
            let twice = fold_room(&once.folded);
            assert_eq!(twice.map(|name| name.folded), Ok(once.folded));
        }
    }

    #[test]
    fn names_that_deceive_are_refused() {
        let bad = [
            "",
            " ",
            "a b",
            "/join",
            "-u",
            "a\tb",
            "a\u{200B}b",
            "a\u{202E}b",
            "\u{FEFF}a",
            "a\u{AD}",
            "\u{301}a",
            "a\u{7f}",
            "a\u{3164}",
            "a\u{FE0F}",
            "a\u{A0}b",
            "\u{2060}",
        ];
        for text in bad {
            assert_eq!(fold_user(text), Err(Code::BadName), "{text:?}");
            assert_eq!(fold_room(text), Err(Code::BadRoomName), "{text:?}");
        }
    }

    #[test]
    fn limits_of_names_are_exact() {
        let long = "x".repeat(limits::NAME_BYTES_MAX);
        assert!(fold_user(&long).is_ok());
        assert_eq!(fold_user(&format!("{long}x")), Err(Code::BadName));
        let long = "x".repeat(limits::ROOM_NAME_BYTES_MAX);
        assert!(fold_room(&long).is_ok());
        assert_eq!(fold_room(&format!("{long}x")), Err(Code::BadRoomName));
        assert_eq!(fold_room(&"\u{FDFA}".repeat(64)), Err(Code::BadRoomName));
    }

    #[test]
    fn every_character_is_judged_alike_however_it_is_looked_at() {
        for c in '\0'..=char::MAX {
            let bad = c.is_control() && c != '\t' && c != '\n';
            let wanted = if bad { Err(Code::BadText) } else { Ok(()) };
            assert_eq!(
                check_text(&format!("long enough for a word {c}x"), 100),
                wanted,
                "{c:?}"
            );
        }
    }

    #[test]
    fn limits_of_texts_are_exact() {
        assert_eq!(check_text(&"x".repeat(100), 100), Ok(()));
        assert_eq!(check_text(&"x".repeat(101), 100), Err(Code::TextTooLong));
        assert_eq!(check_text("é", 1), Err(Code::TextTooLong));
        assert_eq!(check_text(" \t\n\u{3000}", 100), Err(Code::EmptyText));
        assert_eq!(check_text("", 100), Err(Code::EmptyText));
        assert_eq!(check_text("one\ttwo\nthree", 100), Ok(()));
        for bad in ["bell\u{7}", "esc\u{1b}[2J", "nul\0", "cr\r", "c1\u{9b}"] {
            assert_eq!(check_text(bad, 100), Err(Code::BadText), "{bad:?}");
        }
        assert_eq!(check_topic(""), Ok(()));
        assert_eq!(check_topic(&"x".repeat(limits::TOPIC_BYTES_MAX)), Ok(()));
        assert_eq!(
            check_topic(&"x".repeat(limits::TOPIC_BYTES_MAX + 1)),
            Err(Code::TextTooLong)
        );
        assert_eq!(check_topic("two\nlines"), Err(Code::BadText));
    }
}
