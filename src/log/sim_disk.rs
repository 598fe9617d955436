//! A disk in memory that fails as real ones do, for the simulator and for tests: what wasn't synced can be lost, kept or torn,
//! page by page and name by name; a failed sync leaves pages that look written and aren't. The same calls and the same
//! generator give the same disk.

mod looks;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};
use crate::rng::Rng;

/// Bytes of a page: what the system's cache holds and writes as one.
const PAGE: usize = 4096;
static ZEROS: [u8; PAGE] = [0; PAGE];
/// Bytes of a sector: what a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The disk. A clone is the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`SimDisk`].
#[derive(Clone, Debug)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    inode: u64,
}

#[derive(Clone, Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    inodes_made: u64,
    folders: BTreeSet<String>,
    /// As the running system sees them.
    names: BTreeMap<String, u64>,
    /// As they are after a power cut that loses all it may.
    durable_names: BTreeMap<String, u64>,
    /// What happened to names since their folder was synced.
    name_changes: Vec<NameChange>,
    syncs_to_fail: u32,
    /// Changes that still happen; then nothing does until the process or the machine is started again.
    changes_left: Option<u64>,
    stopped: bool,
    space: Option<u64>,
    syncs: u64,
    bytes_written: u64,
}

#[derive(Clone, Debug)]
enum NameChange {
    Created(String, u64),
    Removed(String),
    Renamed(String, String, u64),
}

/// The bytes of a page; none if all are zeros, for most pages of a log are.
type Page = Vec<u8>;

#[derive(Clone, Debug, Default)]
struct Inode {
    size: u64,
    durable_size: u64,
    /// Pages of zeros are left out.
    durable: BTreeMap<u64, Page>,
    /// Pages that differ from `durable`, or may.
    cached: BTreeMap<u64, Cached>,
}

#[derive(Clone, Debug)]
struct Cached {
    bytes: Page,
    /// Whether the next sync writes it. Not so after a failed sync: the system then takes it for written.
    dirty: bool,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// The process ends, the machine goes on: nothing that was written is lost, and nothing more is durable than before. Faults
    /// that were armed are disarmed.
    pub fn kill(&self) {
        self.lock().disarm();
    }

    /// The machine loses power. Each page that isn't durable is lost, kept or torn, each change of a name or size lost or kept.
    /// Handles from before must not be used again.
    pub fn power_cut(&self, rng: &mut Rng) {
        let mut state = self.lock();
        state.disarm();
        for change in std::mem::take(&mut state.name_changes) {
            if rng.chance(50) {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        state.inodes.retain(|inode, _| named.contains(inode));
        for inode in state.inodes.values_mut() {
            inode.power_cut(rng);
        }
    }

    /// Flips one bit of the byte at `offset`, on the disk and in the cache. False if there is no such byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u32) -> bool {
        let mut state = self.lock();
        let inode = state.names.get(name).copied();
        let Some(inode) = inode.and_then(|inode| state.inodes.get_mut(&inode)) else {
            return false;
        };
        if offset >= inode.size {
            return false;
        }
        let (page, at) = (offset / PAGE as u64, offset as usize % PAGE);
        inode.durable.entry(page).or_insert_with(|| vec![0; PAGE])[at] ^= 1 << (bit % 8);
        if let Some(cached) = inode.cached.get_mut(&page) {
            whole(&mut cached.bytes)[at] ^= 1 << (bit % 8);
        }
        true
    }

    /// The next `count` syncs of files or folders fail, and what they should have written is taken for written.
    pub fn fail_syncs(&self, count: u32) {
        self.lock().syncs_to_fail = count;
    }

    /// After so many more changes (writes, syncs, names) nothing succeeds any more, a write in its middle, until
    /// [`kill`](SimDisk::kill) or [`power_cut`](SimDisk::power_cut): an end at any point of whatever is running.
    pub fn stop_after(&self, changes: u64) {
        self.lock().changes_left = Some(changes);
    }

    /// Files may take this much together; `None` is without end.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.lock().space = bytes;
    }

