//! People who write and read all the time, through `syncnet` alone, and what they were told.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::{PATIENCE, wait_until};

/// The room in which everything happens.
pub const ROOM: &str = "ops";
/// Between two lines of a writer.
const PACE: Duration = Duration::from_millis(20);

/// Lines that a program printed, and when they came.
type Lines = Arc<Mutex<Vec<(Instant, String)>>>;

fn held(lines: &Lines) -> MutexGuard<'_, Vec<(Instant, String)>> {
    lines.lock().unwrap_or_else(|e| e.into_inner())
}

/// A program beside the trial, whose lines are kept; killed when this is dropped.
struct Client {
    child: Child,
    lines: Lines,
    reader: Option<JoinHandle<()>>,
}

impl Client {
    fn start(mut command: Command) -> Client {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let out = child.stdout.take().expect("it is piped");
        let lines = Lines::default();
        let shared = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                held(&shared).push((Instant::now(), line));
            }
        });
        Client {
            child,
            lines,
            reader: Some(reader),
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    fn count(&self) -> usize {
        held(&self.lines).len()
    }

    fn text(&self) -> Vec<String> {
        held(&self.lines).iter().map(|(_, line)| line.clone()).collect()
    }

    /// Waits for its end; its exit code.
    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("a child of ours") {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("a client doesn't end"),
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        status.code()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One who writes a numbered line every so often.
struct Writer {
    client: Client,
    fed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    feeder: Option<JoinHandle<()>>,
}

/// What a writer's line says.
fn line_of(writer: &str, number: u64) -> String {
    format!("{writer} {number}")
}

impl Writer {
    fn start(cluster: &Cluster, name: &str) -> Writer {
        let mut client = Client::start(cluster.command("syncnet", &["send", "--json", "--timeout", "0", ROOM]));
        let mut stdin = client.child.stdin.take().expect("it is piped");
        let (fed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (shared, stopped, name) = (Arc::clone(&fed), Arc::clone(&stop), name.to_string());
        let feeder = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = shared.load(Ordering::Relaxed) + 1;
                if stdin.write_all((line_of(&name, number) + "\n").as_bytes()).is_err() {
                    return;
                }
                shared.store(number, Ordering::Relaxed);
                thread::sleep(PACE);
            }
        });
        Writer {
            client,
            fed,
            stop,
            feeder: Some(feeder),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It may wait for the program to read.
        self.client.kill();
        if let Some(feeder) = self.feeder.take() {
            let _ = feeder.join();
        }
    }
}

/// What one writer said, and what it was told.
pub struct Said {
    /// Its lines, in their order.
    pub texts: Vec<String>,
    /// The acknowledgements, as they were printed.
    pub acknowledged: Vec<String>,
}

/// Where a reader stands that counts acknowledgements: how many each writer had said by then.
pub struct Mark(Vec<u64>);

/// All writers and readers of a trial.
pub struct Load {
    writers: Vec<Writer>,
    readers: Vec<Client>,
    /// What others said, who came and went.
    passers_by: Vec<Vec<String>>,
}

impl Load {
    /// Sends people to a cluster.
    pub fn start(cluster: &Cluster, writers: usize, readers: usize) -> Load {
        let read = |_| {
            let args = ["tail", "--json", "--wait", "--after", "0", ROOM];
            Client::start(cluster.command("syncnet", &args))
        };
        Load {
            writers: (1..=writers)
                .map(|n| Writer::start(cluster, &format!("writer{n}")))
                .collect(),
            readers: (0..readers).map(read).collect(),
            passers_by: Vec::new(),
        }
    }

    /// Now.
    pub fn mark(&self) -> Mark {
        Mark(self.writers.iter().map(|w| w.fed.load(Ordering::Relaxed)).collect())
    }

    /// Waits until of each writer some lines are acknowledged which it said after the mark.
    pub fn await_progress(&self, since: &Mark, what: &str) {
        wait_until(&format!("messages are acknowledged again: {what}"), || {
            let mut pairs = self.writers.iter().zip(&since.0);
            pairs.all(|(writer, said)| writer.client.count() as u64 >= said + 5)
        });
    }

    /// The longest that any writer waited between two acknowledgements, of which the second came since then.
    pub fn longest_gap(&self, since: Instant) -> Duration {
        let of = |writer: &Writer| {
            let lines = held(&writer.client.lines);
            let pairs = lines.windows(2).filter(|pair| pair[1].0 >= since);
            pairs.map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default()
        };
        self.writers.iter().map(of).max().unwrap_or_default()
    }

    /// Somebody sends lines under a key, is killed in the middle, and sends them all again.
    pub fn pass_by(&mut self, cluster: &Cluster, key: &str, count: u64) {
        let texts: Vec<String> = (1..=count).map(|n| line_of(key, n)).collect();
        let start = || {
            let args = ["send", "--json", "--timeout", "0", "--id", key, ROOM];
            let mut client = Client::start(cluster.command("syncnet", &args));
            let mut stdin = client.child.stdin.take().expect("it is piped");
            let _ = stdin.write_all((texts.join("\n") + "\n").as_bytes());
            (client, stdin)
        };
        let (mut killed, stdin) = start();
        wait_until("some lines of a passer-by are acknowledged", || killed.count() > 0);
        killed.kill();
        drop(stdin);
        let (mut again, stdin) = start();
        drop(stdin);
        assert_eq!(again.end(), Some(0), "a passer-by who sends again");
        assert_eq!(
            again.count() as u64,
            count,
            "acknowledgements of a passer-by who sends again"
        );
        self.passers_by.push(texts);
    }

    /// Somebody sends so many lines of so many bytes.
    pub fn write(&mut self, cluster: &Cluster, who: &str, count: u64, bytes: usize) {
        let texts: Vec<String> = (1..=count)
            .map(|n| format!("{} {}", line_of(who, n), "x".repeat(bytes)))
            .collect();
        let mut client = Client::start(cluster.command("syncnet", &["send", "--json", "--timeout", "0", ROOM]));
        let mut stdin = client.child.stdin.take().expect("it is piped");
        let _ = stdin.write_all((texts.join("\n") + "\n").as_bytes());
        drop(stdin);
        assert_eq!(client.end(), Some(0), "{who}");
        self.passers_by.push(texts);
    }

    /// Everybody finishes: writers when all is acknowledged. Gives what was said.
    pub fn finish(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        for writer in &self.writers {
            writer.stop.store(true, Ordering::Relaxed);
        }
        for mut writer in self.writers.drain(..) {
            if let Some(feeder) = writer.feeder.take() {
                let _ = feeder.join();
            }
            let name = format!("writer{}", said.len() + 1);
            assert_eq!(writer.client.end(), Some(0), "{name}");
            let fed = writer.fed.load(Ordering::Relaxed);
            said.push(Said {
                texts: (1..=fed).map(|n| line_of(&name, n)).collect(),
                acknowledged: writer.client.text(),
            });
        }
        said
    }

    /// What those said who were killed and came again.
    pub fn passers_by(&self) -> &[Vec<String>] {
        &self.passers_by
    }

    /// What each reader has printed, once all have printed so many lines.
    pub fn read(&self, count: usize) -> Vec<Vec<String>> {
        wait_until(&format!("all readers have {count} messages"), || {
            self.readers.iter().all(|reader| reader.count() >= count)
        });
        self.readers.iter().map(Client::text).collect()
    }
}

/// A number of an object.
pub fn number(value: &Value, field: &str) -> u64 {
    value[field]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {field} in {value}"))
}
