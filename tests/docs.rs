//! What is written for people agrees with the programs: options, exit codes, configuration keys, limits.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use support::package;
use syncnet::chat::command::Code;
use syncnet::cli::{PROGRAMS, Table};
use syncnet::limits;

fn read(path: &str) -> String {
    fs::read_to_string(package().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Each manual page, and the tables of the program that it describes.
fn pages() -> [(&'static str, &'static [&'static Table]); 3] {
    let [daemon, client, control] = PROGRAMS;
    [
        ("man/syncnetd.8", daemon),
        ("man/syncnet.1", client),
        ("man/syncnetctl.8", control),
    ]
}

/// The words that come right after `before` in a text.
fn words_after<'t>(text: &'t str, before: &str) -> BTreeSet<&'t str> {
    let end = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
    text.split(before)
        .skip(1)
        .map(|rest| rest.split(end).next().unwrap_or(rest))
        .filter(|word| !word.is_empty())
        .collect()
}

/// The section of a manual page, without its heading.
fn section<'t>(page: &'t str, heading: &str) -> &'t str {
    let start = page
        .find(&format!("\n.Sh {heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let rest = &page[start + heading.len() + 6..];
    &rest[..rest.find("\n.Sh ").unwrap_or(rest.len())]
}

#[test]
fn every_option_has_its_manual_and_nothing_else_has() {
    for (path, tables) in pages() {
        let page = read(path);
        let options: Vec<_> = tables.iter().flat_map(|table| table.all_options()).collect();
        let known: BTreeSet<&str> = options.iter().map(|option| option.long).collect();
        // Those of other programs are named in their pages.
        let described = section(&page, "DESCRIPTION");
        assert_eq!(words_after(described, "Fl Fl "), known, "{path}");
        for option in options {
            let item = match option.short {
                Some(short) => format!("\n.It Fl {short} , Fl Fl {}", option.long),
                None => format!("\n.It Fl Fl {}", option.long),
            };
            let value = option.value.map_or(String::new(), |value| format!(" Ar {value}"));
            assert!(page.contains(&format!("{item}{value}\n")), "{path}: {item}{value}");
        }
    }
}

#[test]
fn every_command_of_the_chat_has_its_manual() {
    let page = read("man/syncnet.1");
    let described: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Ic "))
        .map(|item| item.replace(" Ns Ar ", ""))
        .collect();
    let help = syncnet::client::chat::commands::HELP.lines().map(|line| {
        let (usage, _) = line.split_once("  ").expect("a column of explanations");
        match usage.split_once(' ') {
            None => usage.to_string(),
            Some((word, value)) => match value.trim_matches(['[', ']']) {
                bare if bare == value => format!("{word} Ar {value}"),
                bare => format!("{word} Op Ar {bare}"),
            },
        }
    });
    assert_eq!(described, help.collect());
}

/// The exit codes that a text of the form `Exit codes: 0 all went well, 1 a server …` names.
fn codes_of_help(notes: &str) -> BTreeSet<u8> {
    let Some((_, list)) = notes.split_once("Exit codes:") else {
        return BTreeSet::new();
    };
    list.split(',')
        .filter_map(|part| part.split_whitespace().next()?.parse().ok())
        .collect()
}

#[test]
fn help_and_manual_name_the_same_exit_codes() {
    for (path, tables) in pages() {
        let page = read(path);
        let manual: BTreeSet<u8> = section(&page, "EXIT STATUS")
            .lines()
            .filter_map(|line| line.strip_prefix(".It ")?.parse().ok())
            .collect();
        let help: BTreeSet<u8> = tables.iter().flat_map(|table| codes_of_help(table.notes)).collect();
        assert!(!help.is_empty(), "{path}");
        assert_eq!(manual, help, "{path}");
    }
}

#[test]
fn help_and_manual_name_the_same_environment() {
    for (path, tables) in pages() {
        let page = read(path);
        let variables = |text: &str| -> BTreeSet<String> {
            let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
            words
                .filter(|word| word.starts_with("SYNCNET_"))
                .map(str::to_string)
                .collect()
        };
        let help: BTreeSet<String> = tables.iter().flat_map(|table| variables(&table.help())).collect();
        assert_eq!(variables(&page), help, "{path}");
    }
}

#[test]
fn the_programs_print_the_help_of_their_tables() {
    for table in PROGRAMS.into_iter().flatten() {
        let mut words = table.name.split(' ');
        let program = match words.next() {
            Some("syncnetd") => env!("CARGO_BIN_EXE_syncnetd"),
            Some("syncnet") => env!("CARGO_BIN_EXE_syncnet"),
            Some("syncnetctl") => env!("CARGO_BIN_EXE_syncnetctl"),
            other => panic!("{other:?} is no program"),
        };
        let subcommand: Vec<&str> = words.collect();
        let run = |option: &str| {
            let output = Command::new(program).args(&subcommand).arg(option).output();
            let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
            assert!(output.status.success(), "{} {option}: {output:?}", table.name);
            String::from_utf8(output.stdout).expect("UTF-8")
        };
        assert_eq!(run("--help"), table.help());
        assert!(run("--version").ends_with(concat!(" ", env!("CARGO_PKG_VERSION"), "\n")));
    }
}

/// The keys of a configuration, also those that are commented out.
fn keys(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter_map(|line| {
            let (key, _) = line.trim_start_matches("# ").split_once(" = ")?;
            let clean = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            clean.then_some(key)
        })
        .collect()
}

#[test]
fn every_key_of_the_configuration_has_its_manual() {
    let page = read("man/syncnet.toml.5");
    let described: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix(".It Va ")).collect();
    assert_eq!(described, keys(&read("conf/cluster.toml")));
    let client = read("conf/client.toml");
    let files = section_of_client_file();
    for key in keys(&client) {
        assert!(files.contains(&format!("{key} = ")), "{key}");
    }
}

fn section_of_client_file() -> String {
    section(&read("man/syncnet.1"), "FILES").to_string()
}

#[test]
fn documented_limits_are_the_limits() {
    let size = |bytes: usize| match bytes {
        b if b % (1 << 30) == 0 => format!("{}GiB", b >> 30),
        b if b % (1 << 20) == 0 => format!("{}MiB", b >> 20),
        b => format!("{}KiB", b >> 10),
    };
    let toml = [
        format!("up to {}", size(limits::MESSAGE_BYTES_CEILING)),
        format!(".Cm {} .", size(limits::MESSAGE_BYTES_DEFAULT)),
        format!(
            "{} to {}",
            size(limits::SEGMENT_BYTES_MIN as usize),
            size(limits::SEGMENT_BYTES_MAX as usize)
        ),
        format!(".Cm {} .", size(limits::SEGMENT_BYTES_DEFAULT as usize)),
        format!("1 to {} of them", limits::SERVERS_MAX),
        format!("1 to {} letters", limits::SERVER_ID_BYTES_MAX),
        format!("1 to {} bytes", limits::CLUSTER_NAME_BYTES_MAX),
        format!("at least {} random bytes", limits::SECRET_BYTES_MIN),
        format!("at least {}ms", limits::HEARTBEAT_INTERVAL_MIN.as_ms()),
        format!("at least {}s", limits::NAME_RELEASE.as_ms() / 1000),
    ];
    let protocol = [
        format!("{} bytes of body", limits::CLIENT_FRAME_BYTES_MAX),
        format!("{} bytes of body", limits::PEER_FRAME_BYTES_MAX),
        format!("At most {} bytes", limits::DATAGRAM_BYTES_MAX),
        format!("{} of them unacknowledged", limits::SESSION_RESULTS_MAX),
        format!("within {} seconds", limits::HELLO_TIMEOUT.as_ms() / 1000),
        format!("header of {} bytes", limits::RECORD_HEADER_BYTES),
    ];
    let chat = [
        format!("Names of users have up to {} bytes", limits::NAME_BYTES_MAX),
        format!("names of rooms up to {}", limits::ROOM_NAME_BYTES_MAX),
        format!("up to {} KiB unless", limits::MESSAGE_BYTES_DEFAULT >> 10),
    ];
    for (path, said) in [
        ("man/syncnet.toml.5", toml.as_slice()),
        ("man/syncnet-protocol.7", &protocol),
        ("man/syncnet.1", &chat),
    ] {
        let page = read(path);
        for said in said {
            assert!(page.contains(said.as_str()), "{path} doesn't say \"{said}\"");
        }
    }
}

#[test]
fn the_codes_stand_in_the_manual_in_their_order() {
    let codes = [
        Code::NoSuchRoom,
        Code::RoomExists,
        Code::NameTaken,
        Code::BadName,
        Code::BadRoomName,
        Code::EmptyText,
        Code::TextTooLong,
        Code::BadText,
        Code::NotMember,
        Code::WrongName,
        Code::TooManyRooms,
        Code::RoomsFull,
        Code::SessionsFull,
        Code::KeysFull,
        Code::NoSuchSession,
        Code::WrongSecret,
        Code::Malformed,
        Code::NotOpen,
        Code::Busy,
    ];
    for (number, code) in codes.iter().enumerate() {
        assert_eq!(*code as usize, number);
    }
    let names: Vec<&str> = codes.iter().map(|code| code.name()).collect();
    let page = read("man/syncnet-protocol.7").replace('\n', " ");
    assert!(page.contains(&names.join(", ")), "{}", names.join(", "));
}

/// The variants of an enum with their numbers, as its source says them.
fn variants(path: &str, name: &str) -> Vec<(usize, String)> {
    let source = read(path);
    let (_, rest) = source
        .split_once(&format!("\npub enum {name} {{\n"))
        .unwrap_or_else(|| panic!("{path}: no {name}"));
    let body = &rest[..rest.find("\n}\n").expect("an end")];
    let variants = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let mut next = 0;
    let mut numbered = Vec::new();
    for variant in variants {
        let end = |c: char| !c.is_ascii_alphanumeric();
        if let Some((_, number)) = variant.split_once(" = ") {
            next = number.trim_end_matches(',').parse().expect("a number");
        }
        numbered.push((next, variant.split(end).next().expect("a name").to_string()));
        next += 1;
    }
    assert!(!numbered.is_empty(), "{path}: {name}");
    numbered
}

#[test]
fn every_kind_of_message_and_record_stands_in_the_manual() {
    let page = read("man/syncnet-protocol.7");
    // Where each has a paragraph of its own.
    let listed = [
        ("src/wire/client.rs", "Request", "CLIENTS"),
        ("src/wire/client.rs", "Response", "CLIENTS"),
        ("src/wire/peer.rs", "Handshake", "SERVERS"),
        ("src/cluster/message.rs", "Message", "SERVERS"),
    ];
    for (path, name, heading) in listed {
        for (number, variant) in variants(path, name) {
            let item = format!("\n.It {number} {variant}\n");
            assert!(
                section(&page, heading).contains(&item),
                "{heading}, of {name}: {item:?}"
            );
        }
    }
    // Where they stand in a sentence, or in words of their own.
    let named = [
        ("src/wire/peer.rs", "PeerMessage", "SERVERS"),
        ("src/cluster/message.rs", "AppendResult", "SERVERS"),
        ("src/cluster/message.rs", "Refusal", "SERVERS"),
        ("src/cluster/message.rs", "Datagram", "DATAGRAMS"),
        ("src/log/record.rs", "Kind", "LOG"),
        ("src/chat/image.rs", "Row", "CHECKPOINTS"),
    ];
    let other_words = [
        ("HasLeader", "has a leader"),
        ("LogBehind", "log behind"),
        ("TermBehind", "term behind"),
    ];
    for (path, name, heading) in named {
        let text = section(&page, heading).replace(['\n', '('], " ");
        for (number, variant) in variants(path, name) {
            let other = other_words.iter().find(|(of, _)| *of == variant);
            let words = other.map_or(variant.to_lowercase(), |(_, words)| (*words).to_string());
            let said = [format!(" {number} {variant} "), format!(" {number} {words}")];
            assert!(
                said.iter().any(|said| text.contains(said)),
                "{heading}, of {name}: {said:?}"
            );
        }
    }
}

/// Options of other programs that the README types.
const FOREIGN: &[&str] = &[
    "release",
    "system",
    "now",
    "messages",
    "retention",
    "mix",
    "seeds",
    "shrink",
    "cuts",
    "minutes",
    "seed",
    "servers",
];

#[test]
fn the_readme_types_options_that_exist() {
    let readme = read("README.md");
    let known: BTreeSet<&str> = pages()
        .iter()
        .flat_map(|(_, tables)| tables.iter().flat_map(|table| table.all_options()))
        .map(|option| option.long)
        .chain(FOREIGN.iter().copied())
        .collect();
    for option in words_after(&readme, "--") {
        // Rules of tables and comments are no options.
        if option.starts_with(|c: char| c.is_ascii_lowercase()) {
            assert!(known.contains(option), "README.md: --{option}");
        }
    }
    for path in words_after(&readme, "scripts/") {
        let there = ["", ".sh"]
            .iter()
            .any(|end| package().join(format!("scripts/{path}{end}")).exists());
        assert!(there, "README.md: scripts/{path}");
    }
    assert!(readme.contains("`cargo test`"));
}

#[test]
fn the_scripts_type_options_that_exist() {
    let tables: Vec<&Table> = pages()
        .into_iter()
        .flat_map(|(_, tables)| tables.iter().copied())
        .collect();
    let mut calls = 0;
    for script in fs::read_dir(package().join("scripts")).unwrap() {
        let path = script.unwrap().path();
        let text = fs::read_to_string(&path).unwrap().replace("\\\n", " ");
        let calls_in = |line| str::split(line, "\"$bin/").skip(1).map(move |call| (line, call));
        for (line, call) in text.lines().flat_map(calls_in) {
            let call = call.replace('"', "");
            let call = call.split(['<', '>', '|', ';', '&']).next().unwrap();
            let call: Vec<&str> = call.split(' ').map(|word| word.trim_end_matches(')')).collect();
            // The longest name that the words begin with: a subcommand rather than its program.
            let names = |table: &&&Table| {
                table
                    .name
                    .split(' ')
                    .eq(call.iter().copied().take(table.name.split(' ').count()))
            };
            let table = tables.iter().filter(names).max_by_key(|table| table.name.len());
            let table = table.unwrap_or_else(|| panic!("{}: {line}", path.display()));
            for word in call
                .iter()
                .filter(|word| word.starts_with('-') && !["-", "--"].contains(word))
            {
                let known = table.all_options().any(|option| match word.strip_prefix("--") {
                    Some(long) => long == option.long,
                    None => word.chars().nth(1) == option.short,
                });
                assert!(known, "{}: {} has no option {word}: {line}", path.display(), table.name);
            }
            calls += 1;
        }
    }
    assert!(calls > 8, "only {calls} calls were found");
}
