//! The data directory of one server: locked while the server runs, with an identity of its own. The identity is random and
//! made once: a server that lost its directory is another voter, and the records of one directory mean nothing in another.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::aside::{go_on_setting_aside, set_aside};
use super::disk::{Disk, DiskFile, RealDisk};
use super::segment::{self, FOLDER};
use crate::types::{Boot, DirectoryId, Lsn, ServerId};

const LOCK: &str = "lock";
pub(super) const IDENTITY: &str = "identity";
/// Bytes of an identity file, or a plan, at most: of a longer one only the beginning is read.
const IDENTITY_BYTES_MAX: u64 = 4096;

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    /// Its random id.
    pub directory: DirectoryId,
    /// How often it has been started, this time included.
    pub boot: Boot,
    /// The end of the log when it was last opened: it can't end before that. 0 if it has never been.
    pub log_end: Lsn,
    /// Whether it took the place of another that was set aside: what that one promised isn't known here.
    pub replaced: bool,
    path: PathBuf,
    identity: Identity,
    disk: RealDisk,
    /// The lock ends with the descriptor.
    _lock: File,
}

/// Why a data directory can't be used.
#[derive(Debug)]
pub enum DirError {
    /// Another process uses it.
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// The system doesn't let us.
    NotPermitted {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It belongs to another server.
    OtherServer {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        theirs: ServerId,
        /// Whose it should be.
        ours: ServerId,
    },
    /// Its identity can't be trusted.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// The disk refused.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for DirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DirError::Taken { path } => {
                write!(f, "{}: another syncnetd is using this data directory", path.display())
            }
            DirError::NotPermitted { path, error } | DirError::Io { path, error } => {
                write!(f, "{}: {error}", path.display())
            }
            DirError::OtherServer { path, theirs, ours } => write!(
                f,
                "{}: this data directory belongs to server {theirs}, not to {ours}; give each server its own",
                path.display()
            ),
            DirError::Damaged { path, text } => write!(f, "damaged: {} at offset 0: {text}", path.display()),
        }
    }
}

impl std::error::Error for DirError {}

/// Names the path in an error of the system.
fn at(path: &Path) -> impl FnOnce(io::Error) -> DirError + use<> {
    let path = path.to_path_buf();
    move |error| match error.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::AlreadyExists => DirError::NotPermitted { path, error },
        _ => DirError::Io { path, error },
    }
}

impl DataDir {
    /// Opens the data directory of a server for this process alone, and counts the start. Makes it if it isn't there.
    ///
    /// # Errors
    /// [`DirError`]: nothing was changed but for the lock file, unless it is `Io`.
    ///
    /// `Damaged` can be answered with [`set_aside`](DataDir::set_aside).
    pub fn open(path: &Path, server: ServerId) -> Result<DataDir, DirError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(at(path))?;
        let lock = take_lock(path)?;
        if !path.join(IDENTITY).exists() {
            sync_way_to(path).map_err(at(path))?;
        }
        let disk = RealDisk::new(path);
        let identity = open_identity(&disk, path, server)?;
        Ok(DataDir {
            directory: identity.directory,
            boot: identity.boot,
            log_end: identity.log_end,
            replaced: identity.replaced,
            path: path.to_path_buf(),
            identity,
            disk,
            _lock: lock,
        })
    }

    /// Remembers how far the log reaches: one that ends before that has lost something, however whole it looks.
    ///
    /// # Errors
    /// [`DirError::Io`] or [`DirError::NotPermitted`].
    pub fn log_reached(&mut self, end: Lsn) -> Result<(), DirError> {
        self.identity.log_end = end;
        let name = self.path.join(IDENTITY);
        replace_file(&self.disk, IDENTITY, self.identity.to_text().as_bytes()).map_err(at(&name))
    }

    /// Puts everything in a directory that can't be trusted any more into a folder `quarantine/N` in it, with the reason, and makes it a
    /// new one: with a new id, `replaced`, without a log. An end in the middle is gone on from by the next [`open`](DataDir::open).
    /// The directory must not be open. Gives the folder.
    ///
    /// # Errors
    /// [`DirError`].
    pub fn set_aside(path: &Path, server: ServerId, why: &str) -> Result<PathBuf, DirError> {
        let _lock = take_lock(path)?;
        let disk = RealDisk::new(path);
        let directory = random_id().map_err(at(path))?;
        let folder = set_aside(&disk, server, directory, why).map_err(at(path))?;
        Ok(path.join(folder))
    }

    /// Its files.
    #[must_use]
    pub fn disk(&self) -> RealDisk {
        self.disk.clone()
    }
}

