//! The client's key: 32 random bytes that hold its name. Made once for a user of this machine; two clients that start at once
//! end with the same one.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// A client's key.
pub type Key = [u8; 32];

/// The key to use, and what the user should hear about it: the key of the file, a new one that is in the file from now on, or,
/// if nothing can be read or written, one for this run alone.
#[must_use]
pub fn load(path: Option<&Path>) -> (Key, Option<String>) {
    match path {
        Some(path) => load_from(path),
        None => (
            random(),
            Some("there is no home directory; the name is held by this run alone".into()),
        ),
    }
}

fn load_from(path: &Path) -> (Key, Option<String>) {
    match read_or_make(path) {
        Ok(key) => (key, None),
        Err(error) => {
            let text = format!(
                "the client key {} can't be used ({error}); the name is held by this run alone",
                path.display()
            );
            (random(), Some(text))
        }
    }
}

/// A secret for one session.
#[must_use]
pub fn session_secret() -> [u8; 16] {
    let mut secret = [0; 16];
    fill(&mut secret);
    secret
}

fn read_or_make(path: &Path) -> io::Result<Key> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // 1. Another client may do the same at this moment, and this one may be killed half-way: so the key is complete, on the
    //    disk, under a name of its own, before it gets the name under which others look for it.
    // 2. A hard link, unlike a rename, fails if the name exists: whoever comes second takes the key of the first.
    let own = path.with_extension(format!("{}-{:x}", std::process::id(), getrandom::u64().unwrap_or(0)));
    let made = make(&own).and_then(|()| fs::hard_link(&own, path));
    let _ = fs::remove_file(&own);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => read(path),
    }
}

fn make(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&random())?;
    file.sync_all()
}

fn read(path: &Path) -> io::Result<Key> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(33).read_to_end(&mut bytes)?;
    let wrong = |bytes: Vec<u8>| {
        let text = format!("it has {} bytes, not 32; remove it to get another", bytes.len());
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    bytes.try_into().map_err(wrong)
}

fn random() -> Key {
    let mut key = [0; 32];
    fill(&mut key);
    key
}

fn fill(bytes: &mut [u8]) {
    let filled = getrandom::fill(bytes);
    assert!(filled.is_ok(), "the system gives no random numbers: {filled:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn clients_that_start_at_once_get_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/syncnet/key");
        let keys: Vec<(Key, Option<String>)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| load_from(&path))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0] && key.1.is_none()), "{keys:?}");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "nothing else is left behind");
    }

    #[test]
    fn without_a_place_to_write_there_is_a_key_for_this_run() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"x").unwrap();
        let (one, note) = load_from(&file.join("key"));
        assert!(note.is_some());
        assert_ne!(one, load_from(&file.join("key")).0);
        let (_, note) = load_from(&file);
        assert!(note.unwrap().contains("not 32"));
    }
}
