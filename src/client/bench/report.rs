//! What is printed at the end of a benchmark, for people and for programs.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::crew::Cluster;
use super::gaps::median;
use super::meter::{Bill, Spent};
use crate::client::programs;

/// A generator that is busy for more than this share of the time is itself what limits the rate.
const BUSY_MAX: f64 = 0.9;
/// A generator that is later than this with one message in a hundred measures itself: milliseconds.
const LATE_MS_MAX: f64 = 1.0;

/// Times, in nanoseconds, to three digits.
pub struct Latencies(Option<Histogram<u64>>);

impl Latencies {
    /// None yet.
    #[must_use]
    pub fn new() -> Latencies {
        // One hour at most; these bounds are always valid.
        Latencies(Histogram::new_with_bounds(1, 3_600_000_000_000, 3).ok())
    }

    /// One more.
    pub fn record(&mut self, ns: u64) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(ns);
        }
    }

    fn summary(&self) -> Option<Latency> {
        let histogram = self.0.as_ref().filter(|histogram| !histogram.is_empty())?;
        let at = |quantile: f64| ms(histogram.value_at_quantile(quantile) as f64 / 1e6);
        Some(Latency {
            p50: at(0.5),
            p99: at(0.99),
            p99_9: at(0.999),
            max: ms(histogram.max() as f64 / 1e6),
        })
    }
}

