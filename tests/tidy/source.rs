//! Reads Rust source as far as the rules of `tidy` need it: code without comments, texts and tests, and the paths that it names.

/// The code of a file with the same line breaks: comments, the inside of texts and characters, and everything under
/// `#[cfg(test)]` are blank.
pub fn code(source: &str) -> String {
    without_tests(&without_texts(source))
}

/// Blanks comments and the inside of texts and characters.
pub fn without_texts(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    // Copies what is code, blanks the rest but for line breaks.
    let blank = |out: &mut Vec<u8>, from: usize, to: usize| {
        out.extend(bytes[from..to].iter().map(|&b| if b == b'\n' { b'\n' } else { b' ' }));
    };
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word_before = at > 0 && is_word(bytes[at - 1]);
        let end = if rest.starts_with(b"//") {
            rest.iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| at + n)
        } else if rest.starts_with(b"/*") {
            at + block_comment(rest)
        } else if let Some(length) = raw_text(rest).filter(|_| !word_before) {
            at + length
        } else if rest[0] == b'"' {
            at + quoted(rest, b'"')
        } else if rest[0] == b'\'' && is_character(rest) {
            at + quoted(rest, b'\'')
        } else {
            out.push(rest[0]);
            at += 1;
            continue;
        };
        blank(&mut out, at, end);
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// Bytes of the raw text (`r"…"`, `r#"…"#`, `br"…"`) with which the bytes begin.
fn raw_text(bytes: &[u8]) -> Option<usize> {
    let prefix = usize::from(bytes.first() == Some(&b'b'));
    if bytes.get(prefix) != Some(&b'r') {
        return None;
    }
    let hashes = bytes[prefix + 1..].iter().take_while(|&&b| b == b'#').count();
    let open = prefix + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes)).into_bytes();
    let inside = &bytes[open + 1..];
    let length = inside.windows(close.len()).position(|w| w == close);
    Some(length.map_or(bytes.len(), |n| open + 1 + n + close.len()))
}

/// Whether a `'` begins a character and not a lifetime.
fn is_character(bytes: &[u8]) -> bool {
    match bytes.get(1) {
        Some(b'\\') => true,
        Some(_) => {
            let text = String::from_utf8_lossy(&bytes[1..bytes.len().min(6)]).into_owned();
            text.chars().nth(1) == Some('\'')
        }
        None => false,
    }
}

fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Blanks what is under `#[cfg(test)]`: up to the end of the item's block, or to its `;`.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_string();
    while let Some(start) = out.find(MARK) {
        let end = start + MARK.len() + item(&out[start + MARK.len()..]);
        let blank: String = out[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// Bytes of the item with which the code begins.
fn item(code: &str) -> usize {
    let mut depth = 0i32;
    for (at, c) in code.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth -= 1;
                if depth == 0 && c == '}' {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The modules that a file declares under `#[cfg(test)]` and keeps in files of their own.
pub fn test_modules(source: &str) -> Vec<String> {
    let code = without_texts(source);
    let mut found = Vec::new();
    for part in code.split("#[cfg(test)]").skip(1) {
        let words: Vec<&str> = part.split_whitespace().take(3).collect();
        let name = match words.as_slice() {
            ["mod", name, ..] | ["pub", "mod", name] | ["pub(crate)", "mod", name] => *name,
            _ => continue,
        };
        if let Some(name) = name.strip_suffix(';') {
            found.push(name.to_string());
        }
    }
    found
}

/// The paths that code names, with the number of their line: `use` trees are spelt out, `a::b::{c, d}` gives `a::b::c` and
/// `a::b::d`. A single word is a path of one.
pub fn paths(code: &str) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        // `use<…>` behind an `impl Trait` says what it captures.
        if tokens[at].1 == "use" && tokens.get(at + 1).is_some_and(|t| t.1 != "<") {
            at = tree(&tokens, at + 1, "", &mut found);
        } else if is_word(tokens[at].1.as_bytes()[0]) {
            let line = tokens[at].0;
            let mut path = tokens[at].1.clone();
            at += 1;
            while at + 1 < tokens.len() && tokens[at].1 == "::" && is_word(tokens[at + 1].1.as_bytes()[0]) {
                path.push_str("::");
                path.push_str(&tokens[at + 1].1);
                at += 2;
            }
            found.push((line, path));
        } else {
            at += 1;
        }
    }
    found
}

/// Spells out one `use` tree that begins at a token; gives back the token after it.
fn tree(tokens: &[(usize, String)], mut at: usize, prefix: &str, found: &mut Vec<(usize, String)>) -> usize {
    let mut path = prefix.to_string();
    let line = tokens.get(at).map_or(0, |t| t.0);
    while let Some((_, token)) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|t| t.1 != "}") {
                    let end = tree(tokens, at, &path, found);
                    // What isn't a tree at all still ends.
                    let comma = tokens.get(end).is_some_and(|t| t.1 == ",");
                    at = if comma || end == at { end + 1 } else { end };
                }
                return at + 1;
            }
            "," | ";" | "}" => break,
            "as" => {
                at += 2;
                break;
            }
            "::" => at += 1,
            word => {
                if !path.is_empty() {
                    path.push_str("::");
                }
                path.push_str(word);
                at += 1;
            }
        }
    }
    found.push((line, path));
    at
}

fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut out: Vec<(usize, String)> = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let bytes = line.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let start = at;
            if is_word(bytes[at]) {
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
            } else if bytes[at..].starts_with(b"::") {
                at += 2;
            } else if bytes[at].is_ascii_whitespace() || !bytes[at].is_ascii() {
                at += 1;
                continue;
            } else {
                at += 1;
            }
            out.push((number + 1, line[start..at].to_string()));
        }
    }
    out
}
