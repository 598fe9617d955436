//! Whether all that a data directory holds is whole: every record, index file and checkpoint, and whether they belong together.
//!
//! Places that hold no good record are told apart as recovery does it: what was synced once and can't be read is damage; what stands
//! behind the end of what recovery would keep is a torn write, and no damage. What recovery itself would say of the log as a whole is
//! found by walking over it without changing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::Offline;
use super::dump::hard_state;
use super::fields::{Fields, Value};
use crate::keep::making::load;
use crate::limits::OFFLINE_PLACES_MAX;
use crate::log::blocks::FileError;
use crate::log::checkpoint::{self, Checkpoints, Info};
use crate::log::directory::Identity;
use crate::log::disk::Disk;
use crate::log::examine::{Examined, examine};
use crate::log::inspect::{Seen, inspect_one};
use crate::log::record::{Header, Kind};
use crate::log::recovery::OpenError;
use crate::log::sealed::{self, SealedFile};
use crate::log::segment::{FOLDER, Segment, file_name};
use crate::types::{GroupId, LogIndex, Lsn, Term};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// Nothing is wrong.
    Note,
    /// A write was cut short, which is what a crash does: a start cuts it off.
    Torn,
    /// It couldn't be looked at.
    Unreadable,
    /// It isn't what was written.
    Damage,
}

impl Weight {
    fn name(self) -> &'static str {
        match self {
            Weight::Note => "note",
            Weight::Torn => "torn",
            Weight::Unreadable => "unreadable",
            Weight::Damage => "damage",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Finding {
    /// How bad it is.
    pub weight: Weight,
    /// The file, relative to the data directory.
    pub file: String,
    /// Where in the file.
    pub offset: u64,
    /// What it means.
    pub text: String,
}

impl Finding {
    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let Finding {
            weight,
            file,
            offset,
            text,
        } = self;
        format!("{}: {file} at offset {offset}: {text}", weight.name())
    }

    /// For programs.
    #[must_use]
    pub fn fields(&self) -> Fields {
        Fields::new()
            .text("finding", self.weight.name())
            .text("file", &self.file)
            .number("offset", self.offset)
            .text("text", &self.text)
    }
}

/// What was looked at, and what came of it.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Whose directory it is.
    pub identity: Identity,
    /// Segments of the log.
    pub segments: usize,
    /// Good records in them.
    pub records: u64,
    /// Entries among them, void ones too.
    pub entries: u64,
    /// Index files that are good.
    pub indexes: usize,
    /// Checkpoints that are good, ascending: the last entry in each.
    pub checkpoints: Vec<LogIndex>,
    /// What a start would find; `None` if it would trust nothing of the log, or there is none.
    pub log: Option<Examined>,
    /// How many findings are damage.
    pub damaged: u64,
    /// How many say that something can't be looked at.
    pub unreadable: u64,
}

impl Summary {
    /// The worst of what was found, in a word.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.damaged, self.unreadable) {
            (0, 0) => "whole",
            (0, _) => "unreadable",
            _ => "damaged",
        }
    }

    /// With what code a program ends that says so.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match (self.damaged, self.unreadable) {
            (0, 0) => 0,
            (0, _) => 3,
            _ => 1,
        }
    }

    /// For people: some lines, the verdict first.
    #[must_use]
    pub fn text(&self) -> String {
        let Identity { server, boot, .. } = self.identity;
        let mut text = format!("{}: data directory of {server}, started {boot} times", self.verdict());
        if self.damaged + self.unreadable > 0 {
            text += &format!(", {} places damaged, {} not to be read", self.damaged, self.unreadable);
        }
        text += &format!(
            "\nlog: {} segments, {} records, {} entries, {} index files\n",
            self.segments, self.records, self.entries, self.indexes
        );
        for (group, found) in self.log.iter().flat_map(|log| &log.groups) {
            let state = hard_state(Fields::new(), &found.state).line();
            text += &format!(
                "group {group}: entries {} to {}, the last of term {}; {state}",
                found.base.index.next(),
                found.last.index,
                found.last.term
            );
            if !found.holes.is_empty() {
                text += &format!("; {} of them can't be read", found.holes.len());
            }
            text += "\n";
        }
        let checkpoints: Vec<String> = self.checkpoints.iter().map(LogIndex::to_string).collect();
        match checkpoints.is_empty() {
            true => text += "checkpoints: none\n",
            false => text += &format!("checkpoints: after entries {}\n", checkpoints.join(", ")),
        }
        text
    }

    /// All of it.
    #[must_use]
    pub fn fields(&self) -> Fields {
        let groups = self.log.iter().flat_map(|log| &log.groups).map(|(group, found)| {
            let fields = Fields::new()
                .number("group", u64::from(group.0))
                .number("begins_after", found.base.index.0)
                .number("last_index", found.last.index.0)
                .number("last_term", found.last.term.0);
            hard_state(fields, &found.state).number("holes", found.holes.len() as u64)
        });
        let checkpoints = self
            .checkpoints
            .iter()
            .map(|index| Fields::new().number("index", index.0));
        Fields::new()
            .text("verdict", self.verdict())
            .text("server", self.identity.server.as_str())
            .hex("directory", &self.identity.directory.0.to_be_bytes())
            .number("boot", self.identity.boot.0)
            .with("replaced", Value::Flag(self.identity.replaced))
            .number("segments", self.segments as u64)
            .number("records", self.records)
            .number("entries", self.entries)
            .number("indexes", self.indexes as u64)
            .with("checkpoints", Value::Rows(checkpoints.collect()))
            .with("groups", Value::Rows(groups.collect()))
            .number("damaged", self.damaged)
            .number("unreadable", self.unreadable)
    }
}

