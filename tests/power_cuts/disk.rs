//! What a disk holds: bytes and names as the running system shows them, and which of them are durable. A power cut keeps, loses or
//! tears, by seed, whatever wasn't synced: each page of a file, each change of a size, each change of a name.

use std::collections::{BTreeMap, BTreeSet};

use fuser::Errno;
use syncnet::rng::Rng;

/// Bytes of a page: what the system's cache holds and writes as one.
pub const PAGE: usize = 4096;
/// Bytes of a sector: what a disk writes whole or not at all.
const SECTOR: usize = 512;
/// The folder at the top.
pub const ROOT: u64 = 1;

/// What power cuts did to what wasn't synced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub pages_kept: u64,
    pub pages_lost: u64,
    pub pages_torn: u64,
    pub sizes_kept: u64,
    pub sizes_lost: u64,
    pub names_kept: u64,
    pub names_lost: u64,
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    nodes: BTreeMap<u64, Node>,
    nodes_made: u64,
    /// What happened to names since their folder was synced, in order.
    changes: Vec<Change>,
}

/// A file or folder.
#[derive(Debug)]
pub enum Node {
    File(File),
    Folder(Folder),
}

/// A file.
#[derive(Debug, Default)]
pub struct File {
    /// The name that it was given last.
    pub name: String,
    /// As the running system shows it.
    pub bytes: Vec<u8>,
    durable_size: usize,
    /// What the disk holds instead, of each page that differs or may.
    old: BTreeMap<usize, Old>,
}

#[derive(Debug)]
struct Old {
    bytes: Vec<u8>,
    /// Whether the next sync writes the page. Not so after a failed sync: the system then takes it for written.
    dirty: bool,
}

/// A folder.
#[derive(Debug, Default)]
pub struct Folder {
    pub names: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
struct Place {
    folder: u64,
    name: String,
}

#[derive(Clone, Debug)]
enum Change {
    Added(Place, u64),
    Removed(Place, u64),
    Moved(Place, Place, u64),
}

/// How the unsynced parts of a disk fare in a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Luck {
    /// All is lost.
    None,
    /// All is kept.
    Full,
    /// Each part has its own, names in any order.
    Mixed,
    /// Each part has its own, and names are kept up to some change, as a journal does.
    Journal,
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Disk {
        Disk {
            nodes: BTreeMap::from([(ROOT, Node::Folder(Folder::default()))]),
            nodes_made: ROOT,
            changes: Vec::new(),
        }
    }

    pub fn node(&self, ino: u64) -> Result<&Node, Errno> {
        self.nodes.get(&ino).ok_or(Errno::ENOENT)
    }

