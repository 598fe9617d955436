//! What must hold of the source, as tests of the source: which rooms are pure, whom each may call, what may not be left behind.
//! Every rule is a function from a file to complaints, and has a test that it would catch an offender.

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of the source.
struct File {
    /// Relative to the package, with `/`.
    path: String,
    /// As it is.
    text: String,
    /// Without comments, texts and tests; blank for a file that is all tests.
    code: String,
    /// Whether the whole file is tests.
    tests: bool,
}

impl File {
    fn new(path: &str, text: &str) -> File {
        File {
            path: path.to_string(),
            text: text.to_string(),
            code: source::code(text),
            tests: path.starts_with("tests/"),
        }
    }

    /// The room: the folder or file right below `src/`.
    fn room(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        Some(below.split('/').next().unwrap_or(below).trim_end_matches(".rs"))
    }
}

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            // What was built there is nobody's source.
            if !path.ends_with("target") {
                walk(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// All Rust files below the folders, tests that have files of their own marked as such.
fn files(folders: &[&str]) -> Vec<File> {
    let mut paths = Vec::new();
    for folder in folders {
        walk(&package().join(folder), &mut paths);
    }
    paths.sort();
    assert!(!paths.is_empty(), "no source in {folders:?}");
    let mut files: Vec<File> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).expect("a readable file");
            let relative = path.strip_prefix(package()).expect("inside the package");
            File::new(&relative.to_string_lossy(), &text)
        })
        .collect();
    let mut of_tests = BTreeSet::new();
    for file in &files {
        let folder = match file
            .path
            .strip_suffix("/mod.rs")
            .or_else(|| file.path.strip_suffix("/lib.rs"))
        {
            Some(folder) => folder.to_string(),
            None => file.path.trim_end_matches(".rs").to_string(),
        };
        of_tests.extend(
            source::test_modules(&file.text)
                .into_iter()
                .map(|name| format!("{folder}/{name}")),
        );
    }
    for file in &mut files {
        let inside =
            |module: &String| file.path == format!("{module}.rs") || file.path.starts_with(&format!("{module}/"));
        if of_tests.iter().any(inside) {
            file.code = String::new();
            file.tests = true;
        }
    }
    files
}