/// Makes durable the names by which a new directory is found, up to where its file system begins: whatever is synced in it would be
/// gone with one of them. Not only those that this start made, for an earlier one may have ended before it came to this.
fn sync_way_to(path: &Path) -> io::Result<()> {
    let path = path.canonicalize()?;
    let device = path.metadata()?.dev();
    for folder in path.ancestors().skip(1) {
        if folder.metadata()?.dev() != device {
            break;
        }
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            // We may open what we made.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<File, DirError> {
    let name = path.join(LOCK);
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&name);
    let mut file = file.map_err(at(&name))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(DirError::Taken {
                path: path.to_path_buf(),
            });
        }
        Err(error) => return Err(at(&name)(error.into())),
    }
    // For people who wonder whose lock it is; nothing depends on it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Whether a server has a data directory open. For a moment this takes a share of the lock, so that a server that starts in just that
/// moment would take the directory for taken; nothing is written.
///
/// # Errors
/// [`DirError::Io`] or [`DirError::NotPermitted`].
pub fn is_in_use(path: &Path) -> Result<bool, DirError> {
    let name = path.join(LOCK);
    let file = match File::open(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file.map_err(at(&name))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(at(&name)(error.into())),
    }
}

/// Reads the identity of a data directory and changes nothing. `None` if there is none, and no log either: it is no data directory.
///
/// # Errors
/// [`DirError`]: `Damaged` if there is a log and no identity that can be read.
pub fn look_at_identity<D: Disk>(disk: &D, path: &Path) -> Result<Option<Identity>, DirError> {
    let name = path.join(IDENTITY);
    let damaged = |text: &str| DirError::Damaged {
        path: name.clone(),
        text: text.to_owned(),
    };
    match read_file(disk, IDENTITY) {
        Ok(bytes) => {
            let identity = std::str::from_utf8(&bytes).ok().and_then(Identity::parse);
            identity.map(Some).ok_or_else(|| damaged("the identity can't be read"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let files = disk.list(FOLDER).unwrap_or_default();
            if files.iter().any(|file| segment::base_of(file).is_some()) {
                return Err(damaged("the identity is missing, but there is a log"));
            }
            Ok(None)
        }
        Err(error) => Err(at(&name)(error)),
    }
}

/// What the identity file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Whose directory it is.
    pub server: ServerId,
    /// Its random id.
    pub directory: DirectoryId,
    /// How often it has been started.
    pub boot: Boot,
    /// The end of the log when it was last opened; 0 before its first segment.
    pub log_end: Lsn,
    /// Whether the directory took the place of another.
    pub replaced: bool,
}

/// Reads the identity, or makes one for a directory without a log; counts the start.
pub(super) fn open_identity<D: Disk>(disk: &D, path: &Path, server: ServerId) -> Result<Identity, DirError> {
    let name = path.join(IDENTITY);
    let damaged = |text: &str| DirError::Damaged {
        path: name.clone(),
        text: text.to_owned(),
    };
    go_on_setting_aside(disk).map_err(at(path))?;
    let mut identity = match read_file(disk, IDENTITY) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).ok();
            let identity = text.as_deref().and_then(Identity::parse);
            identity.ok_or_else(|| damaged("the identity can't be read"))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // With a new id all records would look torn, and recovery would cut them all.
            let files = disk.list(FOLDER).unwrap_or_default();
            if files.iter().any(|file| segment::base_of(file).is_some()) {
                return Err(damaged("the identity is missing, but there is a log"));
            }
            Identity {
                server,
                directory: random_id().map_err(at(path))?,
                boot: Boot(0),
                log_end: Lsn(0),
                replaced: false,
            }
        }
        Err(error) => return Err(at(&name)(error)),
    };
    if identity.server != server {
        return Err(DirError::OtherServer {
            path: path.to_path_buf(),
            theirs: identity.server,
            ours: server,
        });
    }
    identity.boot = identity.boot.next();
    replace_file(disk, IDENTITY, identity.to_text().as_bytes()).map_err(at(&name))?;
    Ok(identity)
}

