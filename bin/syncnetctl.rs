//! `syncnetctl`: says how the servers of a cluster are, once or again and again, measures them, and looks at data directories.

use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use syncnet::cli::syncnet::Common;
use syncnet::cli::syncnetctl::{Args, Command, Form, parse};
use syncnet::cli::{Line, Misuse};
use syncnet::client::ask::{Survey, survey};
use syncnet::client::bench;
use syncnet::client::report::Report;
use syncnet::client::settings::{Environment, Settings};
use syncnet::client::time::rfc3339;
use syncnet::keep::offline::dump::{Range, dump};
use syncnet::keep::offline::verify::verify;
use syncnet::keep::offline::{Closed, Offline, open};
use syncnet::log::read_only::ReadOnly;
use syncnet::types::Span;

/// What can't be printed is no answer either: as monitoring plug-ins have it, "can't tell".
const UNPRINTABLE: u8 = 3;

fn main() -> ExitCode {
    let args = match parse(std::env::args_os().skip(1)) {
        Ok(Line::Run(args)) => args,
        Ok(Line::Print(text)) => return ended(print(&text), 0),
        Err(Misuse { text, code }) => return failed(&text, code),
    };
    match &args.command {
        Command::Verify { directory, json } => return log_verify(directory, *json),
        Command::Dump {
            directory,
            json,
            from,
            to,
        } => return log_dump(directory, *json, &Range { from: *from, to: *to }),
        Command::Status { .. } | Command::Watch { .. } | Command::Bench(_) => {}
    }
    let given = Common {
        servers: args.servers.clone(),
        ..Common::default()
    };
    let settings = match Settings::gather(&given, &Environment::of_process()) {
        Ok(settings) => settings,
        Err(e) => {
            let code = if matches!(args.command, Command::Status { .. }) {
                3
            } else {
                2
            };
            return failed(&format!("syncnetctl: {e}"), code);
        }
    };
    match args.command {
        Command::Status { form } => status(&args, &settings, form),
        Command::Watch { interval } => watch(&args, &settings, interval),
        Command::Bench(ref bench) => ExitCode::from(bench::run(bench, &settings, args.timeout)),
        // These ended before: they ask no server.
        Command::Verify { .. } | Command::Dump { .. } => ExitCode::SUCCESS,
    }
}

/// Opens a data directory, and warns if a server runs on it.
fn opened(directory: &Path) -> Result<Offline<ReadOnly>, ExitCode> {
    match open(directory) {
        Ok((offline, false)) => Ok(offline),
        Ok((offline, true)) => {
            eprintln_quietly(&format!(
                "syncnetctl: {}: a syncnetd is using this data directory; what it writes meanwhile may look torn or damaged",
                directory.display()
            ));
            Ok(offline)
        }
        Err(error @ Closed::Damaged(_)) => Err(failed(&format!("syncnetctl: {error}"), 1)),
        Err(error @ Closed::Unreadable(_)) => Err(failed(&format!("syncnetctl: {error}"), 3)),
    }
}

fn log_verify(directory: &Path, json: bool) -> ExitCode {
    let offline = match opened(directory) {
        Ok(offline) => offline,
        Err(code) => return code,
    };
    let mut printed = Ok(());
    let summary = verify(&offline, &mut |finding| {
        let line = if json { finding.fields().json() } else { finding.line() };
        // The verdict is wanted also when nobody reads the lines.
        if printed.is_ok() {
            printed = print(&(line + "\n"));
        }
    });
    if printed.is_ok() {
        let text = if json {
            summary.fields().json() + "\n"
        } else {
            summary.text()
        };
        printed = print(&text);
    }
    ended(printed, summary.exit_code())
}