/// Fails with all complaints of a rule about the files.
fn demand(files: &[File], rule: impl Fn(&File) -> Vec<String>) {
    let complaints: Vec<String> = files.iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Whether `path` is `prefix` or goes on below it.
fn within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

// --- Pure rooms ----------------------------------------------------------------------------------

/// Rooms and files that decide and do nothing else.
const PURE: &[&str] = &[
    "src/cluster/",
    "src/chat/",
    "src/node/",
    "src/wire/",
    "src/types.rs",
    "src/limits.rs",
    "src/rng.rs",
    "src/client/core.rs",
    "src/client/core/",
    "src/log/record.rs",
    "src/log/payload.rs",
];

/// What the outside world is called.
const OUTSIDE: &[&str] = &[
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "mio",
    "socket2",
    "rustix",
    "signal_hook",
    "crossbeam_channel",
    "getrandom",
];

/// Names that are clocks, threads, or tables whose order is random, wherever they come from.
const OUTSIDE_NAMES: &[&str] = &[
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "RandomState",
    "thread_local",
];

fn purity(file: &File) -> Vec<String> {
    if !PURE.iter().any(|pure| file.path.starts_with(pure)) {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (line, path) in source::paths(&file.code) {
        let outside = OUTSIDE.iter().any(|outside| within(&path, outside));
        let named = path.split("::").any(|word| OUTSIDE_NAMES.contains(&word));
        // `use std::*` would hide anything.
        if outside || named || path == "std::*" {
            complaints.push(format!("{}:{line}: `{path}` in a pure room", file.path));
        }
    }
    complaints
}

#[test]
fn pure_rooms_name_nothing_of_the_outside_world() {
    demand(&files(&["src"]), purity);
}

#[test]
fn an_impure_room_is_noticed() {
    for offence in [
        "use std::net::TcpStream;",
        "use std::{fmt, fs::File};",
        "use std::time::{Duration, Instant};",
        "fn f() { std::thread::sleep(x); }",
        "fn f(m: &std::collections::HashMap<u8, u8>) {}",
        "use std::collections::{BTreeMap, HashSet as Set};",
        "fn f() { let now = SystemTime::now(); }",
        "fn f() { getrandom::fill(&mut bytes); }",
        "use mio::Poll;",
    ] {
        let complaints = purity(&File::new("src/cluster/x.rs", &format!("//! X.\n{offence}\n")));
        assert_eq!(complaints.len(), 1, "{offence}: {complaints:?}");
        assert!(complaints[0].starts_with("src/cluster/x.rs:2:"), "{complaints:?}");
        assert!(purity(&File::new("src/server/x.rs", offence)).is_empty(), "{offence}");
    }
    for innocent in [
        "use std::collections::BTreeMap;",
        "// std::fs::read, Instant::now",
        "const TEXT: &str = \"std::fs\"; const C: char = '\"'; fn f<'a>(x: &'a str) {}",
        "#[cfg(test)]\nmod tests { use std::collections::HashMap; fn f() { if x { y } } }",
        "struct Instantaneous;",
    ] {
        assert!(purity(&File::new("src/chat/x.rs", innocent)).is_empty(), "{innocent}");
    }
}

// --- Arrows --------------------------------------------------------------------------------------

const GROUND: &[&str] = &["types", "limits", "rng", "machine", "mailbox", "config", "cli"];

/// Whom each room may call beside itself and the ground floor.
const ARROWS: &[(&str, &[&str])] = &[
    ("cluster", &[]),
    ("chat", &[]),
    ("wire", &["cluster", "chat"]),
    // The log knows entries and their chain, not how they are agreed on.
    ("log", &["cluster::message", "cluster::chain", "wire"]),
    // The housekeeper replays what the log holds, and knows no more of how it is agreed on than the log does.
    (
        "keep",
        &[
            "cluster::message",
            "cluster::chain",
            "cluster::members",
            "chat",
            "wire",
            "log",
        ],
    ),
    // Of the housekeeper only what it is asked and what it says.
    (
        "node",
        &[
            "cluster",
            "chat",
            "wire",
            "log",
            "keep::KeepJob",
            "keep::Kept",
            "keep::Holdings",
            "keep::Mark",
        ],
    ),
    ("server", &["node", "keep", "log", "wire", "cluster", "chat"]),
    ("client", &["wire", "cluster", "chat"]),
];

/// The path from the crate's root that `path` means in a file, if it is one of this crate's.
fn absolute(file: &str, path: &str) -> Option<String> {
    if let Some(rest) = path.strip_prefix("crate::") {
        return Some(rest.to_string());
    }
    let mut module: Vec<&str> = file.strip_prefix("src/")?.trim_end_matches(".rs").split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    let mut rest = path;
    while let Some(after) = rest.strip_prefix("super::") {
        module.pop();
        rest = after;
    }
    if rest == path {
        return None;
    }
    module.push(rest);
    Some(module.join("::"))
}

fn arrows(file: &File) -> Vec<String> {
    let Some(room) = file.room() else { return Vec::new() };
    let allowed: &[&str] = match ARROWS.iter().find(|(name, _)| *name == room) {
        Some((_, allowed)) => allowed,
        None if GROUND.contains(&room) => &[],
        None if room == "lib" => return Vec::new(),
        None => return vec![format!("{}: the room `{room}` is not on the map of arrows", file.path)],
    };
    let mut complaints = Vec::new();
    for (line, path) in source::paths(&file.code) {
        let Some(target) = absolute(&file.path, &path) else {
            continue;
        };
        let root = target.split("::").next().unwrap_or(&target);
        let fine = root == room || GROUND.contains(&root) || allowed.iter().any(|a| within(&target, a));
        if !fine {
            complaints.push(format!("{}:{line}: `{room}` may not call `{target}`", file.path));
        }
    }
    complaints
}

#[test]
fn arrows_point_down_only() {
    demand(&files(&["src"]), arrows);
}

#[test]
fn an_arrow_that_points_up_is_noticed() {
    for (path, offence) in [
        ("src/cluster/mod.rs", "use crate::chat::State;"),
        ("src/chat/mod.rs", "use crate::{limits, cluster::Cluster};"),
        ("src/chat/state/x.rs", "use super::super::super::cluster::Cluster;"),
        ("src/types.rs", "fn f() -> crate::wire::Error {}"),
        ("src/log/writer.rs", "use crate::cluster::Cluster;"),
        ("src/wire/mod.rs", "use crate::node::Node;"),
        ("src/node/mod.rs", "use super::server::Server;"),
        ("src/node/mod.rs", "use crate::keep::keeper::Keeper;"),
        ("src/log/mod.rs", "use crate::keep::KeepJob;"),
        ("src/keep/mod.rs", "use crate::node::Node;"),
        ("src/keep/mod.rs", "use crate::cluster::Cluster;"),
        ("src/client/mod.rs", "use crate::server;"),
        ("src/attic.rs", ""),
    ] {
        assert_eq!(arrows(&File::new(path, offence)).len(), 1, "{path}: {offence}");
    }
    for (path, innocent) in [
        (
            "src/log/writer.rs",
            "use crate::cluster::message::{Entry, Record}; use super::record;",
        ),
        (
            "src/node/doors.rs",
            "use super::fanout::Cursor; use crate::{chat, limits};",
        ),
        (
            "src/cluster/x.rs",
            "#[cfg(test)]\nmod tests { use crate::chat::State; }",
        ),
    ] {
        assert_eq!(arrows(&File::new(path, innocent)), Vec::<String>::new(), "{path}");
    }
}

/// bincode is a finished crate, not a kept one: it must be replaceable in few places.
fn one_place_for_the_encoding(file: &File) -> Vec<String> {
    let home = ["src/wire/", "src/log/"].iter().any(|home| file.path.starts_with(home));
    let named = source::paths(&file.code)
        .into_iter()
        .filter(|(_, path)| within(path, "bincode") && !home);
    named
        .map(|(line, _)| format!("{}:{line}: bincode outside wire/ and log/", file.path))
        .collect()
}

#[test]
fn the_encoding_is_named_in_one_place() {
    demand(&files(&["src", "bin"]), one_place_for_the_encoding);
}

#[test]
fn the_encoding_elsewhere_is_noticed() {
    let offence = "fn f() { bincode::serde::encode_to_vec(x); }";
    assert_eq!(
        one_place_for_the_encoding(&File::new("src/node/x.rs", offence)).len(),
        1
    );
    assert_eq!(
        one_place_for_the_encoding(&File::new("src/wire/x.rs", offence)).len(),
        0
    );
}

// --- Form ----------------------------------------------------------------------------------------

/// Files that are longer than they should be, and how long: they may only shrink.
const LONG: &[(&str, usize)] = &[];

fn length(file: &File) -> Vec<String> {
    let usual = if file.tests { 700 } else { 600 };
    let max = LONG
        .iter()
        .find(|(path, _)| *path == file.path)
        .map_or(usual, |(_, lines)| *lines);
    let lines = file.text.lines().count();
    if lines <= max {
        return Vec::new();
    }
    vec![format!(
        "{}: {lines} lines, more than {max}: it holds two things",
        file.path
    )]
}

#[test]
fn no_file_is_too_long() {
    let files = files(&["src", "bin", "tests"]);
    demand(&files, length);
    for (path, lines) in LONG {
        let still = files
            .iter()
            .any(|f| f.path == *path && f.text.lines().count() == *lines);
        assert!(
            still,
            "{path} doesn't have {lines} lines any more: correct LONG, or take it off"
        );
    }
}

#[test]
fn a_file_that_is_too_long_is_noticed() {
    assert_eq!(length(&File::new("src/x.rs", &"\n".repeat(601))).len(), 1);
    assert_eq!(length(&File::new("src/x.rs", &"\n".repeat(600))).len(), 0);
    assert_eq!(length(&File::new("tests/x.rs", &"\n".repeat(701))).len(), 1);
    assert_eq!(length(&File::new("tests/x.rs", &"\n".repeat(700))).len(), 0);
}

fn purpose(file: &File) -> Vec<String> {
    let says = file
        .text
        .strip_prefix("//! ")
        .is_some_and(|rest| !rest.trim_start().is_empty());
    if says {
        return Vec::new();
    }
    vec![format!("{}: doesn't begin with `//!` and what it is for", file.path)]
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    demand(&files(&["src", "bin", "tests"]), purpose);
}

#[test]
fn a_file_without_purpose_is_noticed() {
    assert_eq!(purpose(&File::new("src/x.rs", "use std::fmt;\n")).len(), 1);
    assert_eq!(purpose(&File::new("src/x.rs", "//! For x.\n")).len(), 0);
}

/// What a developer leaves for later, spelt in two halves so that this file is not its own offender.
const LEFTOVERS: &[&str] = &[
    concat!("todo", "!("),
    concat!("unimpl", "emented!("),
    concat!("dbg", "!("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("TO", "DO"),
];

fn leftovers(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for leftover in LEFTOVERS.iter().filter(|leftover| line.contains(*leftover)) {
            complaints.push(format!("{}:{}: {leftover}", file.path, number + 1));
        }
    }
    complaints
}

#[test]
fn nothing_is_left_for_later() {
    demand(&files(&["src", "bin", "tests"]), leftovers);
}

#[test]
fn a_leftover_is_noticed() {
    for leftover in LEFTOVERS {
        let text = format!("//! X.\n// {leftover}\n");
        assert_eq!(leftovers(&File::new("src/x.rs", &text)).len(), 1, "{leftover}");
    }
    assert_eq!(
        leftovers(&File::new("src/x.rs", "//! Sends what is to be done.\n")).len(),
        0
    );
}

// --- Panics --------------------------------------------------------------------------------------

/// Where `.unwrap()` or `.expect(` may stand outside of tests: file, how many, and why it can't be anybody else's fault.
const MAY_PANIC: &[(&str, usize, &str)] = &[
    (
        "src/log/payload.rs",
        1,
        "numbers and ids of ours always have an encoding",
    ),
    (
        "src/log/prewrite.rs",
        1,
        "the writer wants a segment before it takes one; nothing else calls it",
    ),
    (
        "src/log/record.rs",
        1,
        "a batch is bounded far below the 4 GiB that the field holds",
    ),
    (
        "src/server/turns.rs",
        1,
        "the bounds of a histogram are constants that it takes, as its test shows",
    ),
];

fn panics(file: &File) -> Vec<usize> {
    let mut found = Vec::new();
    for (number, line) in file.code.lines().enumerate() {
        // `.expect()` without a reason is a method of our own.
        let expects = line.matches(".expect(").count() - line.matches(".expect()").count();
        let hits = line.matches(".unwrap()").count() + expects;
        found.extend(std::iter::repeat_n(number + 1, hits));
    }
    found
}

fn unlisted_panics(file: &File, list: &[(&str, usize, &str)]) -> Vec<String> {
    let found = panics(file);
    let allowed = list
        .iter()
        .find(|(path, _, _)| *path == file.path)
        .map_or(0, |(_, count, _)| *count);
    if found.len() == allowed {
        return Vec::new();
    }
    vec![format!(
        "{}: unwrap or expect in lines {found:?}, {allowed} allowed: return an error, or say in MAY_PANIC why it can't happen",
        file.path
    )]
}

#[test]
fn only_what_is_listed_may_panic() {
    let files = files(&["src", "bin"]);
    for (path, count, why) in MAY_PANIC {
        assert!(files.iter().any(|f| f.path == *path), "{path} is listed, but not there");
        assert!(*count > 0 && !why.is_empty(), "{path}");
    }
    demand(&files, |file| unlisted_panics(file, MAY_PANIC));
}

#[test]
fn a_hidden_panic_is_noticed() {
    let offender = File::new(
        "src/x.rs",
        "fn f() {\n    x.unwrap();\n    y\n        .expect(\"y\");\n}\n",
    );
    assert_eq!(panics(&offender), [2, 4]);
    assert_eq!(unlisted_panics(&offender, &[]).len(), 1);
    assert_eq!(unlisted_panics(&offender, &[("src/x.rs", 1, "why")]).len(), 1);
    assert_eq!(unlisted_panics(&offender, &[("src/x.rs", 2, "why")]).len(), 0);
    let innocent = "// x.unwrap()\n#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }\nfn g() { x.unwrap_or(0); }\n";
    assert_eq!(panics(&File::new("src/x.rs", innocent)), Vec::<usize>::new());
}

// --- The reader of source itself -----------------------------------------------------------------

#[test]
fn source_is_read_as_the_compiler_would() {
    let text = "a /* b /* c */ d */ e \"f \\\" g\" h r#\"i \" j\"# k 'l' '\\'' m<'n> b'o' // p\nq";
    let code = source::without_texts(text);
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "e", "h", "k", "m<'n>", "b", "q"]);
    assert_eq!(code.len(), text.len());
    let paths = source::paths("use a::{self, b::{c, d as e}, f::*};\nlet x = g::h::<i>(j);");
    let names: Vec<&str> = paths.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(
        names,
        ["a::self", "a::b::c", "a::b::d", "a::f::*", "let", "x", "g::h", "i", "j"]
    );
    assert_eq!(paths[6].0, 2);
    assert_eq!(
        source::test_modules("#[cfg(test)]\nmod tests;\n#[cfg(test)]\nmod more {}"),
        ["tests"]
    );
    let rest = source::code("#[cfg(test)]\nuse a::b;\nfn c() {}\n#[cfg(test)]\nfn d() { e[0] = 1; }\nfn f() {}");
    assert_eq!(
        rest.split_whitespace().collect::<Vec<_>>().join(" "),
        "fn c() {} fn f() {}"
    );
}
