//! Log lines: formed by `simplelog`, handed over a bounded channel, written by a thread of its own. A full channel counts and drops,
//! so a log file on a slow disk, or a terminal that somebody has stopped, never holds up the poll loop.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, WriteLogger, format_description};

use crate::limits;

/// Longest wait for the lines that are still on their way when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// What the thread is to do.
enum Job {
    Line(Vec<u8>),
    Reopen,
    Flush(Sender<()>),
}

/// The hold on the log's thread.
#[derive(Clone, Debug)]
pub struct Logging {
    jobs: Sender<Job>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a job of the log")
    }
}

impl Logging {
    /// Starts the log of this process: to a file, or to standard error.
    ///
    /// # Errors
    /// When the file can't be opened, or the process has a log already.
    pub fn start(level: LevelFilter, file: Option<&Path>) -> io::Result<Logging> {
        let out = match file {
            Some(path) => Out::File(path.to_owned(), append_to(path)?),
            None => Out::Stderr,
        };
        let (jobs, receiver) = bounded(limits::LOG_LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let lines = Lines {
            jobs: jobs.clone(),
            line: Vec::new(),
            dropped: Arc::clone(&dropped),
        };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || work(&receiver, out, &dropped))?;
        let logger = Logger {
            inner: WriteLogger::new(level, form(), lines),
            level,
        };
        log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
        log::set_max_level(level);
        Ok(Logging { jobs })
    }

    /// Opens the file anew: it was moved away.
    pub fn reopen(&self) {
        let _ = self.jobs.try_send(Job::Reopen);
    }

    /// Waits, but not for long, until everything so far is written. For the end of the process.
    pub fn flush(&self) {
        let (done, wait) = bounded(1);
        if self.jobs.send_timeout(Job::Flush(done), FLUSH_TIMEOUT).is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

fn form() -> simplelog::Config {
    ConfigBuilder::new()
        .set_time_format_custom(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ))
        .set_max_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build()
}

/// Puts the level without brackets before the text, and keeps control characters out: a name or an agent that a stranger sent
/// must not be able to write a line of its own, or to a terminal.
struct Logger {
    inner: Box<WriteLogger<Lines>>,
    level: LevelFilter,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = clean(&record.args().to_string());
        let level = record.level();
        self.inner.log(
            &Record::builder()
                .metadata(record.metadata().clone())
                .args(format_args!("{level:<5} {text}"))
                .build(),
        );
    }

    fn flush(&self) {}
}

fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Gathers what `simplelog` writes in pieces, and hands whole lines over.
struct Lines {
    jobs: Sender<Job>,
    line: Vec<u8>,
    dropped: Arc<AtomicU64>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") && self.jobs.try_send(Job::Line(std::mem::take(&mut self.line))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where lines go.
enum Out {
    Stderr,
    File(PathBuf, File),
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Out {
    fn write(&mut self, bytes: &[u8]) {
        // A log that can't be written is no reason to stop a cluster.
        let _ = match self {
            Out::Stderr => io::stderr().write_all(bytes),
            Out::File(_, file) => file.write_all(bytes),
        };
    }

    fn reopen(&mut self) {
        if let Out::File(path, file) = self
            && let Ok(new) = append_to(path)
        {
            *file = new;
        }
    }
}

fn work(jobs: &Receiver<Job>, mut out: Out, dropped: &AtomicU64) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Line(line) => out.write(&line),
            Job::Reopen => out.reopen(),
            Job::Flush(done) => {
                let _ = done.send(());
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            out.write(format!("({lost} log lines were dropped: the log can't be written fast enough)\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    fn logger(channel: usize) -> (Logger, Receiver<Job>, Arc<AtomicU64>) {
        let (jobs, receiver) = bounded(channel);
        let dropped = Arc::new(AtomicU64::new(0));
        let lines = Lines {
            jobs,
            line: Vec::new(),
            dropped: Arc::clone(&dropped),
        };
        let level = LevelFilter::Info;
        (
            Logger {
                inner: WriteLogger::new(level, form(), lines),
                level,
            },
            receiver,
            dropped,
        )
    }

    fn say(logger: &Logger, level: Level, text: &str) {
        logger.log(&Record::builder().level(level).args(format_args!("{text}")).build());
    }

    #[test]
    fn a_line_has_time_level_and_text() {
        let (logger, jobs, _) = logger(8);
        say(&logger, Level::Info, "it works");
        say(&logger, Level::Debug, "not this");
        let Ok(Job::Line(line)) = jobs.try_recv() else {
            panic!("a line")
        };
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line.len(), "2026-11-20T13:00:00.123Z INFO  it works\n".len(), "{line}");
        assert!(line.ends_with("Z INFO  it works\n"), "{line}");
        assert!(jobs.try_recv().is_err());
    }

    #[test]
    fn a_stranger_cannot_write_a_line_of_its_own() {
        let (logger, jobs, _) = logger(8);
        say(&logger, Level::Warn, "name\n2026-11-20 forged\x1b[2J");
        let Ok(Job::Line(line)) = jobs.try_recv() else {
            panic!("a line")
        };
        assert_eq!(
            line.iter().filter(|b| **b < b' ').count(),
            1,
            "only the end of the line"
        );
        assert!(jobs.try_recv().is_err());
    }

    #[test]
    fn a_full_channel_drops_and_counts() {
        let (logger, jobs, dropped) = logger(2);
        for n in 0..5 {
            say(&logger, Level::Error, &n.to_string());
        }
        assert_eq!(jobs.len(), 2);
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    }
}
