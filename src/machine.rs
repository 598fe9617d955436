//! What the system says of this process, and grants it: processor time, memory, processors, descriptors.

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::types::Usage;

/// What this process has used until now, and where the calling thread runs.
#[must_use]
pub fn usage() -> Usage {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let total_us = time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1000;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let [user, pages] = fields(&stat).unwrap_or_default();
    // The system tells user time in hundredths of a second, and the sum of both to the nanosecond.
    let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let user_us = (user * tick_us).min(total_us);
    Usage {
        user_us,
        system_us: total_us - user_us,
        resident_bytes: pages * rustix::param::page_size() as u64,
        processors: processors(),
        processor: u16::try_from(sched_getcpu()).unwrap_or(u16::MAX),
        turn_most_us: 0,
        turn_longest_us: 0,
    }
}

/// User time in ticks and resident pages of a line of `/proc/PID/stat` (see proc_pid_stat(5)).
fn fields(stat: &str) -> Option<[u64; 2]> {
    // The name of the program stands in brackets, and may hold anything, brackets too.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |n: usize| fields.get(n - 3).and_then(|field| field.parse().ok());
    Some([number(14)?, number(24)?])
}

/// The processors on which the calling thread may run.
#[must_use]
pub fn processors() -> Vec<u16> {
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    let most = u16::try_from(CpuSet::MAX_CPU).unwrap_or(u16::MAX);
    (0..most).filter(|n| set.is_set(usize::from(*n))).collect()
}

/// Keeps the calling thread, and those that it starts from now on, on these processors.
///
/// # Errors
/// What the system says: none of them is there, or may be used.
pub fn pin(processors: &[u16]) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    for n in processors.iter().filter(|n| usize::from(**n) < CpuSet::MAX_CPU) {
        set.set(usize::from(*n));
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Has the calling thread stand back where others of this process want the processor: for work that has time. It must not hold a lock for
/// long that others want. Linux counts niceness by thread, whatever POSIX says; see sched(7).
pub fn stand_back() {
    // Where it isn't granted, everything goes on as before.
    let _ = rustix::process::nice(10);
}

/// Asks for so many descriptors for this process, and gives how many it may have.
#[must_use]
pub fn raise_descriptors(wanted: u64) -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if let (Some(current), maximum) = (limit.current, limit.maximum)
        && current < wanted
    {
        limit.current = Some(maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            log::warn!("the limit of open files stays at {current}: {error}");
            limit.current = Some(current);
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_stands_back_is_nicer() {
        let nice = || rustix::process::nice(0).unwrap();
        let before = nice();
        let there = std::thread::spawn(move || {
            stand_back();
            nice()
        });
        assert_eq!(there.join().unwrap(), (before + 10).min(19));
        assert_eq!(nice(), before);
    }

    #[test]
    fn a_name_can_not_forge_the_fields() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 700 80 0 0 20 0 9 0 22 23 2400 25";
        let stat = format!("4711 (a) 1 (b) {rest}\n");
        assert_eq!(fields(&stat), Some([700, 2400]));
        assert_eq!(fields("4711 (a) S 1 2"), None);
        assert_eq!(fields(""), None);
    }

    #[test]
    fn this_process_uses_something() {
        let before = usage();
        let mut sum = 0_u64;
        while usage().user_us + usage().system_us < before.user_us + before.system_us + 1000 {
            sum = sum.wrapping_add(1);
        }
        let after = usage();
        assert!(
            after.user_us + after.system_us > before.user_us + before.system_us,
            "{sum}"
        );
        assert!(after.resident_bytes > 100_000, "{after:?}");
        assert!(!after.processors.is_empty());
    }

    #[test]
    fn a_thread_can_be_pinned() {
        let pinned = std::thread::spawn(|| {
            let first = processors()[0];
            pin(&[first]).unwrap();
            (processors(), first, usage().processor)
        });
        let (processors, first, runs) = pinned.join().unwrap();
        assert_eq!((processors, runs), (vec![first], first));
        assert!(pin(&[]).is_err());
    }
}
