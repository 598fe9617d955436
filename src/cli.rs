//! Command lines. Each program has one table of its options: the parser is driven by it and the help is rendered from it, so
//! that neither can know an option that the other doesn't. The typed results are in a module for each program.

pub mod bench;
pub mod syncnet;
pub mod syncnetctl;
pub mod syncnetd;

use lexopt::{Arg, Parser};
use std::ffi::OsString;
use std::fmt;

use crate::config::distance;
use crate::types::Span;

/// An option of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt {
    /// Without its dashes.
    pub long: &'static str,
    /// Its short form.
    pub short: Option<char>,
    /// What its value is called; `None` if it has none.
    pub value: Option<&'static str>,
    /// What it does, in a few words.
    pub help: &'static str,
}

impl Opt {
    /// An option without a value and short form.
    #[must_use]
    pub const fn flag(long: &'static str, help: &'static str) -> Opt {
        Opt {
            long,
            short: None,
            value: None,
            help,
        }
    }

    /// An option with a value.
    #[must_use]
    pub const fn value(long: &'static str, value: &'static str, help: &'static str) -> Opt {
        Opt {
            long,
            short: None,
            value: Some(value),
            help,
        }
    }

    /// The same with a short form.
    #[must_use]
    pub const fn or(self, short: char) -> Opt {
        Opt {
            short: Some(short),
            ..self
        }
    }
}

/// What all programs have.
pub const GENERAL: &[Opt] = &[
    Opt::flag("help", "print this help").or('h'),
    Opt::flag("version", "print the version").or('V'),
];

/// The tables of each program, its own first: what holds for all can be checked for all.
pub static PROGRAMS: [&[&Table]; 3] = [
    &[&syncnetd::TABLE],
    &[&syncnet::CHAT, &syncnet::SEND, &syncnet::TAIL],
    &[
        &syncnetctl::MAIN,
        &syncnetctl::STATUS,
        &syncnetctl::WATCH,
        &syncnetctl::LOG,
        &syncnetctl::VERIFY,
        &syncnetctl::DUMP,
        &bench::BENCH,
        &bench::PUBLISH,
        &bench::FANOUT,
        &bench::FAILOVER,
        &bench::IDLE,
    ],
];

/// A program, or one of its subcommands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// As it is called, with its subcommand.
    pub name: &'static str,
    /// What it is for, in one line.
    pub summary: &'static str,
    /// The command lines that it takes, without its name.
    pub usage: &'static [&'static str],
    /// Its options, in groups.
    pub options: &'static [&'static [Opt]],
    /// Its subcommands: name and what each is for.
    pub subcommands: &'static [(&'static str, &'static str)],
    /// What else the help says.
    pub notes: &'static str,
    /// With which code a misuse ends.
    pub misuse: u8,
}

/// What a command line comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<A> {
    /// The program should run.
    Run(A),
    /// It should print this to stdout and end with 0: the help or the version.
    Print(String),
}

/// A command line that can't be used. Its text goes to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misuse {
    /// What is wrong with which argument, and where the help is.
    pub text: String,
    /// With which code the program ends.
    pub code: u8,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Misuse {}

/// What was found on a command line, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    options: Vec<(&'static Opt, Option<OsString>)>,
    rest: Vec<OsString>,
}

impl Found {
    fn flag(&self, long: &str) -> bool {
        self.options.iter().any(|(opt, _)| opt.long == long)
    }

    /// The values of an option that can be given more than once.
    fn all(&self, long: &str) -> impl Iterator<Item = &OsString> {
        let long = long.to_string();
        self.options
            .iter()
            .filter(move |(opt, _)| opt.long == long)
            .filter_map(|(_, value)| value.as_ref())
    }

    /// The value of an option; the last one counts.
    fn last(&self, long: &str) -> Option<&OsString> {
        self.all(long).last()
    }
}