/// Milliseconds, to the microsecond.
fn ms(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

fn three(n: f64) -> f64 {
    (n * 1000.0).round() / 1000.0
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Process {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    user_s: Option<f64>,
    system_s: Option<f64>,
    memory_before: Option<u64>,
    memory_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_connection: Option<i64>,
    processors: Option<Vec<u16>>,
    processor: Option<u16>,
    /// Of the poll loop's last turns the length that 99.9 % kept to, and the longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    turns_ms: Option<Turns>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Turns {
    p99_9: f64,
    max: f64,
}

impl Process {
    fn new(spent: Option<&Spent>) -> Process {
        Process {
            id: None,
            address: None,
            user_s: spent.map(|spent| three(spent.user_us as f64 / 1e6)),
            system_s: spent.map(|spent| three(spent.system_us as f64 / 1e6)),
            memory_before: spent.map(|spent| spent.before_bytes),
            memory_after: spent.map(|spent| spent.after_bytes),
            bytes_per_connection: None,
            processors: spent.map(|spent| spent.processors.clone()),
            processor: spent.map(|spent| spent.processor),
            turns_ms: spent.filter(|spent| spent.turns_us.1 > 0).map(|spent| Turns {
                p99_9: ms(spent.turns_us.0 as f64 / 1e3),
                max: ms(spent.turns_us.1 as f64 / 1e3),
            }),
        }
    }
}

/// The result of a benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    bench: &'static str,
    cluster: String,
    setup: String,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<Latency>,
    #[serde(skip)]
    latency_of: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_ms: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gaps_ms: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_median_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_worst_ms: Option<f64>,
    servers: Vec<Process>,
    /// Seconds of processor time of all servers, if all of them said.
    servers_cpu_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_s_per_million_messages: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_s_per_million_deliveries: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generator: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generator_busy: Option<f64>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Report {
    /// With what everybody spent.
    #[must_use]
    pub fn new(bench: &'static str, cluster: &Cluster, bill: Bill) -> Report {
        let mut report = Report::bare(bench, &cluster.name);
        report.seconds = three(bill.seconds);
        let busy = bill.generator.seconds() / bill.seconds.max(0.001);
        report.generator = Some(Process::new(Some(&bill.generator)));
        report.generator_busy = Some(three(busy));
        if busy > BUSY_MAX {
            report.warnings.push(format!(
                "the load generator used {:.0} % of a processor: it was the limit, not the servers",
                busy * 100.0
            ));
        }
        let silent: Vec<&str> = bill
            .servers
            .iter()
            .filter(|(.., spent)| spent.is_none())
            .map(|(id, ..)| id.as_str())
            .collect();
        if !silent.is_empty() {
            let silent = silent.join(", ");
            report.warnings.push(format!(
                "{silent}: doesn't say what it used; it is gone, was restarted, or is of an older version"
            ));
        }
        let all = || bill.servers.iter().filter_map(|(.., spent)| spent.as_ref());
        report.servers_cpu_s = silent.is_empty().then(|| three(all().map(Spent::seconds).sum()));
        let local = cluster.servers.iter().filter(|(_, address)| is_local(address)).count();
        let processors = bill.generator.processors.len();
        let apart = all().all(|spent| spent.processors.iter().all(|n| !bill.generator.processors.contains(n)));
        if local > 0 && !apart {
            report.warnings.push(format!(
                "the load generator and {local} servers share {processors} processors of this machine: a latency may be the \
                 scheduler's (see --pin)"
            ));
        }
        report.servers = bill
            .servers
            .into_iter()
            .map(|(id, address, spent)| Process {
                id: Some(id),
                address: Some(address),
                ..Process::new(spent.as_ref())
            })
            .collect();
        report
    }

    /// Without what the servers spent.
    #[must_use]
    pub fn bare(bench: &'static str, cluster: &str) -> Report {
        Report {
            bench,
            cluster: cluster.to_string(),
            setup: String::new(),
            seconds: 0.0,
            messages: None,
            messages_per_s: None,
            deliveries: None,
            deliveries_per_s: None,
            latency_ms: None,
            latency_of: "",
            late_ms: None,
            gaps_ms: None,
            gap_median_ms: None,
            gap_worst_ms: None,
            servers: Vec::new(),
            servers_cpu_s: None,
            cpu_s_per_million_messages: None,
            cpu_s_per_million_deliveries: None,
            generator: None,
            generator_busy: None,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// What was done.
    pub fn setup(&mut self, text: &str) {
        self.setup = text.to_string();
    }

    /// So many messages were acknowledged, the last so many nanoseconds after the start.
    pub fn messages(&mut self, count: u64, ns: u64) {
        self.seconds = three(ns as f64 / 1e9);
        self.messages = Some(count);
        self.messages_per_s = Some(per(count as f64, self.seconds));
        self.cpu_s_per_million_messages = self.per_million(count);
    }

    /// So many times a message reached a reader.
    pub fn deliveries(&mut self, count: u64) {
        self.deliveries = Some(count);
        self.deliveries_per_s = Some(per(count as f64, self.seconds));
        self.cpu_s_per_million_deliveries = self.per_million(count);
        // The servers' time is that of all they did.
        self.cpu_s_per_million_messages = None;
    }

    fn per_million(&self, count: u64) -> Option<f64> {
        let cpu = self.servers_cpu_s.filter(|_| count > 0)?;
        Some(three(cpu / count as f64 * 1e6))
    }

    /// How long something took.
    pub fn latency(&mut self, of: &'static str, latencies: &Latencies) {
        self.latency_of = of;
        self.latency_ms = latencies.summary();
    }

    /// How late the generator posted what was due.
    pub fn late(&mut self, late: &Latencies) {
        self.late_ms = late.summary();
        if let Some(late) = self.late_ms.filter(|late| late.p99 > LATE_MS_MAX) {
            self.warnings.push(format!(
                "the load generator itself posted 1 % of the messages {} ms late or later, which their latency contains",
                late.p99
            ));
        }
    }

    /// The longest times without an acknowledgement, in nanoseconds, one for each run.
    pub fn gaps(&mut self, gaps: &[u64]) {
        let in_ms = |ns: u64| ms(ns as f64 / 1e6);
        self.gaps_ms = Some(gaps.iter().map(|gap| in_ms(*gap)).collect());
        self.gap_median_ms = Some(in_ms(median(gaps)));
        self.gap_worst_ms = Some(in_ms(gaps.iter().copied().max().unwrap_or(0)));
    }

    /// So many connections idled, spread over those servers.
    pub fn idle(&mut self, connections: usize, targets: &[String], elapsed: Duration) {
        self.seconds = three(elapsed.as_secs_f64());
        // About the same number each.
        let each = (connections / targets.len().max(1)).max(1);
        let all = targets.len() >= self.servers.len();
        let loaded = |server: &&mut Process| all || server.address.as_ref().is_some_and(|own| targets.contains(own));
        for server in self.servers.iter_mut().filter(loaded) {
            let memory = server.memory_before.zip(server.memory_after);
            server.bytes_per_connection = memory.map(|(before, after)| {
                let grown = i64::try_from(after).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX);
                grown / i64::try_from(each).unwrap_or(i64::MAX)
            });
        }
    }

    /// So many messages were posted again, because a server had lost them on the way.
    pub fn repeated(&mut self, count: u64) {
        if count > 0 {
            self.warning(format!(
                "{count} messages were posted again, because a server had lost them: another one leads, or a link between servers broke"
            ));
        }
    }

    /// Something that must not be: the exit code isn't 0.
    pub fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// Something to know when reading the figures.
    pub fn warning(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.problems.is_empty() {
            programs::OK
        } else {
            programs::REFUSED
        }
    }

    /// One object in one line, without its end.
    #[must_use]
    pub fn json(&self) -> String {
        // Texts and numbers only: nothing in it can fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("bench {}: {}\n\n", self.bench, self.setup);
        let mut row = |name: &str, value: String| text += &format!("{name:<22}{value}\n");
        if let Some((count, rate)) = self.messages.zip(self.messages_per_s) {
            let in_seconds = format!("{} in {:.2} s", thousands(count), self.seconds);
            row("messages", format!("{in_seconds}, {} a second", thousands(rate as u64)));
        }
        if let Some((count, rate)) = self.deliveries.zip(self.deliveries_per_s) {
            row(
                "deliveries",
                format!("{}, {} a second", thousands(count), thousands(rate as u64)),
            );
        }
        if let Some(latency) = &self.latency_ms {
            row("latency", self.latency_of.to_string());
            row("", latency.text());
        }
        if let Some(late) = &self.late_ms {
            row("generator late by", late.text());
        }
        if let Some(gaps) = &self.gaps_ms {
            let list: Vec<String> = gaps.iter().map(|gap| format!("{gap:.1}")).collect();
            row("longest gaps, ms", list.join("  "));
            let (median, worst) = (self.gap_median_ms.unwrap_or(0.0), self.gap_worst_ms.unwrap_or(0.0));
            row("", format!("median {median:.1}, worst {worst:.1}"));
        }
        for server in &self.servers {
            row(server.id.as_deref().unwrap_or("server"), server.text());
        }
        if let Some(generator) = &self.generator {
            row("load generator", generator.text());
        }
        if let Some(cpu) = self.servers_cpu_s {
            row("servers' processors", format!("{cpu:.3} s"));
        }
        for (what, cpu) in [
            ("messages", self.cpu_s_per_million_messages),
            ("deliveries", self.cpu_s_per_million_deliveries),
        ] {
            if let Some(cpu) = cpu {
                row("", format!("{cpu:.3} s a million {what}"));
            }
        }
        for warning in &self.warnings {
            text += &format!("\nnote: {warning}\n");
        }
        for problem in &self.problems {
            text += &format!("\nWRONG: {problem}\n");
        }
        text
    }
}

impl Latency {
    fn text(self) -> String {
        let Latency { p50, p99, p99_9, max } = self;
        format!("50 % {p50:.3} ms, 99 % {p99:.3} ms, 99.9 % {p99_9:.3} ms, 100 % {max:.3} ms")
    }
}

impl Process {
    fn text(&self) -> String {
        let (Some(user), Some(system)) = (self.user_s, self.system_s) else {
            return "doesn't say what it used".to_string();
        };
        let mut text = format!("{user:.2} s user, {system:.2} s system");
        if let Some((before, after)) = self.memory_before.zip(self.memory_after) {
            text += &format!(", memory {:.1} → {:.1} MiB", mib(before), mib(after));
        }
        if let Some(bytes) = self.bytes_per_connection {
            text += &format!(", {bytes} bytes a connection");
        }
        if let Some(Turns { p99_9, max }) = self.turns_ms {
            text += &format!(", turns 99.9 % {p99_9} ms, 100 % {max} ms");
        }
        if let Some((all, last)) = self.processors.as_ref().zip(self.processor) {
            text += &format!(", on processor {last} of {}", list(all));
        }
        text
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn list(numbers: &[u16]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
    numbers.join(",")
}

fn per(count: f64, seconds: f64) -> f64 {
    three(count / seconds.max(0.001))
}

/// Whether an address is this machine's own.
fn is_local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `1,234,567`.
#[must_use]
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(processors: &[u16]) -> Spent {
        Spent {
            user_us: 1_500_000,
            system_us: 500_000,
            before_bytes: 10 << 20,
            after_bytes: 14 << 20,
            processors: processors.to_vec(),
            processor: 1,
            turns_us: (1_250, 3_000),
        }
    }

    fn cluster(address: &str) -> Cluster {
        Cluster {
            name: "test".to_string(),
            servers: vec![("server1".to_string(), address.to_string())],
            targets: vec![address.to_string()],
        }
    }

    fn report(address: &str, own: &[u16], seconds: f64, server: Option<Spent>) -> Report {
        let bill = Bill {
            seconds,
            servers: vec![("server1".to_string(), address.to_string(), server)],
            generator: Spent {
                turns_us: (0, 0),
                ..spent(own)
            },
        };
        Report::new("publish", &cluster(address), bill)
    }

    #[test]
    fn a_report_says_it_in_both_forms() {
        let mut report = report("127.0.0.1:8000", &[0], 10.0, Some(spent(&[1])));
        let mut latencies = Latencies::new();
        for n in 1..=1000 {
            latencies.record(n * 1000);
        }
        report.setup("128 bytes");
        report.messages(1_000_000, 10_000_000_000);
        report.latency("from sending to acknowledgement", &latencies);
        let table = "\
bench publish: 128 bytes

messages              1,000,000 in 10.00 s, 100,000 a second
latency               from sending to acknowledgement
                      50 % 0.500 ms, 99 % 0.990 ms, 99.9 % 0.999 ms, 100 % 1.000 ms
server1               1.50 s user, 0.50 s system, memory 10.0 → 14.0 MiB, turns 99.9 % 1.25 ms, 100 % 3 ms, on processor 1 of 1
load generator        1.50 s user, 0.50 s system, memory 10.0 → 14.0 MiB, on processor 1 of 0
servers' processors   2.000 s
                      2.000 s a million messages
";
        assert_eq!(report.table(), table);
        assert_eq!(
            report.json(),
            "{\"bench\":\"publish\",\"cluster\":\"test\",\"setup\":\"128 bytes\",\"seconds\":10.0,\"messages\":1000000,\
             \"messages_per_s\":100000.0,\"latency_ms\":{\"p50\":0.5,\"p99\":0.99,\"p99_9\":0.999,\"max\":1.0},\
             \"servers\":[{\"id\":\"server1\",\"address\":\"127.0.0.1:8000\",\"user_s\":1.5,\"system_s\":0.5,\
             \"memory_before\":10485760,\"memory_after\":14680064,\"processors\":[1],\"processor\":1,\
             \"turns_ms\":{\"p99_9\":1.25,\"max\":3.0}}],\
             \"servers_cpu_s\":2.0,\"cpu_s_per_million_messages\":2.0,\"generator\":{\"user_s\":1.5,\"system_s\":0.5,\
             \"memory_before\":10485760,\"memory_after\":14680064,\"processors\":[0],\"processor\":1},\
             \"generator_busy\":0.2,\"problems\":[],\"warnings\":[]}"
        );
        assert_eq!(report.exit_code(), 0);
        report.problem("1 of 2 messages were not acknowledged".to_string());
        assert_eq!(report.exit_code(), 1);
        assert!(
            report
                .table()
                .ends_with("\nWRONG: 1 of 2 messages were not acknowledged\n")
        );
    }

    #[test]
    fn what_spoils_a_figure_is_said() {
        let warned = |report: &Report, what: &str| report.warnings.iter().any(|text| text.contains(what));
        let busy = report("192.0.2.1:1", &[0], 2.1, Some(spent(&[1])));
        assert!(warned(&busy, "it was the limit"), "{:?}", busy.warnings);
        let shared = report("127.0.0.1:1", &[0, 1], 10.0, Some(spent(&[0, 1])));
        assert!(warned(&shared, "share 2 processors"), "{:?}", shared.warnings);
        let apart = report("127.0.0.1:1", &[0], 10.0, Some(spent(&[1])));
        assert_eq!(apart.warnings, Vec::<String>::new());
        let far = report("192.0.2.1:1", &[0, 1], 10.0, Some(spent(&[0, 1])));
        assert_eq!(far.warnings, Vec::<String>::new());
        let mut old = report("192.0.2.1:1", &[0], 10.0, None);
        old.messages(10, 1_000_000_000);
        assert!(warned(&old, "older version") && old.cpu_s_per_million_messages.is_none());
        assert!(old.table().contains("server1               doesn't say what it used\n"));
        let mut late = Latencies::new();
        late.record(3_000_000);
        old.late(&late);
        assert!(warned(&old, "3 ms late"), "{:?}", old.warnings);
    }

    #[test]
    fn gaps_and_connections_are_reported() {
        let mut report = report("192.0.2.1:1", &[0], 10.0, Some(spent(&[1])));
        report.gaps(&[3_000_000, 1_000_000, 2_000_000]);
        assert!(report.table().contains("median 2.0, worst 3.0"), "{}", report.table());
        let targets = ["192.0.2.1:1".to_string(), "192.0.2.2:1".to_string()];
        report.idle(2048, &targets, Duration::from_secs(5));
        assert!(
            report.table().contains(", 4096 bytes a connection, "),
            "{}",
            report.table()
        );
    }

    #[test]
    fn numbers_are_easy_to_read() {
        let shown = [0, 999, 1000, 1_234_567].map(thousands);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
