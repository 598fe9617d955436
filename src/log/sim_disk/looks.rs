//! What can be seen of a simulated disk that no process sees: what is on it for good. And ways in which it fails that a power cut rarely
//! comes to by chance.

use super::{Cached, Inode, PAGE, Page, SimDisk, ZEROS};
use crate::rng::Rng;

impl SimDisk {
    /// The size of a file as a process sees it.
    #[must_use]
    pub fn size_of(&self, name: &str) -> Option<u64> {
        let state = self.lock();
        let inode = state.names.get(name)?;
        Some(state.inodes.get(inode)?.size)
    }

    /// Whether a power cut now leaves a file under its name, and its first `bytes` as a process sees them.
    #[must_use]
    pub fn is_durable(&self, name: &str, bytes: u64) -> bool {
        let state = self.lock();
        let named = state.names.get(name);
        let inode = named.and_then(|inode| state.inodes.get(inode));
        named == state.durable_names.get(name) && inode.is_some_and(|inode| inode.is_durable(bytes))
    }

    /// Whether a file has anything but zeros from `offset` on, for a process or after a power cut.
    #[must_use]
    pub fn has_data_from(&self, name: &str, offset: u64) -> bool {
        let state = self.lock();
        let inode = state.names.get(name).and_then(|inode| state.inodes.get(inode));
        inode.is_some_and(|inode| inode.has_data_from(offset))
    }

    /// The system needs its memory: of what a failed sync has left in its cache some is gone, and then the old bytes are seen.
    pub fn forget_unwritten(&self, rng: &mut Rng) {
        for inode in self.lock().inodes.values_mut() {
            inode.cached.retain(|_, cached| cached.dirty || rng.chance(50));
        }
    }

    /// The system had time to write what was written to files, as it does by itself sooner or later.
    pub fn write_back(&self) {
        self.lock().inodes.values_mut().for_each(Inode::sync);
    }

    /// Nothing is left but what was synced: the worst that a power cut makes of it.
    pub fn lose_unsynced(&self) {
        let mut state = self.lock();
        state.name_changes.clear();
        state.names = state.durable_names.clone();
        for inode in state.inodes.values_mut() {
            inode.cached.clear();
            inode.size = inode.durable_size;
        }
    }

    /// Of what isn't synced the first page of each file is lost, and those after it are on the disk.
    pub fn lose_first_pages(&self) {
        for inode in self.lock().inodes.values_mut() {
            inode.cached.pop_first();
            for (page, cached) in std::mem::take(&mut inode.cached) {
                inode.make_durable(page, cached.bytes);
            }
        }
    }
}

impl Inode {
    fn is_durable(&self, bytes: u64) -> bool {
        let same = |(page, cached): (&u64, &Cached)| {
            let used = (bytes - page * PAGE as u64).min(PAGE as u64) as usize;
            let durable = self.durable.get(page).map_or(&ZEROS[..], |bytes| &bytes[..]);
            let seen = if cached.bytes.is_empty() {
                &ZEROS[..]
            } else {
                &cached.bytes
            };
            seen[..used] == durable[..used]
        };
        bytes <= self.durable_size && self.cached.range(..bytes.div_ceil(PAGE as u64)).all(same)
    }

    fn has_data_from(&self, offset: u64) -> bool {
        let first = offset / PAGE as u64;
        let data = |page: u64, bytes: &Page| {
            let from = if page == first { offset as usize % PAGE } else { 0 };
            bytes.iter().skip(from).any(|&byte| byte != 0)
        };
        let durable = self.durable.range(first..).any(|(&page, bytes)| data(page, bytes));
        let mut cached = self.cached.range(first..);
        durable || cached.any(|(&page, cached)| data(page, &cached.bytes))
    }
}