/// Bytes that hold no good record.
#[derive(Clone, Debug)]
struct Place {
    segment: Segment,
    offset: u64,
    bytes: u64,
    header: Option<Header>,
    /// Without a header: which entries stood here, if entries stood before and after.
    hidden: Option<(LogIndex, LogIndex)>,
}

impl Place {
    fn lsn(&self) -> Lsn {
        Lsn(self.segment.base.0 + self.offset)
    }
}

/// What was found while reading.
#[derive(Debug, Default)]
struct Found {
    findings: Vec<Finding>,
    damaged: u64,
    unreadable: u64,
    records: u64,
    entries: u64,
    places: Vec<Place>,
    /// How many there are beyond those.
    more_places: u64,
    /// The highest position that any header says was synced.
    synced: Lsn,
    /// Entries that were written in the place of ones that can't be read.
    filled: BTreeSet<LogIndex>,
    /// Term and running check of the entries that checkpoints end with.
    marks: BTreeMap<LogIndex, (Term, u32)>,
    /// The last entry that was seen.
    last: LogIndex,
}

impl Found {
    fn add(&mut self, weight: Weight, file: impl Into<String>, offset: u64, text: impl Into<String>) {
        match weight {
            Weight::Damage => self.damaged += 1,
            Weight::Unreadable => self.unreadable += 1,
            Weight::Note | Weight::Torn => {}
        }
        if self.findings.len() < OFFLINE_PLACES_MAX {
            let (file, text) = (file.into(), text.into());
            self.findings.push(Finding {
                weight,
                file,
                offset,
                text,
            });
        }
    }

    fn is_known(&self, file: &str, offset: u64) -> bool {
        let same = |finding: &Finding| finding.file == file && finding.offset == offset;
        self.findings.iter().any(same)
    }

    /// A file that the system doesn't give.
    fn refused(&mut self, file: &str, offset: u64, error: &io::Error) {
        let weight = match error.kind() {
            // A server that runs removes what isn't needed any more; another look tells more.
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Weight::Unreadable,
            _ => Weight::Damage,
        };
        self.add(weight, file, offset, error.to_string());
    }

    fn file(&mut self, error: &FileError) {
        match error {
            FileError::Damaged { file, offset, text } => self.add(Weight::Damage, file, *offset, text),
            FileError::Newer { file } => self.add(Weight::Unreadable, file, 0, NEWER),
            FileError::Io { file, error } => self.refused(file, 0, error),
        }
    }

    fn open(&mut self, error: &OpenError, consequence: &str) {
        match error {
            OpenError::Untrusted { file, offset, text } => {
                self.add(Weight::Damage, file, *offset, format!("{text}{consequence}"));
            }
            OpenError::Newer { file, offset } if !self.is_known(file, *offset) => {
                self.add(Weight::Unreadable, file, *offset, NEWER);
            }
            OpenError::Newer { .. } => {}
            OpenError::Io { file, error } if !self.is_known(file, 0) => self.refused(file, 0, error),
            OpenError::Io { .. } => {}
        }
    }

    fn record(&mut self, header: &Header) {
        self.records += 1;
        self.synced = self.synced.max(header.synced);
        match header.kind {
            Kind::Entry => {
                self.entries += 1;
                self.hidden_until(header.index);
                self.last = header.index;
                self.mark(header);
            }
            Kind::Fill => {
                self.entries += 1;
                self.filled.insert(header.index);
                self.mark(header);
            }
            Kind::Head | Kind::State | Kind::Seal => {}
        }
    }

    fn mark(&mut self, header: &Header) {
        if let Some(mark) = self.marks.get_mut(&header.index) {
            *mark = (header.term, header.chain);
        }
    }

    /// An entry follows the last place: what stood there were those before it.
    fn hidden_until(&mut self, index: LogIndex) {
        let last = self.last;
        if let Some(place) = self.places.last_mut()
            && place.header.is_none()
            && place.hidden.is_none()
        {
            place.hidden = Some((last.next(), index.previous()));
        }
    }

