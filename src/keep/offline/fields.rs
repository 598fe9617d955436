//! What a line says: names and values in a fixed order, as text for people or as JSON for programs.

use std::fmt::Write;

use serde::{Serialize, Serializer};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// A text, perhaps a stranger's.
    Text(String),
    /// Several of the same sort.
    Rows(Vec<Fields>),
}

/// Names and their values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// None yet.
    #[must_use]
    pub fn new() -> Fields {
        Fields::default()
    }

    /// With a number more.
    #[must_use]
    pub fn number(self, name: &'static str, value: u64) -> Fields {
        self.with(name, Value::Number(value))
    }

    /// With a text more.
    #[must_use]
    pub fn text(self, name: &'static str, value: impl Into<String>) -> Fields {
        self.with(name, Value::Text(value.into()))
    }

    /// With a check or digest more, in hexadecimal: as a number, programs would round it.
    #[must_use]
    pub fn hex(self, name: &'static str, bytes: &[u8]) -> Fields {
        let mut text = String::new();
        for byte in bytes {
            // Writing to a text can't fail.
            let _ = write!(text, "{byte:02x}");
        }
        self.text(name, text)
    }

    /// With any value more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Fields {
        self.0.push((name, value));
        self
    }

    /// Those of another behind these.
    #[must_use]
    pub fn and(mut self, others: Fields) -> Fields {
        self.0.extend(others.0);
        self
    }

    /// The value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// `name=value` after `name=value`. A text that isn't a plain word is quoted, and nothing in it can move the cursor or pass for
    /// another field.
    #[must_use]
    pub fn line(&self) -> String {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}={}", shown(value)))
            .collect();
        parts.join(" ")
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        // Numbers and strings of ours always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Flag(true) => "yes".to_owned(),
        Value::Flag(false) => "no".to_owned(),
        Value::Text(text) if is_plain(text) => text.clone(),
        // The form of the language's own texts: quotes, backslashes, control characters and those that turn the direction are escaped.
        Value::Text(text) => format!("{text:?}"),
        Value::Rows(rows) => {
            let rows: Vec<String> = rows.iter().map(|row| format!("{{{}}}", row.line())).collect();
            format!("[{}]", rows.join(" "))
        }
    }
}

fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':');
    !text.is_empty() && text.bytes().all(plain)
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_harmless_and_json_keeps_the_order() {
        let inner = Fields::new().number("term", 2);
        let fields = Fields::new()
            .text("user", "ann")
            .text("text", "a \"b\" x=1\n\u{1b}[2J\u{202e}")
            .with("noop", Value::Flag(true))
            .hex("chain", &[1, 0xab])
            .with("groups", Value::Rows(vec![inner.clone(), inner]))
            .text("empty", "");
        assert_eq!(
            fields.line(),
            r#"user=ann text="a \"b\" x=1\n\u{1b}[2J\u{202e}" noop=yes chain=01ab groups=[{term=2} {term=2}] empty="""#
        );
        assert_eq!(
            fields.json(),
            "{\"user\":\"ann\",\"text\":\"a \\\"b\\\" x=1\\n\\u001b[2J\u{202e}\",\"noop\":true,\"chain\":\"01ab\",\
             \"groups\":[{\"term\":2},{\"term\":2}],\"empty\":\"\"}"
        );
    }
}