    pub fn file(&mut self, ino: u64) -> Result<&mut File, Errno> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Folder(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    pub fn folder(&self, ino: u64) -> Result<&Folder, Errno> {
        match self.node(ino)? {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn folder_mut(&mut self, ino: u64) -> Option<&mut Folder> {
        match self.nodes.get_mut(&ino) {
            Some(Node::Folder(folder)) => Some(folder),
            _ => None,
        }
    }

    pub fn find(&self, folder: u64, name: &str) -> Result<u64, Errno> {
        self.folder(folder)?.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// Whether there is something of that path.
    pub fn has(&self, path: &str) -> bool {
        let found = path.split('/').try_fold(ROOT, |folder, name| self.find(folder, name));
        found.is_ok()
    }

    pub fn add(&mut self, folder: u64, name: &str, node: Node) -> Result<u64, Errno> {
        if self.folder(folder)?.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.nodes_made += 1;
        let ino = self.nodes_made;
        self.nodes.insert(ino, node);
        let place = Place::new(folder, name);
        self.change(Change::Added(place, ino));
        Ok(ino)
    }

    pub fn remove(&mut self, folder: u64, name: &str) -> Result<(), Errno> {
        let ino = self.find(folder, name)?;
        if self.folder(ino).is_ok_and(|folder| !folder.names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.change(Change::Removed(Place::new(folder, name), ino));
        Ok(())
    }

    pub fn rename(&mut self, from: (u64, &str), to: (u64, &str)) -> Result<(), Errno> {
        let ino = self.find(from.0, from.1)?;
        self.folder(to.0)?;
        if self.find(to.0, to.1).is_ok_and(|taken| self.folder(taken).is_ok()) {
            return Err(Errno::EEXIST);
        }
        self.change(Change::Moved(Place::new(from.0, from.1), Place::new(to.0, to.1), ino));
        if let Ok(file) = self.file(ino) {
            file.name = to.1.to_owned();
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        self.apply(&change, |folder| &mut folder.names);
        self.changes.push(change);
    }

    fn apply(&mut self, change: &Change, names: impl Fn(&mut Folder) -> &mut BTreeMap<String, u64>) {
        let (gone, there, ino) = match change {
            Change::Added(place, ino) => (None, Some(place), *ino),
            Change::Removed(place, ino) => (Some(place), None, *ino),
            Change::Moved(from, to, ino) => (Some(from), Some(to), *ino),
        };
        // A name that has come to mean something else meanwhile stays.
        if let Some(place) = gone
            && let Some(folder) = self.folder_mut(place.folder)
            && names(folder).get(&place.name) == Some(&ino)
        {
            names(folder).remove(&place.name);
        }
        if let Some(place) = there
            && let Some(folder) = self.folder_mut(place.folder)
        {
            names(folder).insert(place.name.clone(), ino);
        }
    }

    /// Makes durable which names a folder has. The names that it lost to another folder go with that one.
    pub fn sync_folder(&mut self, ino: u64) -> Result<(), Errno> {
        self.folder(ino)?;
        let (done, left) = std::mem::take(&mut self.changes)
            .into_iter()
            .partition(|change| change.home() == ino);
        self.changes = left;
        let done: Vec<Change> = done;
        for change in &done {
            self.apply(change, |folder| &mut folder.durable);
        }
        Ok(())
    }

    /// Whether a power cut could lose anything now but the lock file, on which nothing depends.
    pub fn is_unsynced(&self) -> bool {
        let unsynced = |node: &Node| matches!(node, Node::File(file) if file.is_unsynced() && file.name != "lock");
        let of_lock = |change: &Change| matches!(change, Change::Added(place, _) if place.name == "lock");
        !self.changes.iter().all(of_lock) || self.nodes.values().any(unsynced)
    }

    /// The power goes and comes back: from here on this is what the disk holds.
    pub fn power_cut(&mut self, rng: &mut Rng, tally: &mut Tally) {
        let luck = match rng.below(10) {
            0..=2 => Luck::None,
            3 => Luck::Full,
            4..=6 => Luck::Mixed,
            _ => Luck::Journal,
        };
        let changes = std::mem::take(&mut self.changes);
        let up_to = rng.below(changes.len() as u64 + 1) as usize;
        for (at, change) in changes.iter().enumerate() {
            let kept = match luck {
                Luck::None => false,
                Luck::Full => true,
                Luck::Mixed => rng.chance(50),
                Luck::Journal => at < up_to,
            };
            if kept {
                self.apply(change, |folder| &mut folder.durable);
                tally.names_kept += 1;
            } else {
                tally.names_lost += 1;
            }
        }
        let mut left = BTreeMap::new();
        let mut reached = BTreeSet::from([ROOT]);
        while let Some(ino) = reached.pop_first() {
            let Some(mut node) = self.nodes.remove(&ino) else {
                continue;
            };
            match &mut node {
                Node::File(file) => file.power_cut(luck, rng, tally),
                Node::Folder(folder) => {
                    folder.names = folder.durable.clone();
                    reached.extend(folder.names.values());
                }
            }
            left.insert(ino, node);
        }
        self.nodes = left;
    }
}

impl Place {
    fn new(folder: u64, name: &str) -> Place {
        Place {
            folder,
            name: name.to_owned(),
        }
    }
}

impl Change {
    /// The folder whose sync makes it durable.
    fn home(&self) -> u64 {
        match self {
            Change::Added(place, _) | Change::Removed(place, _) | Change::Moved(_, place, _) => place.folder,
        }
    }
}

impl File {
    pub fn named(name: &str) -> File {
        File {
            name: name.to_owned(),
            ..File::default()
        }
    }

    pub fn is_unsynced(&self) -> bool {
        !self.old.is_empty() || self.bytes.len() != self.durable_size
    }

    /// A part of the bytes; fewer at the end.
    pub fn read(&self, offset: u64, size: usize) -> &[u8] {
        let from = (offset as usize).min(self.bytes.len());
        &self.bytes[from..(from + size).min(self.bytes.len())]
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        self.touch(from, to);
        if to > self.bytes.len() {
            self.bytes.resize(to, 0);
        }
        self.bytes[from..to].copy_from_slice(bytes);
    }

    pub fn set_size(&mut self, size: usize) {
        self.touch(size, self.bytes.len());
        self.bytes.resize(size, 0);
    }

    /// Remembers what the disk holds of the pages with bytes `from..to`, which are about to change.
    fn touch(&mut self, from: usize, to: usize) {
        for page in from / PAGE..to.div_ceil(PAGE) {
            let old = self.old.entry(page).or_insert_with(|| Old {
                bytes: whole_page(&self.bytes, page),
                dirty: true,
            });
            old.dirty = true;
        }
    }

    pub fn sync(&mut self) {
        self.old.retain(|_, old| !old.dirty);
        self.durable_size = self.bytes.len();
    }

    /// The system says that it couldn't, once, and then takes the pages for written.
    pub fn fail_to_sync(&mut self) {
        self.old.values_mut().for_each(|old| old.dirty = false);
    }

    fn power_cut(&mut self, luck: Luck, rng: &mut Rng, tally: &mut Tally) {
        let mut size = self.bytes.len();
        if size != self.durable_size {
            let kept = luck == Luck::Full || luck != Luck::None && rng.chance(50);
            if kept {
                tally.sizes_kept += 1;
            } else {
                tally.sizes_lost += 1;
                size = self.durable_size;
            }
        }
        let pages = self.bytes.len().max(size).div_ceil(PAGE);
        self.bytes.resize(pages * PAGE, 0);
        for (page, old) in std::mem::take(&mut self.old) {
            let Some(bytes) = self.bytes.get_mut(page * PAGE..(page + 1) * PAGE) else {
                continue;
            };
            let fate = match luck {
                Luck::None => 0,
                Luck::Full => 1,
                Luck::Mixed | Luck::Journal => rng.below(3),
            };
            match fate {
                0 => {
                    bytes.copy_from_slice(&old.bytes);
                    tally.pages_lost += 1;
                }
                1 => tally.pages_kept += 1,
                _ => {
                    // Sectors are written from the front, but a disk may also take them in an order of its own.
                    let in_order = rng.chance(50);
                    let up_to = rng.between(1, (PAGE / SECTOR) as u64 - 1) as usize;
                    for sector in 0..PAGE / SECTOR {
                        if if in_order { sector >= up_to } else { rng.chance(50) } {
                            let range = sector * SECTOR..(sector + 1) * SECTOR;
                            bytes[range.clone()].copy_from_slice(&old.bytes[range]);
                        }
                    }
                    tally.pages_torn += 1;
                }
            }
        }
        self.bytes.truncate(size);
        self.durable_size = size;
    }
}

/// A page of a file, filled up with zeros.
fn whole_page(bytes: &[u8], page: usize) -> Vec<u8> {
    let from = (page * PAGE).min(bytes.len());
    let mut copy = bytes[from..bytes.len().min(from + PAGE)].to_vec();
    copy.resize(PAGE, 0);
    copy
}
