//! Everything that makes values out of bytes which others may have written, one function each: it decodes, and what could be decoded must
//! come back from its own encoding. None may panic, whatever the bytes are. The ordinary tests and the fuzz targets in `tests/fuzz` call
//! the same functions.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use syncnet::chat::Builder;
use syncnet::client::lines::Splitter;
use syncnet::client::settings::{Environment, Settings};
use syncnet::cluster::members::{decode_members, encode_members};
use syncnet::config::Secret;
use syncnet::limits;
use syncnet::log::checkpoint::{self, Checkpoints};
use syncnet::log::directory::look_at_identity;
use syncnet::log::disk::{Disk, DiskFile};
use syncnet::log::payload;
use syncnet::log::record::{self, Parsed};
use syncnet::log::sealed::{self, SealedFile};
use syncnet::log::segment::{FOLDER, Segment};
use syncnet::log::sim_disk::SimDisk;
use syncnet::types::{Blob, DirectoryId, LogIndex, Lsn, RoomId};
use syncnet::wire::client::Request;
use syncnet::wire::frame::{Split, split};
use syncnet::wire::{checkpoint as portable, client, command, datagram, peer};
use syncnet::{cli, config};

/// The directory whose files the decoders expect.
pub const DIRECTORY: DirectoryId = DirectoryId(0x0123_4567_89AB_CDEF);
/// Where the records and the index file belong.
pub const SEGMENT: Segment = Segment {
    base: Lsn(4096),
    size: 65_536,
};
/// The last entry of the checkpoint file.
pub const CHECKPOINT: LogIndex = LogIndex(9);

/// A decoder.
pub struct Decoder {
    /// Also the name of its fuzz target and of the folder of its corpus.
    pub name: &'static str,
    /// Decodes the bytes, and checks what comes of it. Whether anything did.
    pub run: fn(&[u8]) -> bool,
    /// Bytes that it may allocate whatever it is given, all allocations of decoding and encoding again added up.
    pub fixed: usize,
    /// Bytes that it may allocate for each byte it is given.
    pub per_byte: usize,
}

const fn decoder(name: &'static str, run: fn(&[u8]) -> bool, fixed: usize, per_byte: usize) -> Decoder {
    Decoder {
        name,
        run,
        fixed,
        per_byte,
    }
}

const KIB: usize = 1024;

/// All of them.
pub const ALL: &[Decoder] = &[
    decoder("frames", frames, 4 * KIB, 0),
    decoder("request", request, 4 * KIB, 16),
    decoder("response", response, 4 * KIB, 512),
    decoder("command", command, 4 * KIB, 64),
    decoder("entry", entry, 4 * KIB, 64),
    decoder("handshake", handshake, 4 * KIB, 16),
    decoder("message", message, 4 * KIB, 512),
    decoder("datagram", open_datagram, 16 * KIB, 512),
    decoder("record", records, 4 * KIB, 8),
    decoder("payload", payloads, 8 * KIB, 512),
    decoder("members", members, 8 * KIB, 8),
    decoder("portable_checkpoint", portable_checkpoint, 64 * KIB, 512),
    decoder("checkpoint_file", checkpoint_file, 256 * KIB, 64),
    decoder("index_file", index_file, 64 * KIB, 256),
    decoder("identity", identity, 64 * KIB, 64),
    decoder("configuration", configuration, 256 * KIB, 2048),
    decoder("secret", secret, 4 * KIB, 16),
    decoder("client_file", client_file, 64 * KIB, 2048),
    decoder("arguments", arguments, 256 * KIB, 4096),
    decoder("typed_line", typed_line, 64 * KIB, 64),
];

/// The decoder of that name.
#[allow(dead_code, reason = "only the fuzz targets ask for one")]
pub fn named(name: &str) -> &'static Decoder {
    let found = ALL.iter().find(|decoder| decoder.name == name);
    found.unwrap_or_else(|| panic!("no decoder {name}"))
}

/// Frames of a stream: each shorter than allowed, and the rest is gone on from.
pub fn frames(bytes: &[u8]) -> bool {
    let mut found = false;
    for max in [16, limits::HANDSHAKE_BYTES_MAX, limits::CLIENT_FRAME_BYTES_MAX] {
        let mut rest = bytes;
        while let Split::Complete { body, consumed } = split(rest, max) {
            assert!(body.len() <= max && consumed > body.len() && consumed <= rest.len());
            rest = &rest[consumed..];
            found = true;
        }
    }
    found
}

