//! The lines of standard input, with a bound on how long one may be and on how many are read ahead.

use std::io::Read;
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};

use crate::chat::command::Code;
use crate::limits;

/// A line of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1; empty ones count.
    pub number: u64,
    /// When it was read.
    pub read: Instant,
    /// What it says, or why it can't be sent.
    pub text: Result<String, Code>,
}

/// Cuts bytes into lines. A line that is too long costs no more memory than the longest that isn't.
#[derive(Clone, Debug, Default)]
pub struct Splitter {
    line: Vec<u8>,
    too_long: bool,
    number: u64,
}

impl Splitter {
    /// Takes more bytes; `give` gets each line that is complete and not empty. It says whether to go on.
    pub fn feed(&mut self, mut bytes: &[u8], give: &mut impl FnMut(u64, Result<String, Code>) -> bool) -> bool {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.keep(line);
            if !self.cut(give) {
                return false;
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.keep(bytes);
        true
    }

    /// The input is over: its last line may have no end.
    pub fn finish(&mut self, give: &mut impl FnMut(u64, Result<String, Code>) -> bool) {
        if self.too_long || !self.line.is_empty() {
            self.cut(give);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        // One more for the carriage return that isn't part of the text.
        if self.too_long || self.line.len() + bytes.len() > limits::MESSAGE_BYTES_CEILING + 1 {
            self.too_long = true;
            self.line.clear();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn cut(&mut self, give: &mut impl FnMut(u64, Result<String, Code>) -> bool) -> bool {
        self.number += 1;
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.too_long) {
            return give(self.number, Err(Code::TextTooLong));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.is_empty() {
            return true;
        }
        give(self.number, String::from_utf8(line).map_err(|_| Code::BadText))
    }
}

/// Reads standard input on a thread of its own; the channel closes at its end.
///
/// # Errors
/// What the system says when it has no thread left.
pub fn stdin() -> std::io::Result<Receiver<Line>> {
    let (lines, received) = bounded(limits::CLIENT_LINES_AHEAD_MAX);
    let read = move || {
        let mut splitter = Splitter::default();
        let mut buffer = vec![0; 64 * 1024];
        let mut give = |number, text| {
            let read = Instant::now();
            lines.send(Line { number, read, text }).is_ok()
        };
        loop {
            match std::io::stdin().lock().read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    if !splitter.feed(buffer.get(..count).unwrap_or_default(), &mut give) {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    eprintln!("syncnet: standard input can't be read: {error}");
                    break;
                }
            }
        }
        splitter.finish(&mut give);
    };
    std::thread::Builder::new()
        .name("syncnet-stdin".to_string())
        .spawn(read)?;
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(parts: &[&[u8]]) -> Vec<(u64, Result<String, Code>)> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        let mut give = |number, text| {
            lines.push((number, text));
            true
        };
        for part in parts {
            splitter.feed(part, &mut give);
        }
        splitter.finish(&mut give);
        lines
    }

    fn ok(number: u64, text: &str) -> (u64, Result<String, Code>) {
        (number, Ok(text.to_string()))
    }

    #[test]
    fn lines_are_cut_wherever_the_reads_end() {
        let expected = [ok(1, "one"), ok(3, "two"), ok(4, "three")];
        assert_eq!(split(&[b"one\r\n\ntwo\nthree"]), expected);
        let bytes: Vec<&[u8]> = b"one\r\n\ntwo\nthree".chunks(1).collect();
        assert_eq!(split(&bytes), expected);
        assert_eq!(split(&[b"one\n"]), [ok(1, "one")]);
        assert_eq!(split(&[b"\r\n\n"]), []);
    }

    #[test]
    fn what_is_not_utf8_or_too_long_is_refused_and_the_next_line_goes_on() {
        let long = vec![b'x'; limits::MESSAGE_BYTES_CEILING * 3];
        let lines = split(&[b"\xff\n", &long, b"\nnext\n"]);
        assert_eq!(
            lines,
            [(1, Err(Code::BadText)), (2, Err(Code::TextTooLong)), ok(3, "next")]
        );
    }
}