fn log_dump(directory: &Path, json: bool, range: &Range) -> ExitCode {
    let offline = match opened(directory) {
        Ok(offline) => offline,
        Err(code) => return code,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let dumped = dump(&offline, range, &mut |fields| {
        let line = if json { fields.json() } else { fields.line() };
        written = writeln!(out, "{line}");
        written.is_ok()
    });
    let printed = told(written.and_then(|()| out.flush()));
    match dumped {
        Ok(()) => ended(printed, 0),
        Err(error) => failed(&format!("syncnetctl: {error}"), 3),
    }
}

fn status(args: &Args, settings: &Settings, form: Form) -> ExitCode {
    let survey = survey(&settings.servers, args.timeout);
    explain(&survey);
    let report = Report::new(survey);
    let text = match form {
        Form::Table => report.table(now_ms()),
        Form::Json => report.json() + "\n",
        Form::Simple => report.simple(),
    };
    ended(print(&text), report.verdict.health.exit_code())
}

/// Why nobody answered, or those who don't belong to the cluster didn't: on stderr, for the table can't say it.
fn explain(survey: &Survey) {
    for (address, error) in &survey.failures {
        let has_row = survey.rows.iter().any(|row| row.address == *address);
        if survey.cluster.is_none() || !has_row {
            eprintln_quietly(&format!("syncnetctl: {address}: {error}"));
        }
    }
    if survey.cluster.is_none() {
        eprintln_quietly("syncnetctl: no server answers; name others with -s HOST:PORT");
    }
}

fn watch(args: &Args, settings: &Settings, interval: Span) -> ExitCode {
    if let Err(e) = end_on_signal() {
        return failed(&format!("syncnetctl: can't wait for signals: {e}"), 3);
    }
    let terminal = std::io::stdout().is_terminal();
    let mut before: Option<Report> = None;
    loop {
        let begun = Instant::now();
        let mut addresses = settings.servers.clone();
        // Those that the cluster named are asked too, even when those that were given are gone.
        addresses.extend(before.iter().flat_map(Report::addresses));
        let report = Report::next(survey(&addresses, args.timeout), before.as_ref());
        let text = if terminal {
            // To the corner, and nothing below: what was there goes without a flicker.
            let lead = if before.is_none() {
                "\x1b[2J\x1b[H"
            } else {
                "\x1b[H\x1b[J"
            };
            lead.to_string() + &report.table(now_ms())
        } else {
            let time = rfc3339(now_ms());
            let lines = report.changes(before.as_ref()).into_iter();
            lines.map(|line| format!("{time} {line}\n")).collect()
        };
        if let Err(code) = print(&text) {
            // Whoever read has gone; that is an end like any other.
            return ended(Err(code), 0);
        }
        before = Some(report);
        std::thread::sleep(Duration::from_micros(interval.0).saturating_sub(begun.elapsed()));
    }
}

/// Ctrl-C is how a watch ends, so it ends with 0.
fn end_on_signal() -> std::io::Result<()> {
    let signals = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];
    let mut signals = signal_hook::iterator::Signals::new(signals)?;
    let wait = move || {
        if signals.forever().next().is_some() {
            std::process::exit(0);
        }
    };
    std::thread::Builder::new()
        .name("signals".to_string())
        .spawn(wait)
        .map(drop)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// `Err(true)` if the reader has gone, which is no error; `Err(false)` if it is one, which has been told.
fn print(text: &str) -> Result<(), bool> {
    let mut out = std::io::stdout().lock();
    told(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// What came of writing, as [`print`] has it.
fn told(result: std::io::Result<()>) -> Result<(), bool> {
    result.map_err(|e| {
        let gone = e.kind() == ErrorKind::BrokenPipe;
        if !gone {
            eprintln_quietly(&format!("syncnetctl: can't write: {e}"));
        }
        gone
    })
}

fn ended(printed: Result<(), bool>, code: u8) -> ExitCode {
    ExitCode::from(if printed == Err(false) { UNPRINTABLE } else { code })
}

fn failed(text: &str, code: u8) -> ExitCode {
    eprintln_quietly(text);
    ExitCode::from(code)
}

/// `eprintln!` panics where nobody reads stderr.
fn eprintln_quietly(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