/// The body of the one frame in `bytes`.
fn body(bytes: &[u8]) -> &[u8] {
    match split(bytes, usize::MAX) {
        Split::Complete { body, consumed } if consumed == bytes.len() => body,
        other => panic!("not one frame: {other:?}"),
    }
}

/// A frame of a client.
pub fn request(bytes: &[u8]) -> bool {
    let request = client::decode_request(bytes);
    if let Some(command) = client::command_in(bytes) {
        assert_eq!(request, Ok(Request::Command(Blob::new(command))));
    }
    let Ok(request) = request else {
        return false;
    };
    let mut again = Vec::new();
    client::encode_request(&request, &mut again);
    assert_eq!(client::decode_request(body(&again)), Ok(request));
    true
}

/// A frame for a client.
pub fn response(bytes: &[u8]) -> bool {
    let Ok(response) = client::decode_response(bytes) else {
        return false;
    };
    let mut again = Vec::new();
    client::encode_response(&response, &mut again);
    assert_eq!(client::decode_response(body(&again)), Ok(response));
    true
}

/// A command, as clients send it.
pub fn command(bytes: &[u8]) -> bool {
    let Ok(decoded) = command::decode(bytes) else {
        return false;
    };
    assert_eq!(command::decode(&command::encode(&decoded)), Ok(decoded));
    true
}

/// The payload of an entry: a command behind the leader's stamp.
pub fn entry(bytes: &[u8]) -> bool {
    let Ok((stamp, decoded)) = command::open_payload(bytes) else {
        return false;
    };
    let again = command::payload(&stamp, &command::encode(&decoded));
    assert_eq!(command::open_payload(&again), Ok((stamp, decoded)));
    true
}

/// A frame of a handshake between servers.
pub fn handshake(bytes: &[u8]) -> bool {
    let Ok(handshake) = peer::decode_handshake(bytes) else {
        return false;
    };
    let mut again = Vec::new();
    peer::encode_handshake(&handshake, &mut again);
    assert_eq!(peer::decode_handshake(body(&again)), Ok(handshake));
    true
}

/// A frame between servers.
pub fn message(bytes: &[u8]) -> bool {
    let Ok(message) = peer::decode_message(bytes) else {
        return false;
    };
    let mut again = Vec::new();
    peer::encode_message(&message, &mut again);
    assert_eq!(peer::decode_message(body(&again)), Ok(message));
    true
}

/// A datagram, without a secret and with one.
pub fn open_datagram(bytes: &[u8]) -> bool {
    let secret = Secret(vec![7; 32]);
    assert!(datagram::open(bytes, Some(&secret)).is_err(), "nobody guesses a proof");
    let Ok(sealed) = datagram::open(bytes, None) else {
        return false;
    };
    for secret in [None, Some(&secret)] {
        let again = datagram::seal(&sealed, secret);
        if again.len() <= limits::DATAGRAM_BYTES_MAX {
            assert_eq!(datagram::open(&again, secret).as_ref(), Ok(&sealed));
        }
    }
    true
}

/// The records of a segment, and whatever else stands there.
pub fn records(bytes: &[u8]) -> bool {
    let (mut at, mut again, mut found) = (0, Vec::new(), false);
    while at < bytes.len() {
        let lsn = Lsn(SEGMENT.base.0 + at as u64);
        at += match record::parse(&bytes[at..], lsn, DIRECTORY) {
            Parsed::Record(header, payload, size) => {
                again.clear();
                record::encode(&mut again, &header, payload, DIRECTORY);
                assert_eq!(
                    record::parse(&again, lsn, DIRECTORY),
                    Parsed::Record(header, payload, size)
                );
                found = true;
                size
            }
            Parsed::Short(size) => {
                assert!(size > bytes.len() - at && size <= record::size(limits::RECORD_PAYLOAD_BYTES_MAX));
                return found;
            }
            Parsed::BadBody(_, size) => size,
            Parsed::Nothing | Parsed::BadHeader | Parsed::Unknown => record::ALIGNMENT as usize,
        };
    }
    found
}