fn random_id() -> io::Result<DirectoryId> {
    loop {
        match getrandom::u64() {
            Ok(0) => {}
            Ok(id) => return Ok(DirectoryId(id)),
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
    }
}

pub(super) fn read_file<D: Disk>(disk: &D, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let mut bytes = vec![0; file.size()?.min(IDENTITY_BYTES_MAX) as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// After a crash the file is either the old or the new one.
pub(super) fn replace_file<D: Disk>(disk: &D, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    remove_if_there(disk, &temporary)?;
    let file = disk.create(&temporary)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, name)?;
    disk.sync_dir(name.rsplit_once('/').map_or("", |(folder, _)| folder))
}

fn remove_if_there<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Identity {
    pub(super) fn to_text(self) -> String {
        let text = format!(
            "syncnet identity 1\nserver {}\ndirectory {:016x}\nboot {}\nlog {}\nreplaced {}\n",
            self.server,
            self.directory.0,
            self.boot,
            self.log_end,
            if self.replaced { "yes" } else { "no" }
        );
        format!("{text}check {:08x}\n", crc32c::crc32c(text.as_bytes()))
    }

    /// `None` unless it is exactly what `to_text` makes.
    pub(super) fn parse(text: &str) -> Option<Identity> {
        let mut lines = text.lines().skip(1);
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let identity = Identity {
            server: ServerId::new(field("server")?)?,
            directory: DirectoryId(u64::from_str_radix(field("directory")?, 16).ok()?),
            boot: Boot(field("boot")?.parse().ok()?),
            log_end: Lsn(field("log")?.parse().ok()?),
            replaced: field("replaced")? == "yes",
        };
        (identity.to_text() == text && identity.directory.0 != 0).then_some(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::sim_disk::SimDisk;
    use crate::rng::Rng;

    fn server(id: &str) -> ServerId {
        ServerId::new(id).unwrap()
    }

    #[test]
    fn a_directory_keeps_its_id_and_counts_its_starts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/server1");
        let first = DataDir::open(&path, server("server1")).unwrap();
        assert_eq!(first.boot, Boot(1));
        let directory = first.directory;
        assert_ne!(directory, DirectoryId(0));
        assert_eq!(first.disk().list("").unwrap(), ["identity", "lock"]);
        drop(first);
        let second = DataDir::open(&path, server("server1")).unwrap();
        assert_eq!((second.directory, second.boot), (directory, Boot(2)));
        let other = DataDir::open(&folder.path().join("data/server2"), server("server2")).unwrap();
        assert_ne!(other.directory, directory);
    }

    #[test]
    fn a_directory_is_used_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path(), server("server1")).unwrap();
        match DataDir::open(folder.path(), server("server1")) {
            Err(error @ DirError::Taken { .. }) => {
                let text = error.to_string();
                assert!(text.contains(&folder.path().display().to_string()) && text.contains("another syncnetd"));
            }
            other => panic!("{other:?}"),
        }
        drop(first);
        assert_eq!(DataDir::open(folder.path(), server("server1")).unwrap().boot, Boot(2));
    }

    #[test]
    fn a_directory_of_another_server_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(DataDir::open(folder.path(), server("server1")).unwrap());
        let error = DataDir::open(folder.path(), server("server2")).unwrap_err();
        assert!(matches!(error, DirError::OtherServer { .. }));
        assert!(error.to_string().contains("belongs to server server1"), "{error}");
    }

    #[test]
    fn every_change_of_the_identity_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        drop(DataDir::open(folder.path(), server("server1")).unwrap());
        let name = folder.path().join(IDENTITY);
        let good = std::fs::read(&name).unwrap();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            std::fs::write(&name, &bytes).unwrap();
            let error = DataDir::open(folder.path(), server("server1")).unwrap_err();
            assert!(error.to_string().starts_with("damaged: "), "byte {at}: {error}");
        }
        std::fs::write(&name, b"").unwrap();
        assert!(DataDir::open(folder.path(), server("server1")).is_err());
        std::fs::write(&name, &good).unwrap();
        assert_eq!(DataDir::open(folder.path(), server("server1")).unwrap().boot, Boot(2));
    }

    #[test]
    fn a_log_without_an_identity_gets_no_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let opened = DataDir::open(folder.path(), server("server1")).unwrap();
        opened.disk().create_folder(FOLDER).unwrap();
        opened.disk().create(&segment::file_name(crate::types::Lsn(0))).unwrap();
        drop(opened);
        std::fs::remove_file(folder.path().join(IDENTITY)).unwrap();
        let error = DataDir::open(folder.path(), server("server1")).unwrap_err();
        assert!(matches!(error, DirError::Damaged { .. }), "{error}");
    }

    #[test]
    fn what_is_set_aside_is_kept_with_the_reason_and_a_new_identity_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let opened = DataDir::open(folder.path(), server("server1")).unwrap();
        assert!(!opened.replaced);
        let old = opened.directory;
        opened.disk().create_folder(FOLDER).unwrap();
        opened.disk().create(&segment::file_name(Lsn(0))).unwrap();
        assert!(matches!(
            DataDir::set_aside(folder.path(), server("server1"), "why"),
            Err(DirError::Taken { .. })
        ));
        drop(opened);
        std::fs::write(folder.path().join(IDENTITY), b"nonsense").unwrap();
        let error = DataDir::open(folder.path(), server("server1")).unwrap_err();
        assert!(matches!(error, DirError::Damaged { .. }));
        let aside = DataDir::set_aside(folder.path(), server("server1"), "a vote\nis lost").unwrap();
        assert_eq!(aside, folder.path().join("quarantine/1"));
        assert_eq!(
            std::fs::read_to_string(aside.join("reason")).unwrap(),
            "a vote is lost\n"
        );
        assert_eq!(std::fs::read(aside.join(IDENTITY)).unwrap(), b"nonsense");
        assert!(aside.join(segment::file_name(Lsn(0))).exists());
        let opened = DataDir::open(folder.path(), server("server1")).unwrap();
        assert!(opened.replaced && opened.boot == Boot(1) && opened.directory != old);
        assert_eq!(opened.log_end, Lsn(0));
        assert_eq!(opened.disk().list("").unwrap(), ["identity", "lock"]);
        drop(opened);
        // And once more, without a log.
        let again = DataDir::set_aside(folder.path(), server("server1"), "again").unwrap();
        assert_eq!(again, folder.path().join("quarantine/2"));
        assert!(DataDir::open(folder.path(), server("server1")).unwrap().replaced);
    }

    #[test]
    fn a_path_that_cannot_be_a_directory_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"").unwrap();
        let error = DataDir::open(&path.join("data"), server("server1")).unwrap_err();
        assert!(error.to_string().contains("file/data"), "{error}");
    }

    #[test]
    fn no_end_at_any_point_loses_the_identity_or_a_boot() {
        for seed in 0..200 {
            let (disk, mut rng) = (SimDisk::new(), Rng::new(seed));
            let mut last: Option<(DirectoryId, Boot)> = None;
            for _ in 0..8 {
                disk.stop_after(rng.below(8));
                match open_identity(&disk, Path::new("data"), server("server1")) {
                    Ok(Identity { directory, boot, .. }) => {
                        if let Some((known, before)) = last {
                            assert_eq!(directory, known);
                            assert!(boot > before, "seed {seed}");
                        }
                        last = Some((directory, boot));
                    }
                    Err(DirError::Io { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
                disk.power_cut(&mut rng);
            }
        }
    }
}