    /// How many bytes the files take together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// How many syncs there were, of files and folders.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many bytes were written.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.lock().bytes_written
    }

    /// The bytes of a file as a process sees them.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.open(name).ok()?;
        let mut bytes = vec![0; file.size().ok()? as usize];
        file.read_at(&mut bytes, 0).ok()?;
        Some(bytes)
    }

    /// A disk of its own with the same contents, synced or not.
    #[must_use]
    pub fn copy(&self) -> SimDisk {
        SimDisk {
            state: Arc::new(Mutex::new(self.lock().clone())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn file(&self, inode: u64) -> SimFile {
        SimFile {
            state: Arc::clone(&self.state),
            inode,
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name}: no such file"))
}

/// The page with all its bytes, to be changed.
fn whole(page: &mut Page) -> &mut Page {
    if page.is_empty() {
        page.resize(PAGE, 0);
    }
    page
}

impl NameChange {
    fn folder(&self) -> &str {
        match self {
            NameChange::Created(name, _) | NameChange::Removed(name) | NameChange::Renamed(_, name, _) => {
                folder_of(name)
            }
        }
    }

    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Created(name, inode) => {
                names.insert(name, inode);
            }
            NameChange::Removed(name) => {
                names.remove(&name);
            }
            NameChange::Renamed(from, to, inode) => {
                names.remove(&from);
                names.insert(to, inode);
            }
        }
    }
}

impl State {
    fn disarm(&mut self) {
        self.syncs_to_fail = 0;
        self.changes_left = None;
        self.stopped = false;
    }

    /// Counts a change; an error if it doesn't happen any more.
    fn begin_change(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.changes_left {
            self.stopped = *left == 0;
            *left = left.saturating_sub(1);
        }
        if self.stopped {
            return Err(io::Error::other("stopped (simulated)"));
        }
        Ok(())
    }

    /// Counts a sync; an error if it was to fail.
    fn begin_sync(&mut self) -> io::Result<()> {
        self.begin_change()?;
        self.syncs += 1;
        if self.syncs_to_fail > 0 {
            self.syncs_to_fail -= 1;
            return Err(io::Error::other("input/output error (simulated)"));
        }
        Ok(())
    }

    fn change(&mut self, change: NameChange) -> io::Result<()> {
        self.begin_change()?;
        change.clone().apply(&mut self.names);
        self.name_changes.push(change);
        Ok(())
    }

    /// The folder itself moves at once and for good; what is in it stays as durable as it was.
    fn rename_folder(&mut self, from: &str, to: &str) {
        let inside = format!("{from}/");
        let moved = |name: &String| match name.strip_prefix(&inside) {
            Some(rest) => format!("{to}/{rest}"),
            None if name == from => to.to_owned(),
            None => name.clone(),
        };
        self.folders = self.folders.iter().map(moved).collect();
        for names in [&mut self.names, &mut self.durable_names] {
            *names = names.iter().map(|(name, &inode)| (moved(name), inode)).collect();
        }
        for change in &mut self.name_changes {
            *change = match change {
                NameChange::Created(name, inode) => NameChange::Created(moved(name), *inode),
                NameChange::Removed(name) => NameChange::Removed(moved(name)),
                NameChange::Renamed(old, new, inode) => NameChange::Renamed(moved(old), moved(new), *inode),
            };
        }
    }

    fn used(&self) -> u64 {
        let sizes = self.names.values().filter_map(|inode| self.inodes.get(inode));
        sizes.map(|inode| inode.size).sum()
    }

    fn grow(&self, by: u64) -> io::Result<()> {
        match self.space {
            Some(space) if by > 0 && self.used() + by > space => {
                Err(io::Error::new(io::ErrorKind::StorageFull, "no space left (simulated)"))
            }
            _ => Ok(()),
        }
    }
}

impl Inode {
    /// `None` is a page of zeros.
    fn page(&self, page: u64) -> Option<&Page> {
        let cached = self.cached.get(&page).map(|c| &c.bytes);
        cached
            .or_else(|| self.durable.get(&page))
            .filter(|bytes| !bytes.is_empty())
    }

    /// Writes a part of a page into the cache.
    fn write(&mut self, page: u64, from: usize, bytes: &[u8]) {
        let durable = self.durable.get(&page);
        let cached = self.cached.entry(page).or_insert_with(|| Cached {
            bytes: durable.cloned().unwrap_or_default(),
            dirty: true,
        });
        cached.dirty = true;
        let zeros = bytes == &ZEROS[..bytes.len()];
        if zeros && (cached.bytes.is_empty() || bytes.len() == PAGE) {
            cached.bytes = Page::new();
        } else {
            whole(&mut cached.bytes)[from..from + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn make_durable(&mut self, page: u64, bytes: Page) {
        if bytes.is_empty() || bytes == ZEROS {
            self.durable.remove(&page);
        } else {
            self.durable.insert(page, bytes);
        }
    }

    fn sync(&mut self) {
        self.durable_size = self.size;
        let dirty: Vec<u64> = self
            .cached
            .iter()
            .filter(|(_, c)| c.dirty)
            .map(|(&page, _)| page)
            .collect();
        for page in dirty {
            if let Some(cached) = self.cached.remove(&page) {
                self.make_durable(page, cached.bytes);
            }
        }
    }

    fn power_cut(&mut self, rng: &mut Rng) {
        if self.size != self.durable_size && rng.chance(50) {
            self.durable_size = self.size;
        }
        self.size = self.durable_size;
        for (page, mut cached) in std::mem::take(&mut self.cached) {
            match rng.below(3) {
                0 => {}
                1 => self.make_durable(page, cached.bytes),
                _ => {
                    let kept = SECTOR * rng.between(1, (PAGE / SECTOR) as u64 - 1) as usize;
                    let mut bytes = self.durable.get(&page).cloned().unwrap_or_default();
                    whole(&mut bytes)[..kept].copy_from_slice(&whole(&mut cached.bytes)[..kept]);
                    self.make_durable(page, bytes);
                }
            }
        }
        let size = self.size;
        self.durable.retain(|&page, _| page * (PAGE as u64) < size);
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.lock();
        if !folder.is_empty() && !state.folders.contains(folder) {
            return Err(not_found(folder));
        }
        let names = state.names.keys().filter(|name| folder_of(name) == folder);
        let bare = names.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned());
        Ok(bare.collect())
    }

    fn create_folder(&self, folder: &str) -> io::Result<()> {
        self.lock().folders.insert(folder.to_owned());
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.lock();
        let folder = folder_of(name);
        if !folder.is_empty() && !state.folders.contains(folder) {
            return Err(not_found(folder));
        }
        if state.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name}: exists")));
        }
        let inode = state.inodes_made;
        state.inodes_made += 1;
        state.inodes.insert(inode, Inode::default());
        state.change(NameChange::Created(name.to_owned(), inode))?;
        Ok(self.file(inode))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let inode = self.lock().names.get(name).copied();
        inode.map(|inode| self.file(inode)).ok_or_else(|| not_found(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        if !state.names.contains_key(name) {
            return Err(not_found(name));
        }
        state.change(NameChange::Removed(name.to_owned()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let Some(inode) = state.names.get(from).copied() else {
            return Err(not_found(from));
        };
        state.change(NameChange::Renamed(from.to_owned(), to.to_owned(), inode))
    }

    fn rename_folder(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        if !state.folders.contains(from) {
            return Err(not_found(from));
        }
        state.begin_change()?;
        state.rename_folder(from, to);
        Ok(())
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.begin_sync()?;
        for change in std::mem::take(&mut state.name_changes) {
            if change.folder() == folder {
                change.apply(&mut state.durable_names);
            } else {
                state.name_changes.push(change);
            }
        }
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        let state = self.lock();
        Ok(state.space.map_or(u64::MAX, |space| space.saturating_sub(state.used())))
    }
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        let mut state = lock(&self.state);
        let inode = state.inodes.get_mut(&self.inode);
        inode
            .map(act)
            .ok_or_else(|| io::Error::other("a handle from before the power cut"))
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        let by = self.with(|inode| size.saturating_sub(inode.size))?;
        lock(&self.state).grow(by)
    }
}

/// The parts of a range of bytes, page by page: (page, from, to) within the page.
fn pages(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + length as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (page, from) = (at / PAGE as u64, at as usize % PAGE);
        let to = PAGE.min(from + (end - at) as usize);
        at += (to - from) as u64;
        Some((page, from, to))
    })
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|inode| {
            if offset + buffer.len() as u64 > inode.size {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before"));
            }
            let mut done = 0;
            for (page, from, to) in pages(offset, buffer.len()) {
                let part = &mut buffer[done..done + to - from];
                match inode.page(page) {
                    Some(bytes) => part.copy_from_slice(&bytes[from..to]),
                    None => part.fill(0),
                }
                done += to - from;
            }
            Ok(())
        })?
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.reserve(offset + bytes.len() as u64)?;
        let (running, begun) = {
            let mut state = lock(&self.state);
            let running = !state.stopped;
            (running, state.begin_change())
        };
        let bytes = match (running, &begun) {
            (true, Ok(())) => bytes,
            // This is where it ends: in the middle of what isn't padding.
            (true, Err(_)) => {
                let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                &bytes[..end / 2]
            }
            (false, _) => return begun,
        };
        lock(&self.state).bytes_written += bytes.len() as u64;
        self.with(|inode| {
            let mut done = 0;
            for (page, from, to) in pages(offset, bytes.len()) {
                inode.write(page, from, &bytes[done..done + to - from]);
                done += to - from;
            }
            inode.size = inode.size.max(offset + bytes.len() as u64);
        })?;
        begun
    }

    fn sync_data(&self) -> io::Result<()> {
        let begun = lock(&self.state).begin_sync();
        self.with(|inode| match begun {
            Ok(()) => {
                inode.sync();
                Ok(())
            }
            Err(error) => {
                // As Linux does it: the pages stay in the cache, and nobody will try again to write them.
                inode.cached.values_mut().for_each(|cached| cached.dirty = false);
                Err(error)
            }
        })?
    }

    fn size(&self) -> io::Result<u64> {
        self.with(|inode| inode.size)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.reserve(size)?;
        lock(&self.state).begin_change()?;
        self.with(|inode| {
            if size < inode.size {
                let first = size / PAGE as u64;
                let touched: BTreeSet<u64> = inode.cached.keys().chain(inode.durable.keys()).copied().collect();
                for page in touched.into_iter().filter(|&page| page >= first) {
                    let from = if page == first { size as usize % PAGE } else { 0 };
                    inode.write(page, from, &ZEROS[from..]);
                }
            }
            inode.size = size;
        })
    }
}

#[cfg(test)]
mod tests;
