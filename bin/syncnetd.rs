//! `syncnetd`: one server of a SyncNet cluster. Arguments, wiring and exit codes; the rest is in the library.

use std::path::Path;
use std::process::ExitCode;

use syncnet::cli::{Line, syncnetd};
use syncnet::config::{self, Config};
use syncnet::server::Failure;
use syncnet::server::logging::Logging;
use syncnet::server::poll::{Ending, Server};
use syncnet::types::ServerId;

fn main() -> ExitCode {
    let args = match syncnetd::parse(std::env::args_os().skip(1)) {
        Ok(Line::Run(args)) => args,
        Ok(Line::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(misuse) => {
            eprintln!("syncnetd: {misuse}");
            return ExitCode::from(misuse.code);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("syncnetd: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn run(args: &syncnetd::Args) -> Result<(), Failure> {
    let path = config::find_config(args.config.as_deref());
    let config = config::load(&path).map_err(|error| Failure::Misconfigured(error.to_string()))?;
    let me = config::own_server(&config, args.server_id.as_deref(), &machine());
    if args.check_config {
        let which = match me {
            Ok(me) => format!("this is {me}"),
            Err(text) if args.server_id.is_some() => return Err(Failure::Misconfigured(text)),
            // Nothing is wrong with the file; but a start on this machine needs more.
            Err(text) => text,
        };
        println!("{}{which}", understood(&config));
        return Ok(());
    }
    let me = me.map_err(Failure::Misconfigured)?;
    let data = config::data_dir(&path, args.data_dir.as_deref(), me);
    let logging = Logging::start(args.log_level, args.log_file.as_deref()).map_err(|error| {
        let file = args.log_file.as_deref().unwrap_or(Path::new("standard error"));
        Failure::Taken(format!("the log can't be written to {}: {error}", file.display()))
    })?;
    let result = serve(config, me, &path, &data, logging.clone());
    if let (Err(failure), true) = (&result, args.log_file.is_some()) {
        log::error!("{failure}");
    }
    logging.flush();
    result
}

fn serve(config: Config, me: ServerId, path: &Path, data: &Path, logging: Logging) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    log::info!(
        "syncnetd {version} starts as {me}: configuration {}, data {}",
        path.display(),
        data.display()
    );
    let ports = config.server(me).map_or(String::new(), |own| {
        let heartbeats = match config.multicast {
            Some(group) => format!("multicast {group}"),
            None => own.heartbeat_port.to_string(),
        };
        format!(
            "clients {}, servers {}, heartbeats {heartbeats}",
            own.client_port, own.peer_port
        )
    });
    let mut renounced = None;
    loop {
        let start = Server::start(config.clone(), me, data, renounced.as_deref(), logging.clone())?;
        let Some(server) = start else { break };
        log::info!("{me} listens: {ports}");
        // Without systemd there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        match server.run()? {
            Ending::Stopped => break,
            Ending::Renounced(why) => renounced = Some(why),
        }
    }
    log::info!("{me} has stopped");
    Ok(())
}

/// The name of this machine; empty if the system doesn't say.
fn machine() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// What was understood of a configuration, for `--check-config`.
fn understood(config: &Config) -> String {
    let mut text = format!(
        "configuration is fine: {} servers in cluster \"{}\"\n",
        config.servers.len(),
        config.name
    );
    for server in &config.servers {
        text += &format!(
            "  {}  ring {}  clients {}  servers {}  heartbeats {}\n",
            server.id,
            server.ring,
            server.address(server.client_port),
            server.address(server.peer_port),
            config
                .multicast
                .map_or_else(|| server.address(server.heartbeat_port), |group| group.to_string()),
        );
    }
    let secret = if config.secret.is_some() {
        "servers prove the cluster secret"
    } else {
        "without a secret"
    };
    text + &format!(
        "  {secret}; election {:?}, leader {:?}, routing {:?}\n",
        config.election, config.leader, config.routing
    )
    .to_lowercase()
}