    fn place(&mut self, segment: Segment, offset: u64, bytes: u64, header: Option<Header>) {
        if let Some(header) = &header {
            self.synced = self.synced.max(header.synced);
            if header.kind == Kind::Entry {
                self.hidden_until(header.index);
                self.last = header.index;
            }
        }
        if self.places.len() >= OFFLINE_PLACES_MAX {
            self.more_places += 1;
            return;
        }
        self.places.push(Place {
            segment,
            offset,
            bytes,
            header,
            hidden: None,
        });
    }

    /// The entries that a place held, if that is known, were written again elsewhere.
    fn is_filled(&self, place: &Place) -> bool {
        let (from, to) = match (&place.header, place.hidden) {
            (Some(header), _) if header.kind == Kind::Entry => (header.index, header.index),
            (None, Some(hidden)) => hidden,
            _ => return false,
        };
        from <= to && self.filled.range(from..=to).count() as u64 == to.0 - from.0 + 1
    }
}

const NEWER: &str = "written by a later version of this program: look at it with that one";

/// Looks at everything. The findings come in the order of the files, with those of the log as a whole behind its places.
pub fn verify<D: Disk>(offline: &Offline<D>, tell: &mut dyn FnMut(&Finding)) -> Summary {
    let mut found = Found::default();
    let mut told = 0;
    let mut flush = |found: &Found| {
        found.findings.iter().skip(told).for_each(&mut *tell);
        told = found.findings.len();
    };
    let checkpoints = verify_checkpoints(offline, &mut found);
    flush(&found);
    found.marks = checkpoints
        .iter()
        .map(|info| (info.id.at.index, Default::default()))
        .collect();
    let (segments, log) = match offline.segments() {
        Ok(segments) => {
            for segment in &segments {
                scan(offline, *segment, &mut found);
            }
            let log = verify_log(offline, &segments, &checkpoints, &mut found);
            (segments, log)
        }
        Err(error) => {
            found.open(&error, "");
            (Vec::new(), None)
        }
    };
    flush(&found);
    let indexes = verify_indexes(offline, &segments, &mut found);
    flush(&found);
    Summary {
        identity: offline.identity,
        segments: segments.len(),
        records: found.records,
        entries: found.entries,
        indexes,
        checkpoints: checkpoints.iter().map(|info| info.id.at.index).collect(),
        log,
        damaged: found.damaged + found.more_places,
        unreadable: found.unreadable,
    }
}

/// The checkpoints that are whole: each is read to its end, and what it holds has the digest that its head names.
fn verify_checkpoints<D: Disk>(offline: &Offline<D>, found: &mut Found) -> Vec<Info> {
    let checkpoints = match Checkpoints::look(offline.disk.clone(), offline.identity.directory) {
        Ok(checkpoints) => checkpoints,
        Err(error) => {
            found.refused(checkpoint::FOLDER, 0, &error);
            return Vec::new();
        }
    };
    for (file, offset, text) in checkpoints.bad() {
        found.add(Weight::Damage, file, *offset, text);
    }
    let mut good = Vec::new();
    for info in checkpoints.list() {
        match load(&checkpoints, info) {
            Ok(_) => good.push(*info),
            Err(error) => found.file(&error),
        }
    }
    good
}

fn scan<D: Disk>(offline: &Offline<D>, segment: Segment, found: &mut Found) {
    let mut at = 0;
    let visited = inspect_one(&offline.disk, offline.identity.directory, segment, &mut |seen| {
        match seen {
            Seen::Record(_, offset, header, _) => {
                at = offset;
                found.record(&header);
            }
            Seen::Damaged(_, offset, bytes, header) => {
                at = offset;
                found.place(segment, offset, bytes, header);
            }
            Seen::Newer(_, offset) => found.add(Weight::Unreadable, segment.file(), offset, NEWER),
            Seen::Segment(_) | Seen::Missing(..) | Seen::End(..) => {}
        }
        true
    });
    if let Err(error) = visited {
        found.refused(&segment.file(), at, &error);
    }
}

