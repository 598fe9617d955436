//! Opens what a data directory holds: the newest checkpoint that can be read, the log from there on, and the reader and the housekeeper that
//! go with them. What is damaged and can be done without is set aside and said.

use std::io;

use super::keeper::Keeper;
use super::making::{Replay, load};
use crate::chat::State;
use crate::cluster::message::Recovered;
use crate::log::blocks::FileError;
use crate::log::checkpoint::{Checkpoints, FOLDER, Info, file_name};
use crate::log::disk::Disk;
use crate::log::index::SharedIndex;
use crate::log::reader::Reader;
use crate::log::recovery::{OpenError, Options, Report};
use crate::log::writer::Log;
use crate::types::{DirectoryId, GroupId, LogIndex};

/// What was opened.
#[derive(Debug)]
pub struct Opened<D: Disk> {
    /// For appending.
    pub log: Log<D>,
    /// For reading.
    pub reader: Reader<D>,
    /// For all that nobody waits for.
    pub keeper: Keeper<D>,
    /// What the log holds.
    pub recovered: Recovered,
    /// The state of the checkpoint from which the log is applied.
    pub state: State,
    /// What recovery did.
    pub report: Report,
    /// Checkpoints that can't be read, in words.
    pub notes: Vec<String>,
}

impl<D: Disk> Opened<D> {
    /// Opens a data directory, or makes what it needs.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was changed if it is `Untrusted` or `Newer`, but that checkpoints that can't be read were set aside.
    pub fn open(disk: D, directory: DirectoryId, options: Options) -> Result<Opened<D>, OpenError> {
        let mut checkpoints = Checkpoints::open(disk.clone(), directory).map_err(failed)?;
        let mut notes = Vec::new();
        for (file, offset, text) in checkpoints.bad().to_vec() {
            let place = checkpoints.set_aside(&file).map_err(failed)?;
            notes.push(format!(
                "damaged: {file} at offset {offset}: {text}; the file is kept as {place}"
            ));
        }
        // The newest that can be read as a whole.
        let mut newest = None;
        while let Some(info) = checkpoints.list().last().copied() {
            match load(&checkpoints, &info) {
                Ok(replay) => {
                    newest = Some((info, replay));
                    break;
                }
                Err(error) => set_aside(&mut checkpoints, &info, error, &mut notes)?,
            }
        }
        let options = Options {
            checkpoint: newest.as_ref().map(|(info, _)| info.id.at),
            ..options
        };
        let mut opened = Log::open(disk.clone(), directory, &options)?;
        let shared = opened.reader.shared().clone();
        let replay = match newest {
            None => None,
            // It was installed, and then the process ended.
            Some((info, replay)) if opened.behind && info.begins => {
                let members = replay
                    .members
                    .clone()
                    .ok_or_else(|| untrusted(&info, "it has no members"))?;
                opened
                    .begin_anew(GroupId::ROOT, info.id.at, info.id.chain, &members)
                    .map_err(failed)?;
                remove_others(&mut checkpoints, info.id.at.index)?;
                Some(replay)
            }
            Some((info, _)) if opened.behind => {
                return Err(untrusted(&info, "the log doesn't hold what this checkpoint covers"));
            }
            Some((info, replay)) => {
                let base = base_of(&opened.groups);
                if info.begins && info.id.at.index == base {
                    remove_others(&mut checkpoints, base)?;
                }
                Some(fitting(&mut checkpoints, (info, replay), &shared, base, &mut notes)?)
            }
        };
        let base = base_of(&opened.groups);
        let replay = match replay {
            Some(replay) => replay,
            None if base == LogIndex(0) => Replay::new(),
            None => {
                return Err(OpenError::Untrusted {
                    file: FOLDER.to_owned(),
                    offset: 0,
                    text: format!("the log begins behind entry {base}, and no checkpoint can be read"),
                });
            }
        };
        let mut recovered = recovered_of(opened.groups);
        // What a checkpoint covers was committed.
        recovered.state.commit = recovered.state.commit.max(replay.at.index);
        let ends = replay
            .ends
            .iter()
            .map(|(&room, &(position, seq))| (room, position, seq));
        opened.reader.seed(ends, &replay.pending);
        opened.reader.trim(replay.state.trimmed());
        let for_keeper = opened.reader.another();
        Ok(Opened {
            keeper: Keeper::new(disk, directory, shared.clone(), for_keeper, checkpoints),
            log: opened.log,
            reader: opened.reader,
            recovered,
            state: replay.state,
            report: opened.report,
            notes,
        })
    }
}

/// The newest checkpoint with which all items of entries after `base` are found: what it has pending begins where the index files of today
/// end, or before. An index file that is lost may make it necessary to begin with an older one.
fn fitting<D: Disk>(
    checkpoints: &mut Checkpoints<D>,
    newest: (Info, Replay),
    shared: &SharedIndex,
    base: LogIndex,
    notes: &mut Vec<String>,
) -> Result<Replay, OpenError> {
    let sealed = shared
        .read()
        .last_sealed(GroupId::ROOT)
        .unwrap_or(LogIndex(0))
        .max(base);
    let fits = |info: &Info| info.indexed <= sealed && (!info.begins || info.id.at.index == base);
    if fits(&newest.0) {
        return Ok(newest.1);
    }
    let mut oldest = newest;
    for info in checkpoints.list().to_vec().into_iter().rev() {
        // What was installed and not taken over after all, or has lost the entries after it.
        if (info.begins && info.id.at.index != base) || info.id.at.index < base {
            continue;
        }
        match load(checkpoints, &info) {
            Ok(replay) if fits(&info) => return Ok(replay),
            Ok(replay) => oldest = (info, replay),
            Err(error) => set_aside(checkpoints, &info, error, notes)?,
        }
    }
    if base == LogIndex(0) {
        return Ok(Replay::new());
    }
    // What can't be found with it stands before it, and isn't shown any more.
    Ok(oldest.1)
}

fn remove_others<D: Disk>(checkpoints: &mut Checkpoints<D>, keep: LogIndex) -> Result<(), OpenError> {
    for info in checkpoints.list().to_vec() {
        if info.id.at.index < keep {
            checkpoints.remove(info.id.at.index).map_err(failed)?;
        }
    }
    Ok(())
}

fn set_aside<D: Disk>(
    checkpoints: &mut Checkpoints<D>,
    info: &Info,
    error: FileError,
    notes: &mut Vec<String>,
) -> Result<(), OpenError> {
    if let FileError::Io { .. } | FileError::Newer { .. } = error {
        return Err(error.into());
    }
    let place = checkpoints.set_aside(&file_name(info.id.at.index)).map_err(failed)?;
    notes.push(format!("damaged: {error}; the file is kept as {place}"));
    Ok(())
}

fn base_of(groups: &[(GroupId, Recovered)]) -> LogIndex {
    let root = groups.iter().find(|(group, _)| *group == GroupId::ROOT);
    root.map_or(LogIndex(0), |(_, recovered)| recovered.base.index)
}

fn recovered_of(groups: Vec<(GroupId, Recovered)>) -> Recovered {
    let root = groups.into_iter().find(|(group, _)| *group == GroupId::ROOT);
    root.map(|(_, recovered)| recovered).unwrap_or_default()
}

fn untrusted(info: &Info, text: &str) -> OpenError {
    OpenError::Untrusted {
        file: file_name(info.id.at.index),
        offset: 0,
        text: text.to_owned(),
    }
}

fn failed(error: io::Error) -> OpenError {
    OpenError::Io {
        file: FOLDER.to_owned(),
        error,
    }
}
