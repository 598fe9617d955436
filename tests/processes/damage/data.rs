//! A data directory as its manual page describes it, to be damaged in a chosen place.

// Some test programs share this, and each uses a part.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// What a record is, at byte 12 of its header.
const HEAD: u8 = 1;
pub const STATE: u8 = 2;
pub const ENTRY: u8 = 3;
pub const SEAL: u8 = 4;
const FILL: u8 = 5;
const HEADER: usize = 64;

/// Where a record stands.
#[derive(Clone, Debug)]
pub struct Place {
    pub segment: PathBuf,
    pub offset: usize,
    pub kind: u8,
    pub payload: usize,
}

impl Place {
    /// All its bytes, without those that only fill up.
    pub fn length(&self) -> usize {
        HEADER + self.payload
    }

    /// Flips one bit of the record, at that byte of it.
    pub fn flip(&self, byte: usize) {
        assert!(byte < self.length(), "beyond the end of {self:?}");
        flip(&self.segment, self.offset + byte);
    }

    /// Flips one bit in the middle of its payload.
    pub fn flip_payload(&self) {
        self.flip(HEADER + self.payload / 2);
    }

    /// Flips one bit of the header: of the position, which nothing else tells.
    pub fn flip_header(&self) {
        self.flip(17);
    }

    /// As the programs name it.
    pub fn name(&self) -> String {
        let name = self.segment.file_name().expect("a file").to_string_lossy().into_owned();
        format!("{name} at offset {}", self.offset)
    }
}

/// Flips one bit of a file.
pub fn flip(file: &Path, at: usize) {
    let mut bytes = read(file);
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn read(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The files of a folder with that ending, in the order of their names; none without the folder.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect();
    found.sort();
    found
}

/// The segments of a data directory, oldest first.
pub fn segments(data: &Path) -> Vec<PathBuf> {
    files(&data.join("log"), "seg")
}

/// The records of a segment, in their order, up to where its zeros begin: none in one that is only prepared.
pub fn records(segment: &Path) -> Vec<Place> {
    let bytes = read(segment);
    let mut found = Vec::new();
    let mut offset = 0;
    while let Some(header) = bytes.get(offset..offset + HEADER) {
        let payload = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = header[12];
        if kind == 0 {
            break;
        }
        assert!(
            (HEAD..=FILL).contains(&kind),
            "kind {kind} at {offset} of {}",
            segment.display()
        );
        found.push(Place {
            segment: segment.to_path_buf(),
            offset,
            kind,
            payload,
        });
        offset += HEADER + payload.next_multiple_of(8);
    }
    found
}

/// The records of the whole log of one kind.
pub fn all(data: &Path, kind: u8) -> Vec<Place> {
    let all = segments(data).into_iter().flat_map(|segment| records(&segment));
    all.filter(|record| record.kind == kind).collect()
}

/// The last record of that kind in the newest segment that has any.
pub fn last(data: &Path, kind: u8) -> Place {
    all(data, kind)
        .pop()
        .unwrap_or_else(|| panic!("no record of kind {kind}"))
}

/// The entry record in whose payload a text stands.
pub fn entry_with(data: &Path, text: &str) -> Place {
    let text = text.as_bytes();
    let holds = |place: &Place| {
        let bytes = read(&place.segment);
        let payload = &bytes[place.offset + HEADER..place.offset + HEADER + place.payload];
        payload.windows(text.len()).any(|window| window == text)
    };
    all(data, ENTRY)
        .into_iter()
        .find(holds)
        .expect("the message is in the log")
}

/// Writes behind the last record what a write that was cut short may leave: bytes that are no record.
pub fn tear(data: &Path) {
    let last = segments(data)
        .iter()
        .flat_map(|segment| records(segment))
        .next_back()
        .expect("a record");
    let end = last.offset + HEADER + last.payload.next_multiple_of(8);
    let mut bytes = read(&last.segment);
    let room = (bytes.len() - end).min(300);
    bytes[end..end + room].fill(0xA5);
    fs::write(&last.segment, bytes).expect("a writable file");
}

/// Removes all that a folder holds, and leaves the folder.
pub fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder") {
        fs::remove_file(entry.expect("a readable folder").path()).expect("a file of ours");
    }
}
