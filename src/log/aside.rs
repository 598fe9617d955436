//! Sets aside what is in a data directory that can't be trusted any more, so that the directory can begin anew and a person can look at the rest.

use std::io;

use super::directory::{IDENTITY, Identity, read_file, replace_file};
use super::disk::Disk;
use super::segment::FOLDER;
use crate::types::{Boot, DirectoryId, Lsn, ServerId};

/// The folder of the checkpoints.
const CHECKPOINTS: &str = "checkpoint";
/// The folder of what was set aside, each time in a folder of its own.
const QUARANTINE: &str = "quarantine";
/// What is being set aside.
const PLAN: &str = "setting-aside";
/// Lines of an identity.
const IDENTITY_LINES: usize = 7;
/// Characters of a reason that are kept: with four bytes each it fits into a plan that is read.
const REASON_CHARS_MAX: usize = 500;

/// What [`DataDir::set_aside`](super::directory::DataDir::set_aside) does, on any disk; `directory` is the new id. Gives the folder.
///
/// 1. A plan is written, which says where to and which id is the new one. From here on every start goes on with it.
/// 2. The folder is made, with the reason in it.
/// 3. The log and the checkpoints are moved there, each at once.
/// 4. The identity is copied there, and then replaced.
/// 5. The plan is removed.
///
/// # Errors
/// What the disk says.
pub fn set_aside<D: Disk>(disk: &D, server: ServerId, directory: DirectoryId, why: &str) -> io::Result<String> {
    // One that was begun is ended first: its plan must not be lost.
    go_on_setting_aside(disk)?;
    let mut number = 1u64;
    while disk.list(&format!("{QUARANTINE}/{number}")).is_ok() {
        number += 1;
    }
    let identity = Identity {
        server,
        directory,
        boot: Boot(0),
        log_end: Lsn(0),
        replaced: true,
    };
    let why: String = why
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(REASON_CHARS_MAX)
        .collect();
    let plan = format!("{}{number}\n{why}\n", identity.to_text());
    replace_file(
        disk,
        PLAN,
        format!("{plan}check {:08x}\n", crc32c::crc32c(plan.as_bytes())).as_bytes(),
    )?;
    go_on_setting_aside(disk)?;
    Ok(format!("{QUARANTINE}/{number}"))
}

/// Does what a plan says, from wherever it was left; nothing if there is none.
pub(super) fn go_on_setting_aside<D: Disk>(disk: &D) -> io::Result<()> {
    let bytes = match read_file(disk, PLAN) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        bytes => bytes?,
    };
    let plan = String::from_utf8(bytes).ok();
    let Some((identity, number, why)) = plan.as_deref().and_then(parse_plan) else {
        let text = format!("damaged: {PLAN} at offset 0: it can't be read; look into {QUARANTINE}, then remove it");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    };
    let folder = format!("{QUARANTINE}/{number}");
    disk.create_folder(QUARANTINE)?;
    disk.create_folder(&folder)?;
    replace_file(disk, &format!("{folder}/reason"), format!("{why}\n").as_bytes())?;
    for moved in [FOLDER, CHECKPOINTS] {
        match disk.rename_folder(moved, &format!("{folder}/{moved}")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let new = identity.to_text();
    match read_file(disk, IDENTITY) {
        Ok(bytes) if bytes == new.as_bytes() => {}
        Ok(bytes) => {
            replace_file(disk, &format!("{folder}/{IDENTITY}"), &bytes)?;
            replace_file(disk, IDENTITY, new.as_bytes())?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace_file(disk, IDENTITY, new.as_bytes())?,
        Err(error) => return Err(error),
    }
    disk.remove(PLAN)?;
    disk.sync_dir("")
}

/// The new identity, the number of the folder, the reason.
fn parse_plan(text: &str) -> Option<(Identity, u64, &str)> {
    let body = text.rfind("check ").map(|at| &text[..at])?;
    if format!("{body}check {:08x}\n", crc32c::crc32c(body.as_bytes())) != text {
        return None;
    }
    let end = body.match_indices('\n').nth(IDENTITY_LINES - 1)?.0 + 1;
    let identity = Identity::parse(&body[..end])?;
    let (number, why) = body[end..].split_once('\n')?;
    Some((identity, number.parse().ok()?, why.trim_end_matches('\n')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::directory::open_identity;
    use crate::log::disk::DiskFile;
    use crate::log::segment;
    use crate::log::sim_disk::SimDisk;
    use crate::rng::Rng;
    use std::path::Path;

    fn server(id: &str) -> ServerId {
        ServerId::new(id).unwrap()
    }

    #[test]
    fn setting_aside_goes_on_after_an_end_at_any_point() {
        for seed in 0..300 {
            let (disk, mut rng) = (SimDisk::new(), Rng::new(seed));
            open_identity(&disk, Path::new("data"), server("server1")).unwrap();
            disk.create_folder(FOLDER).unwrap();
            let file = disk.create(&segment::file_name(Lsn(0))).unwrap();
            file.write_at(b"records", 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(FOLDER).unwrap();
            let old = disk.contents(IDENTITY).unwrap();
            disk.stop_after(rng.below(30));
            let done = set_aside(&disk, server("server1"), DirectoryId(5), "why").is_ok();
            disk.power_cut(&mut rng);
            for _ in 0..3 {
                disk.stop_after(rng.below(30));
                drop(open_identity(&disk, Path::new("data"), server("server1")));
                disk.power_cut(&mut rng);
            }
            let identity = open_identity(&disk, Path::new("data"), server("server1")).unwrap();
            assert!(disk.open(PLAN).is_err());
            if identity.directory == DirectoryId(5) {
                assert!(identity.replaced);
                let kept = disk.contents(&format!("{QUARANTINE}/1/{}", segment::file_name(Lsn(0))));
                assert_eq!(kept.unwrap(), b"records", "seed {seed}");
                let kept = disk.contents(&format!("{QUARANTINE}/1/{IDENTITY}")).unwrap();
                // It may have counted a start, if the plan wasn't durable yet; it is the old one all the same.
                assert_eq!(kept[..50], old[..50], "seed {seed}");
                assert!(disk.list(FOLDER).is_err());
            } else {
                // Nothing has happened: not even the plan was durable.
                assert!(!done && !identity.replaced, "seed {seed}");
                assert_eq!(disk.contents(&segment::file_name(Lsn(0))).unwrap(), b"records");
            }
        }
    }
}
