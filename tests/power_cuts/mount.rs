//! The disks as file systems of the running system (FUSE): what a program does to its files reaches a [`Machine`], and nothing of
//! it is cached in between.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};

use super::disk::{Disk, File, Folder, Node, PAGE};
use super::machine::{Change, Machine};

/// Nothing is remembered by the system: after a power cut it must ask again.
const TTL: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);

/// One of a machine's disks, as a file system.
struct Mounted {
    machine: Arc<Machine>,
    drive: usize,
}

/// Mounts a disk. `None`, and a line that says so, where that isn't possible.
///
/// # Panics
/// If it should be possible and isn't.
pub fn mount(machine: &Arc<Machine>, drive: usize, path: &Path) -> Option<BackgroundSession> {
    let mounted = Mounted {
        machine: Arc::clone(machine),
        drive,
    };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("syncnet-test".to_owned()), MountOption::NoAtime];
    match Session::new(mounted, path, &config).and_then(Session::spawn) {
        Ok(session) => Some(session),
        Err(error) => {
            let why = obstacle();
            assert!(why.is_some(), "a file system can be mounted here, but wasn't: {error}");
            // Past the test harness, which shows what is printed only of tests that fail.
            let line = format!("SKIPPED: no power cuts: {}: {error}\n", why.unwrap_or_default());
            let _ = io::stderr().write_all(line.as_bytes());
            assert!(std::env::var("CI").is_err(), "continuous integration skips nothing");
            None
        }
    }
}

/// Why file systems of tests can't be mounted on this machine.
fn obstacle() -> Option<String> {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    if let Err(error) = opened {
        return Some(format!("/dev/fuse can't be opened ({error})"));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // CAP_SYS_ADMIN: may mount.
    let capable = |set: &str| {
        let hex = status.lines().find_map(|line| line.strip_prefix(set));
        let bits = hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        bits.is_none_or(|bits| bits & (1 << 21) != 0)
    };
    if !capable("CapBnd:") {
        return Some("nobody may mount here, as in many containers".to_owned());
    }
    if capable("CapEff:") {
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let helper = |name| std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    if helper("fusermount3") || helper("fusermount") {
        return None;
    }
    Some("neither is this root nor is fusermount3 installed".to_owned())
}

fn name_of(name: &OsStr) -> Result<&str, Errno> {
    name.to_str().ok_or(Errno::EINVAL)
}

fn attributes(disk: &Disk, ino: u64, request: &Request) -> Result<FileAttr, Errno> {
    let (kind, size, perm) = match disk.node(ino)? {
        Node::File(file) => (FileType::RegularFile, file.bytes.len() as u64, 0o600),
        Node::Folder(_) => (FileType::Directory, 0, 0o700),
    };
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: request.uid(),
        gid: request.gid(),
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    })
}

impl Mounted {
    fn look<T>(&self, look: impl FnOnce(&mut Disk) -> Result<T, Errno>) -> Result<T, Errno> {
        self.machine.look(self.drive, look)
    }

    fn change<T>(&self, change: &Change<'_>, act: impl FnOnce(&mut Disk) -> Result<T, Errno>) -> Result<T, Errno> {
        self.machine.change(self.drive, change, act)
    }

    fn add(&self, request: &Request, folder: INodeNo, name: &OsStr, file: bool) -> Result<FileAttr, Errno> {
        let name = name_of(name)?;
        let node = if file {
            Node::File(File::named(name))
        } else {
            Node::Folder(Folder::default())
        };
        self.change(&Change::Name, |disk| {
            let ino = disk.add(folder.0, name, node)?;
            attributes(disk, ino, request)
        })
    }

    fn remove(&self, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(
            reply,
            name_of(name).and_then(|name| self.change(&Change::Name, |disk| disk.remove(folder.0, name))),
        );
    }
}

fn done(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(reply: ReplyEntry, outcome: Result<FileAttr, Errno>) {
    match outcome {
        Ok(attributes) => reply.entry(&TTL, &attributes, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn attr(reply: ReplyAttr, outcome: Result<FileAttr, Errno>) {
    match outcome {
        Ok(attributes) => reply.attr(&TTL, &attributes),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = name_of(name).and_then(|name| {
            self.look(|disk| {
                let ino = disk.find(parent.0, name)?;
                attributes(disk, ino, request)
            })
        });
        entry(reply, found);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attr(reply, self.look(|disk| attributes(disk, ino.0, request)));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let sized = match size {
            Some(size) => self.change(&Change::Size(ino.0), |disk| {
                disk.file(ino.0)?.set_size(size as usize);
                Ok(())
            }),
            None => Ok(()),
        };
        attr(
            reply,
            sized.and_then(|()| self.look(|disk| attributes(disk, ino.0, request))),
        );
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(reply, self.add(request, parent, name, false));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = match (name_of(name), name_of(new_name)) {
            _ if !flags.is_empty() => Err(Errno::EINVAL),
            (Ok(name), Ok(new_name)) => self.change(&Change::Name, |disk| {
                disk.rename((parent.0, name), (new_parent.0, new_name))
            }),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        done(reply, renamed);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.add(request, parent, name, true) {
            Ok(attributes) => {
                reply.created(
                    &TTL,
                    &attributes,
                    GENERATION,
                    FileHandle(0),
                    FopenFlags::FOPEN_DIRECT_IO,
                );
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.look(|disk| disk.file(ino.0).map(|_| ())) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.look(|disk| Ok(disk.file(ino.0)?.read(offset, size as usize).to_vec())) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.change(&Change::Write(ino.0, offset, bytes), |disk| {
            disk.file(ino.0)?.write(offset, bytes);
            Ok(())
        });
        match written {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let synced = self.change(&Change::Sync(ino.0), |disk| {
            disk.file(ino.0)?.sync();
            Ok(())
        });
        done(reply, synced);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        done(reply, self.change(&Change::NameSync, |disk| disk.sync_folder(ino.0)));
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.look(|disk| {
            let mut all = vec![(ino.0, FileType::Directory, ".".to_owned())];
            all.push((ino.0, FileType::Directory, "..".to_owned()));
            for (name, &ino) in &disk.folder(ino.0)?.names {
                let kind = match disk.node(ino)? {
                    Node::File(_) => FileType::RegularFile,
                    Node::Folder(_) => FileType::Directory,
                };
                all.push((ino, kind, name.clone()));
            }
            Ok(all)
        });
        match listed {
            Ok(all) => {
                for (at, (ino, kind, name)) in all.into_iter().enumerate().skip(offset as usize) {
                    if reply.add(INodeNo(ino), at as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // 16 GiB, all of it free.
        let blocks = 1 << 22;
        reply.statfs(blocks, blocks, blocks, blocks, blocks, PAGE as u32, 255, PAGE as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file makes nothing durable. The system doesn't ask again.
        reply.error(Errno::ENOSYS);
    }
}
