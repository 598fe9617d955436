//! The command line of `syncnetd`.

use log::LevelFilter;
use std::ffi::OsString;
use std::path::PathBuf;

use super::{Line, Misuse, Opt, Table};

/// The options of `syncnetd`.
pub static TABLE: Table = Table {
    name: "syncnetd",
    summary: "a server of a SyncNet cluster",
    usage: &["[OPTIONS]"],
    options: &[&[
        Opt::value(
            "config",
            "FILE",
            "the cluster's configuration (conf/cluster.toml, else /etc/syncnet/cluster.toml)",
        ),
        Opt::value(
            "server-id",
            "ID",
            "which of its servers this is (the one with this machine's name)",
        ),
        Opt::value(
            "data-dir",
            "DIR",
            "where its data is (data/ID, with the system's configuration /var/lib/syncnet/ID)",
        ),
        Opt::flag("check-config", "check the configuration and end"),
        Opt::value("log-level", "LEVEL", "error, warn, info, debug or trace (info)"),
        Opt::value("log-file", "FILE", "where log lines go (stderr)"),
    ]],
    subcommands: &[],
    notes: "Exit codes: 0 stopped as asked, 2 misused or misconfigured, 3 an address or directory is taken or not\n\
            permitted, 5 its data can't be trusted, 6 the disk failed.",
    misuse: 2,
};

/// What `syncnetd` was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// The configuration, if it was named.
    pub config: Option<PathBuf>,
    /// Which server this is, if it was named.
    pub server_id: Option<String>,
    /// Where its data is, if it was named.
    pub data_dir: Option<PathBuf>,
    /// Whether only to check the configuration.
    pub check_config: bool,
    /// How much is logged.
    pub log_level: LevelFilter,
    /// Where to; stderr if `None`.
    pub log_file: Option<PathBuf>,
}

/// Reads the arguments, without the program's name.
///
/// # Errors
/// If they can't be used.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Line<Args>, Misuse> {
    let (table, line) = TABLE.walk(args, |_, _| None)?;
    let found = match line {
        Line::Print(text) => return Ok(Line::Print(text)),
        Line::Run(found) => found,
    };
    let log_level = match found.last("log-level") {
        None => LevelFilter::Info,
        Some(value) => {
            // In any case; "warning" is what many call it.
            let level = value.to_str().map(|text| {
                let text = if text.eq_ignore_ascii_case("warning") {
                    "warn"
                } else {
                    text
                };
                text.parse()
            });
            match level {
                Some(Ok(level)) => level,
                _ => {
                    let what = format!("--log-level {value:?} must be error, warn, info, debug or trace");
                    return Err(table.misuse(what));
                }
            }
        }
    };
    let path = |long| found.last(long).map(PathBuf::from);
    let args = Args {
        config: path("config"),
        server_id: found
            .last("server-id")
            .map(|value| table.text("server-id", value))
            .transpose()?,
        data_dir: path("data-dir"),
        check_config: found.flag("check-config"),
        log_level,
        log_file: path("log-file"),
    };
    table.no_more(found.rest.into_iter())?;
    Ok(Line::Run(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Line<Args>, Misuse> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn all_options_arrive() {
        let line = "--config c.toml --server-id server1 --data-dir d --check-config --log-level DEBUG --log-file=l";
        let args = Args {
            config: Some("c.toml".into()),
            server_id: Some("server1".to_string()),
            data_dir: Some("d".into()),
            check_config: true,
            log_level: LevelFilter::Debug,
            log_file: Some("l".into()),
        };
        assert_eq!(run(line), Ok(Line::Run(args)));
        let Ok(Line::Run(args)) = run("") else {
            panic!("no options are fine")
        };
        assert_eq!(
            (args.log_level, args.check_config, args.config),
            (LevelFilter::Info, false, None)
        );
    }

    #[test]
    fn misuse_names_the_argument_and_the_help() {
        for (line, what) in [
            ("--confg x", "did you mean --config?"),
            ("-x", "-x"),
            ("--log-level loud", "\"loud\""),
            ("--config", "--config FILE"),
            ("server1", "\"server1\""),
            ("--check-config=yes", "--check-config"),
        ] {
            let misuse = run(line).unwrap_err();
            assert!(misuse.text.contains(what), "{misuse}");
            assert!(misuse.text.ends_with("see syncnetd --help"), "{misuse}");
            assert_eq!(misuse.code, 2);
        }
    }

    #[test]
    fn help_and_version_are_printed() {
        let Ok(Line::Print(help)) = run("--config x --help") else {
            panic!("help")
        };
        assert!(help.contains("Usage: syncnetd [OPTIONS]"));
        let version = format!("syncnetd {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(run("-V"), Ok(Line::Print(version)));
    }
}