impl Table {
    /// All its options.
    pub fn all_options(&self) -> impl Iterator<Item = &'static Opt> {
        self.options.iter().copied().chain([GENERAL]).flatten()
    }

    /// The help.
    #[must_use]
    pub fn help(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.summary);
        for (n, usage) in self.usage.iter().enumerate() {
            let lead = if n == 0 { "\nUsage: " } else { "       " };
            text += &format!("{lead}{} {usage}\n", self.name);
        }
        let left = |opt: &Opt| {
            let short = opt.short.map_or("    ".to_string(), |c| format!("-{c}, "));
            let value = opt.value.map_or(String::new(), |value| format!(" {value}"));
            format!("{short}--{}{value}", opt.long)
        };
        if !self.subcommands.is_empty() {
            text += "\nCommands:\n";
            let width = self.subcommands.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            for (name, what) in self.subcommands {
                text += &format!("  {name:width$}  {what}\n");
            }
        }
        text += "\nOptions:\n";
        let width = self.all_options().map(|opt| left(opt).len()).max().unwrap_or(0);
        for opt in self.all_options() {
            text += &format!("  {:width$}  {}\n", left(opt), opt.help);
        }
        if !self.notes.is_empty() {
            text += &format!("\n{}\n", self.notes);
        }
        text
    }

    fn misuse(&self, what: impl fmt::Display) -> Misuse {
        let program = self.name.split(' ').next().unwrap_or(self.name);
        Misuse {
            text: format!("{program}: {what}; see {} --help", self.name),
            code: self.misuse,
        }
    }

    fn option(&self, arg: &Arg) -> Result<&'static Opt, Misuse> {
        let (found, shown) = match arg {
            Arg::Short(c) => (self.all_options().find(|o| o.short == Some(*c)), format!("-{c}")),
            Arg::Long(name) => (self.all_options().find(|o| o.long == *name), format!("--{name}")),
            Arg::Value(_) => (None, String::new()),
        };
        found.ok_or_else(|| {
            let near = self
                .all_options()
                .map(|opt| (distance(shown.trim_start_matches('-'), opt.long), opt.long))
                .min()
                .filter(|(distance, long)| shown.len() > 2 && *distance <= long.len() / 3 + 1);
            let hint = near.map_or(String::new(), |(_, long)| format!("; did you mean --{long}?"));
            self.misuse(format!("there is no option {shown}{hint}"))
        })
    }

    /// Walks the arguments. At the first word that isn't an option, `subcommand` may hand over from the table that it is given to another,
    /// and again at the next word.
    /// `Err(Ok(text))` is help or version to print.
    fn walk(
        &'static self,
        args: impl IntoIterator<Item = OsString>,
        subcommand: impl Fn(&'static Table, &str) -> Option<&'static Table>,
    ) -> Result<(&'static Table, Line<Found>), Misuse> {
        let mut table = self;
        let mut found = Found::default();
        let mut parser = Parser::from_args(args);
        loop {
            let arg = match parser.next() {
                Ok(Some(arg)) => arg,
                Ok(None) => break,
                Err(e) => return Err(table.misuse(e)),
            };
            if let Arg::Value(word) = arg {
                let first = found.rest.is_empty();
                match word.to_str().filter(|_| first).and_then(|word| subcommand(table, word)) {
                    Some(other) => {
                        table = other;
                        // Options before the subcommand must be its own, too.
                        for (opt, _) in &found.options {
                            table.option(&Arg::Long(opt.long))?;
                        }
                    }
                    None => found.rest.push(word),
                }
                continue;
            }
            let opt = table.option(&arg)?;
            match opt.long {
                "help" => return Ok((table, Line::Print(table.help()))),
                "version" => {
                    let program = table.name.split(' ').next().unwrap_or(table.name);
                    let text = format!("{program} {}\n", env!("CARGO_PKG_VERSION"));
                    return Ok((table, Line::Print(text)));
                }
                _ => {}
            }
            let value = match opt.value {
                None => None,
                Some(name) => {
                    let missing = |_| table.misuse(format!("--{} needs a value: --{} {name}", opt.long, opt.long));
                    Some(parser.value().map_err(missing)?)
                }
            };
            found.options.push((opt, value));
        }
        Ok((table, Line::Run(found)))
    }

    fn text(&self, long: &str, value: &OsString) -> Result<String, Misuse> {
        let text = value.to_str().map(str::to_string);
        text.ok_or_else(|| self.misuse(format!("--{long} {value:?} isn't UTF-8")))
    }

    fn number(&self, found: &Found, long: &str) -> Result<Option<u64>, Misuse> {
        let Some(value) = found.last(long) else {
            return Ok(None);
        };
        match value.to_str().and_then(|text| text.parse().ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.misuse(format!("--{long} {value:?} isn't a whole number"))),
        }
    }

    /// Seconds, with a fraction if you like.
    fn seconds(&self, found: &Found, long: &str) -> Result<Option<Span>, Misuse> {
        let Some(value) = found.last(long) else {
            return Ok(None);
        };
        match value.to_str().and_then(|text| text.parse::<f64>().ok()) {
            Some(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => {
                // Rounded up, so that a very short time isn't taken for 0, which means something else.
                Ok(Some(Span::from_ms((seconds * 1000.0).ceil() as u64)))
            }
            _ => Err(self.misuse(format!(
                "--{long} {value:?} isn't a number of seconds, such as 5 or 0.5"
            ))),
        }
    }

    /// The values of `--server`.
    fn servers(&self, found: &Found) -> Result<Vec<String>, Misuse> {
        let servers = found.all("server").map(|value| {
            let text = self.text("server", value)?;
            host_port(&text).map_err(|e| self.misuse(format!("--server {e}")))?;
            Ok(text)
        });
        servers.collect()
    }

    fn no_more(&self, mut rest: impl Iterator<Item = OsString>) -> Result<(), Misuse> {
        match rest.next() {
            None => Ok(()),
            Some(word) => Err(self.misuse(format!("{word:?} is one argument too many"))),
        }
    }
}

