//! `syncnet`: the chat, `send` and `tail`. Arguments, wiring, exit codes.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use syncnet::cli::Line;
use syncnet::cli::syncnet::{Args, Begin, Command, parse};
use syncnet::client::calls::Options;
use syncnet::client::chat::terminal;
use syncnet::client::programs::{self, complain};
use syncnet::client::render::Style;
use syncnet::client::settings::{Environment, Settings};
use syncnet::client::{key, send, tail};

/// The room of a chat that isn't told where to begin.
const LOBBY: &str = "lobby";
/// How long a message of `send` may wait for its acknowledgement.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let args = match parse(std::env::args_os().skip(1)) {
        Ok(Line::Run(args)) => args,
        Ok(Line::Print(text)) => {
            // That nobody reads it is no error.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(misuse) => {
            eprintln!("{}", misuse.text);
            return ExitCode::from(misuse.code);
        }
    };
    ExitCode::from(run(args))
}

fn run(args: Args) -> u8 {
    let environment = Environment::of_process();
    let options = match options(&args, &environment) {
        Ok(options) => options,
        Err(error) => {
            complain(&error);
            return programs::MISUSED;
        }
    };
    let common = args.common;
    let terminal = std::io::stdout().is_terminal();
    let style = Style::new(terminal, std::env::var_os("NO_COLOR").as_deref());
    match args.command {
        Command::Chat { room } => {
            let room = room.unwrap_or_else(|| LOBBY.to_string());
            if terminal::is_there() {
                let history = environment.state_home.map(|home| home.join("syncnet/history"));
                return terminal::run(options, room, style, history);
            }
            let send = send::Send {
                room,
                text: None,
                id: None,
                create: false,
                json: common.json,
                timeout: programs::timeout(common.timeout, None),
            };
            send::run(options, send)
        }
        Command::Send { room, text, id, create } => {
            let send = send::Send {
                room,
                text,
                id,
                create,
                json: common.json,
                timeout: programs::timeout(common.timeout, Some(SEND_TIMEOUT)),
            };
            send::run(options, send)
        }
        Command::Tail {
            room,
            from,
            count,
            follow,
            wait,
            stale,
            events,
        } => {
            let tail = tail::Tail {
                room,
                begin: match from {
                    Begin::After(seq) => tail::Begin::After(seq),
                    Begin::Last(count) => tail::Begin::Last(count),
                },
                count,
                follow,
                wait,
                stale,
                events,
                json: common.json,
                terminal,
                style,
                timeout: programs::timeout(common.timeout, (!follow).then_some(SEND_TIMEOUT)),
            };
            tail::run(options, tail)
        }
    }
}

/// Where the cluster is and who the user is.
fn options(args: &Args, environment: &Environment) -> Result<Options, String> {
    let settings = Settings::gather(&args.common, environment).map_err(|error| error.to_string())?;
    // Whoever only reads holds no name, and needs no key.
    let reads = matches!(args.command, Command::Tail { .. });
    let (key, note) = match reads {
        true => ([0; 32], None),
        false => key::load(settings.key_file.as_deref()),
    };
    if let Some(note) = note {
        complain(&note);
    }
    let name = match settings.user {
        Some(name) => name,
        None if reads => String::new(),
        None => return Err("nobody is logged in here; give your name with -u NAME".to_string()),
    };
    Ok(Options {
        servers: settings.servers,
        in_order: settings.explicit,
        only: settings.only,
        name,
        key,
        secret: key::session_secret(),
        agent: concat!("syncnet ", env!("CARGO_PKG_VERSION")).to_string(),
    })
}