/// The payloads of the log's own records.
pub fn payloads(bytes: &[u8]) -> bool {
    let state = payload::decode_state(bytes);
    if let Some(state) = &state {
        assert_eq!(
            payload::decode_state(&payload::encode_state(state)).as_ref(),
            Some(state)
        );
    }
    let seal = payload::decode_seal(bytes);
    if let Some(seal) = &seal {
        assert_eq!(payload::decode_seal(&payload::encode_seal(seal)).as_ref(), Some(seal));
    }
    let head = payload::decode_head(bytes);
    if let Some(head) = &head {
        assert_eq!(payload::decode_head(&payload::encode_head(head)).as_ref(), Some(head));
    }
    state.is_some() || seal.is_some() || head.is_some()
}

/// The members entry.
pub fn members(bytes: &[u8]) -> bool {
    let Some(members) = decode_members(bytes) else {
        return false;
    };
    assert_eq!(encode_members(&members), bytes, "members are written in one way only");
    true
}

/// A checkpoint as it travels: its parts, and the state that is built of them.
pub fn portable_checkpoint(bytes: &[u8]) -> bool {
    let (mut decoder, mut builder, mut rest, mut head) = (portable::Decoder::new(), Builder::new(), bytes, None);
    while let portable::Parsed::Complete { part, consumed } = decoder.next(rest) {
        assert!(consumed > 0 && consumed <= rest.len());
        rest = &rest[consumed..];
        match part {
            portable::Part::Head(found) => head = Some(found),
            // What is wrong with one is told again by `finish`.
            portable::Part::Row(row) => drop(builder.take(row)),
            portable::Part::End => break,
        }
    }
    let (true, Some(head), Ok(state)) = (decoder.is_done(), head, builder.finish()) else {
        return false;
    };
    let mut again = Vec::new();
    let written = portable::write(&head, &state, |part| {
        again.extend_from_slice(part);
        Ok::<(), ()>(())
    });
    assert_eq!(written, Ok(()));
    let (mut decoder, mut builder, mut rest) = (portable::Decoder::new(), Builder::new(), again.as_slice());
    while let portable::Parsed::Complete { part, consumed } = decoder.next(rest) {
        rest = &rest[consumed..];
        if let portable::Part::Row(row) = part {
            builder.take(row).expect("a row of a state");
        }
    }
    assert!(decoder.is_done() && builder.finish() == Ok(state), "a state comes back");
    true
}

/// A disk with one file.
fn disk_with(folder: &str, name: &str, bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_folder(folder).expect("a disk in memory");
    let file = disk.create(name).expect("a disk in memory");
    file.write_at(bytes, 0).expect("a disk in memory");
    disk
}

/// The file of a checkpoint.
pub fn checkpoint_file(bytes: &[u8]) -> bool {
    let disk = disk_with(checkpoint::FOLDER, &checkpoint::file_name(CHECKPOINT), bytes);
    let checkpoints = Checkpoints::look(disk, DIRECTORY).expect("what is damaged is listed");
    let mut good = false;
    for info in checkpoints.list() {
        let whole = checkpoints.verify(&info.id).is_ok();
        let stream = checkpoints.open_stream(&info.id);
        let streamed = stream.map(|stream| stream.take(64).all(|block| block.is_ok()));
        let pending = checkpoints.pending(&info.id);
        assert!(!whole || (streamed.is_ok_and(|good| good) && pending.is_ok()));
        for offset in [0, info.id.bytes / 2, info.id.bytes, u64::MAX] {
            let _ = checkpoints.read(&info.id, offset, usize::MAX);
        }
        good |= whole;
    }
    good
}

/// An index file.
pub fn index_file(bytes: &[u8]) -> bool {
    let disk = disk_with(FOLDER, &sealed::file_name(SEGMENT.base), bytes);
    let Ok(mut file) = SealedFile::open(&disk, DIRECTORY, SEGMENT) else {
        return false;
    };
    let whole = file.verify().is_ok();
    let sealed = file.head().sealed;
    for from in [LogIndex(0), sealed.first, sealed.last, LogIndex(u64::MAX)] {
        let _ = file.places(from, 100);
    }
    for room in [0, 1, 7, u64::MAX] {
        if let Ok(Some(row)) = file.room(RoomId(room)) {
            let _ = file.items(&row, 0, 100);
            let _ = file.items(&row, u32::MAX, 100);
        }
    }
    whole
}

/// The identity of a data directory.
pub fn identity(bytes: &[u8]) -> bool {
    look_at_identity(&disk_with("", "identity", bytes), Path::new("data")).is_ok_and(|found| found.is_some())
}