/// The log as a whole, and what its damaged places mean for it.
fn verify_log<D: Disk>(
    offline: &Offline<D>,
    segments: &[Segment],
    checkpoints: &[Info],
    found: &mut Found,
) -> Option<Examined> {
    let (disk, identity) = (&offline.disk, &offline.identity);
    let newest = checkpoints.last();
    if segments.is_empty() {
        if identity.log_end > Lsn(0) || newest.is_some() {
            found.add(Weight::Damage, file_name(Lsn(0)), 0, "the segment is missing");
        } else {
            found.add(Weight::Note, FOLDER, 0, "there is no log yet");
        }
        return None;
    }
    let examined = examine(
        disk,
        identity.directory,
        identity.log_end,
        newest.map(|info| info.id.at),
    );
    let (begin, end) = match &examined {
        Ok(examined) => (examined.begin, examined.end),
        // Nobody knows where it would end; what a good header calls synced was whole once.
        Err(_) => (Lsn(0), found.synced.max(identity.log_end)),
    };
    for place in std::mem::take(&mut found.places) {
        let (weight, text) = meaning(found, &place, begin, end, examined.is_ok());
        if let Some(weight) = weight {
            found.add(weight, place.segment.file(), place.offset, text);
        }
    }
    match examined {
        Ok(examined) => {
            for (file, offset, text) in &examined.report.damaged {
                if !found.is_known(file, *offset) {
                    found.add(Weight::Damage, file, *offset, text);
                }
            }
            if let Some((file, offset)) = &examined.report.cut_at {
                let bytes = examined.report.cut_bytes;
                let text =
                    format!("{bytes} bytes of a write that was cut short; a start cuts them off, and it is no damage");
                found.add(Weight::Torn, file, *offset, text);
            }
            if let Some(info) = newest {
                verify_mark(info, &examined, found);
            }
            Some(examined)
        }
        Err(error) => {
            let consequence = "; the log can't be trusted: a server of several sets the directory aside and begins anew from the others";
            found.open(&error, consequence);
            None
        }
    }
}

/// What a place that holds no good record means. Without a weight it is told of in another way.
fn meaning(found: &Found, place: &Place, begin: Lsn, end: Lsn, walked: bool) -> (Option<Weight>, String) {
    let bytes = place.bytes;
    let what = match &place.header {
        Some(header) if matches!(header.kind, Kind::Entry | Kind::Fill) => {
            format!(
                "the payload of entry {} (term {}) doesn't match its check",
                header.index, header.term
            )
        }
        Some(_) => "the payload of a record doesn't match its check".to_owned(),
        None => match place.hidden {
            Some((from, to)) if from < to => {
                format!("{bytes} bytes hold no record; entries {from} to {to} stood there")
            }
            Some((from, to)) if from == to => format!("{bytes} bytes hold no record; entry {from} stood there"),
            _ => format!("{bytes} bytes hold no record"),
        },
    };
    if place.lsn() < begin {
        let text = format!("{what}; the log begins behind it, and nobody needs it any more");
        return (Some(Weight::Note), text);
    }
    if place.lsn() >= end {
        // Of all that is behind the end the walk tells at once.
        let text = format!("{what}; it may never have been whole");
        return ((!walked).then_some(Weight::Torn), text);
    }
    if walked && found.is_filled(place) {
        return (
            Some(Weight::Note),
            format!("{what}; that was repaired: it stands elsewhere in the log"),
        );
    }
    (Some(Weight::Damage), what)
}

/// Whether the log and its newest checkpoint tell of the same.
fn verify_mark(info: &Info, examined: &Examined, found: &mut Found) {
    let (file, index) = (checkpoint::file_name(info.id.at.index), info.id.at.index);
    if examined.behind {
        let (weight, text) = if info.begins {
            let text = "it came from another server; the next start begins the log anew behind it";
            (Weight::Note, text.to_owned())
        } else {
            (
                Weight::Damage,
                format!("the log doesn't hold entry {index}, with which this checkpoint ends"),
            )
        };
        found.add(weight, file, 0, text);
        return;
    }
    let Some(&(term, chain)) = found.marks.get(&index) else {
        return;
    };
    let in_log = examined
        .groups
        .iter()
        .any(|(group, tail)| *group == GroupId::ROOT && tail.base.index < index);
    if in_log && chain != 0 && info.id.chain != 0 && (term, chain) != (info.id.at.term, info.id.chain) {
        let text = format!("entry {index} of the log isn't the one with which this checkpoint ends");
        found.add(Weight::Damage, file, 32, text);
    }
}

/// How many index files are good.
fn verify_indexes<D: Disk>(offline: &Offline<D>, segments: &[Segment], found: &mut Found) -> usize {
    let names = match offline.disk.list(FOLDER) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return 0,
        Err(error) => {
            found.refused(FOLDER, 0, &error);
            return 0;
        }
    };
    let mut good = 0;
    for base in names.iter().filter_map(|name| sealed::base_of(name)) {
        let Some(segment) = segments.iter().find(|segment| segment.base == base) else {
            let text = "its segment isn't there; nobody reads it";
            found.add(Weight::Note, sealed::file_name(base), 0, text);
            continue;
        };
        let opened = SealedFile::open(&offline.disk, offline.identity.directory, *segment);
        match opened.and_then(|mut file| file.verify()) {
            Ok(()) => good += 1,
            Err(error) => found.file(&error),
        }
    }
    good
}