/// Ten years: what is longer is a slip of the fingers, and would overflow sums.
const SECONDS_MAX: f64 = 315_360_000.0;

/// Checks that a text is `host:port`, and splits it. An IPv6 address stands in brackets.
///
/// # Errors
/// What is wrong, naming the text.
pub fn host_port(text: &str) -> Result<(&str, u16), String> {
    let form = || format!("{text:?} isn't HOST:PORT, such as 127.0.0.1:8000");
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(host) => host,
        None if host.contains(':') => return Err(format!("{}; put the address in brackets", form())),
        None => host,
    };
    let clean = !host.is_empty() && !host.chars().any(|c| c.is_whitespace() || c.is_control());
    match port.parse() {
        Ok(port) if port != 0 && clean => Ok((host, port)),
        _ => Err(form()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_shows_every_option_and_the_parser_takes_it() {
        for table in PROGRAMS.into_iter().flatten() {
            let help = table.help();
            for opt in table.all_options() {
                let value = opt.value.map_or(String::new(), |value| format!(" {value}"));
                assert!(
                    help.contains(&format!("--{}{value}  ", opt.long)),
                    "{}\n{help}",
                    table.name
                );
                assert_eq!(table.option(&Arg::Long(opt.long)), Ok(opt));
                if let Some(short) = opt.short {
                    assert!(help.contains(&format!("-{short}, --{}", opt.long)));
                    assert_eq!(table.option(&Arg::Short(short)), Ok(opt));
                }
            }
            assert!(help.lines().all(|line| line.chars().count() <= 110), "{help}");
        }
    }

    #[test]
    fn no_two_options_of_a_table_are_alike() {
        for table in PROGRAMS.into_iter().flatten() {
            let mut seen: Vec<String> = Vec::new();
            for opt in table.all_options() {
                for form in [Some(opt.long.to_string()), opt.short.map(String::from)]
                    .into_iter()
                    .flatten()
                {
                    assert!(!seen.contains(&form), "{} {form}", table.name);
                    seen.push(form);
                }
            }
        }
    }

    #[test]
    fn addresses_are_host_and_port() {
        assert_eq!(host_port("127.0.0.1:8000"), Ok(("127.0.0.1", 8000)));
        assert_eq!(host_port("chat.example:1"), Ok(("chat.example", 1)));
        assert_eq!(host_port("[::1]:8000"), Ok(("::1", 8000)));
        for bad in [
            "",
            "host",
            "host:",
            ":8000",
            "host:0",
            "host:65536",
            "::1:8000",
            "ho st:1",
            "host:http",
        ] {
            let error = host_port(bad).unwrap_err();
            assert!(
                error.contains(&format!("{bad:?}")) && error.contains("127.0.0.1:8000"),
                "{error}"
            );
        }
    }
}