/// A configuration.
pub fn configuration(bytes: &[u8]) -> bool {
    config::parse(&String::from_utf8_lossy(bytes), Path::new("cluster.toml")).is_ok()
}

/// The cluster's secret.
pub fn secret(bytes: &[u8]) -> bool {
    let decoded = config::decode_secret(&String::from_utf8_lossy(bytes));
    assert!(
        decoded
            .as_ref()
            .map_or(true, |secret| secret.0.len() >= limits::SECRET_BYTES_MIN)
    );
    decoded.is_ok()
}

/// The configuration of a client, and the list of servers in its environment.
pub fn client_file(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (given, mut environment) = (cli::syncnet::Common::default(), Environment::default());
    let read = Settings::combine(&given, &environment, Some((Path::new("client.toml"), &text))).is_ok();
    environment.servers = Some(text.into_owned());
    Settings::combine(&given, &environment, None).is_ok() || read
}

/// The command lines of the programs, an argument a line.
pub fn arguments(bytes: &[u8]) -> bool {
    let words = || {
        bytes
            .split(|&b| b == b'\n')
            .map(|word| OsString::from_vec(word.to_vec()))
    };
    let understood = [
        cli::syncnetd::parse(words()).is_ok(),
        cli::syncnet::parse(words()).is_ok(),
        cli::syncnetctl::parse(words()).is_ok(),
    ];
    understood.contains(&true)
}

/// What is typed: the chat's commands, and lines of standard input in pieces.
pub fn typed_line(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let _ = syncnet::client::chat::commands::parse(&text);
    let lines = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        let mut give = |number, line| {
            lines.push((number, line));
            true
        };
        for piece in pieces {
            splitter.feed(piece, &mut give);
        }
        splitter.finish(&mut give);
        lines
    };
    let whole = lines(&mut std::iter::once(bytes));
    assert_eq!(
        whole,
        lines(&mut bytes.chunks(7)),
        "lines don't depend on how they are read"
    );
    !whole.is_empty()
}

/// Puts right the checks of files of the log, so that what stands behind them is looked at too. Bytes that have none stay.
pub fn with_checks(name: &str, bytes: &mut [u8]) {
    let seed = |parts: &[u64]| {
        let append = |check, part: &u64| crc32c::crc32c_append(check, &part.to_le_bytes());
        parts.iter().fold(0, append)
    };
    let put = |bytes: &mut [u8], at: usize, check: u32| bytes[at..at + 4].copy_from_slice(&check.to_le_bytes());
    match name {
        "record" if bytes.len() >= limits::RECORD_HEADER_BYTES => {
            let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
            let end = limits::RECORD_HEADER_BYTES.saturating_add(length).min(bytes.len());
            let body = crc32c::crc32c_append(seed(&[DIRECTORY.0]), &bytes[limits::RECORD_HEADER_BYTES..end]);
            put(bytes, 8, body);
            let check = crc32c::crc32c_append(seed(&[DIRECTORY.0]), &bytes[..4]);
            let check = crc32c::crc32c_append(check, &bytes[8..limits::RECORD_HEADER_BYTES]);
            put(bytes, 4, check);
        }
        "index_file" => {
            for (number, block) in bytes.chunks_exact_mut(4096).enumerate() {
                let at = if number == 0 { 12 } else { 0 };
                let seed = seed(&[DIRECTORY.0, SEGMENT.base.0, number as u64]);
                let check = if number == 0 {
                    put(block, at, 0);
                    crc32c::crc32c_append(seed, block)
                } else {
                    crc32c::crc32c_append(seed, &block[4..])
                };
                put(block, at, check);
            }
        }
        "checkpoint_file" if bytes.len() >= 128 => {
            put(bytes, 12, 0);
            let check = crc32c::crc32c_append(seed(&[DIRECTORY.0, CHECKPOINT.0, 0]), &bytes[..128]);
            put(bytes, 12, check);
            let (mut rest, mut number) = (&mut bytes[128..], 1);
            while rest.len() >= 8 {
                let length = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
                let end = length.saturating_add(8).min(rest.len());
                let check = crc32c::crc32c_append(seed(&[DIRECTORY.0, CHECKPOINT.0, number]), &rest[4..end]);
                put(rest, 0, check);
                (rest, number) = (&mut rest[end..], number + 1);
            }
        }
        _ => {}
    }
}
