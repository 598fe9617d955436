//! What a client program goes by: its command line first, then the environment, then the client file, then what a cluster on
//! this machine needs. Gathered once, by a function of what was given; only [`Environment::of_process`] and the reading of
//! the file touch the system.

use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::cli::host_port;
use crate::cli::syncnet::Common;
use crate::config::unreadable;

/// The servers of `conf/cluster.toml`, which whoever just started that cluster means.
pub const LOCAL_SERVERS: [&str; 3] = ["127.0.0.1:8000", "127.0.0.1:8001", "127.0.0.1:8002"];

/// What a client program goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `host:port` of the servers that are known from the start; never empty.
    pub servers: Vec<String>,
    /// Whether they were named on the command line, and so are tried first and in that order.
    pub explicit: bool,
    /// Whether to use no others.
    pub only: bool,
    /// The name to go by; `None` if there is none, not even a login name.
    pub user: Option<String>,
    /// The file with the key that holds the name; `None` if there is no place for one.
    pub key_file: Option<PathBuf>,
}

/// What of the process's environment counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `SYNCNET_SERVERS`.
    pub servers: Option<String>,
    /// `SYNCNET_USER`.
    pub user: Option<String>,
    /// `SYNCNET_KEY_FILE`.
    pub key_file: Option<PathBuf>,
    /// Where a user's configuration is: `XDG_CONFIG_HOME`, else `~/.config`.
    pub config_home: Option<PathBuf>,
    /// Where a user's programs keep what they remember: `XDG_STATE_HOME`, else `~/.local/state`.
    pub state_home: Option<PathBuf>,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// The login name.
    pub login: Option<String>,
}

impl Environment {
    /// That of this process. An empty variable is none.
    #[must_use]
    pub fn of_process() -> Environment {
        let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| var(name).and_then(|value| value.into_string().ok());
        let home = var("HOME").map(PathBuf::from);
        // The specification of these variables says that a relative path is to be ignored.
        let place = |name: &str, below: &str| {
            let named = var(name).map(PathBuf::from).filter(|path| path.is_absolute());
            named.or_else(|| home.as_ref().map(|home| home.join(below)))
        };
        Environment {
            servers: text("SYNCNET_SERVERS"),
            user: text("SYNCNET_USER"),
            key_file: var("SYNCNET_KEY_FILE").map(PathBuf::from),
            config_home: place("XDG_CONFIG_HOME", ".config"),
            state_home: place("XDG_STATE_HOME", ".local/state"),
            login: text("USER").or_else(|| text("LOGNAME")).or_else(login_name),
            home,
        }
    }
}

/// From the table of users, for a process without the variables, such as one that a timer started.
fn login_name() -> Option<String> {
    let own = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == own).then(|| name.to_string())
    })
}

/// Why the settings can't be gathered; the program was misused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(pub String);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

/// The client file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    servers: Vec<String>,
    user: Option<String>,
    key_file: Option<PathBuf>,
}

impl Settings {
    /// Gathers them. Reads the client file if one was named or there is one.
    ///
    /// # Errors
    /// If that file can't be read, or something says what can't be.
    pub fn gather(given: &Common, environment: &Environment) -> Result<Settings, SettingsError> {
        let usual = environment
            .config_home
            .as_ref()
            .map(|home| home.join("syncnet/client.toml"));
        let file = given.config.as_ref().or(usual.as_ref());
        let written = match file {
            None => None,
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some((path.as_path(), text)),
                // Nobody has asked for the usual one.
                Err(e) if given.config.is_none() && e.kind() == std::io::ErrorKind::NotFound => None,
                Err(e) => {
                    return Err(SettingsError(format!(
                        "{}: can't read the client file: {e}",
                        path.display()
                    )));
                }
            },
        };
        let file = written.as_ref().map(|(path, text)| (*path, text.as_str()));
        Settings::combine(given, environment, file)
    }

    /// As [`Settings::gather`], with the client file's path and text.
    ///
    /// # Errors
    /// If something says what can't be.
    pub fn combine(
        given: &Common,
        environment: &Environment,
        file: Option<(&Path, &str)>,
    ) -> Result<Settings, SettingsError> {
        let mut written = Written::default();
        if let Some((path, text)) = file {
            written = toml::from_str(text).map_err(|e| SettingsError(unreadable(text, path, &e).to_string()))?;
            for server in &written.servers {
                host_port(server).map_err(|e| SettingsError(format!("{}: servers: {e}", path.display())))?;
            }
            let beside = path.parent().unwrap_or(Path::new(""));
            written.key_file = written.key_file.map(|key| match key.strip_prefix("~") {
                Ok(below) => environment.home.as_deref().unwrap_or(beside).join(below),
                Err(_) => beside.join(key),
            });
        }
        let mut from_environment = Vec::new();
        let listed = environment.servers.as_deref().unwrap_or_default();
        for server in listed.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty()) {
            host_port(server).map_err(|e| SettingsError(format!("SYNCNET_SERVERS: {e}")))?;
            from_environment.push(server.to_string());
        }
        let local = LOCAL_SERVERS.map(str::to_string).to_vec();
        let explicit = !given.servers.is_empty();
        let servers = [given.servers.clone(), from_environment, written.servers, local]
            .into_iter()
            .find(|servers| !servers.is_empty())
            .unwrap_or_default();
        let named = given.user.clone().or_else(|| environment.user.clone());
        let state = environment.state_home.as_ref();
        Ok(Settings {
            servers,
            explicit,
            only: given.only,
            user: named.or(written.user).or_else(|| environment.login.clone()),
            key_file: environment
                .key_file
                .clone()
                .or(written.key_file)
                .or_else(|| state.map(|home| home.join("syncnet/key"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn environment() -> Environment {
        Environment {
            servers: Some("env:1, env:2".to_string()),
            user: Some("env".to_string()),
            key_file: Some("env-key".into()),
            config_home: Some("/c".into()),
            state_home: Some("/s".into()),
            home: Some("/h".into()),
            login: Some("login".to_string()),
        }
    }

    const FILE: &str = "servers = [\"file:1\"]\nuser = \"file\"\nkey_file = \"key\"\n";

    fn combine(given: &Common, environment: &Environment, file: Option<&str>) -> Result<Settings, String> {
        let file = file.map(|text| (Path::new("/c/syncnet/client.toml"), text));
        Settings::combine(given, environment, file).map_err(|e| e.to_string())
    }

    #[test]
    fn the_command_line_goes_before_the_environment_before_the_file_before_the_machine() {
        let given = Common {
            servers: vec!["b:2".to_string(), "a:1".to_string()],
            user: Some("given".to_string()),
            only: true,
            ..Common::default()
        };
        let all = combine(&given, &environment(), Some(FILE)).unwrap();
        assert_eq!(all.servers, ["b:2", "a:1"]);
        assert_eq!(
            (all.explicit, all.only, all.user.as_deref()),
            (true, true, Some("given"))
        );
        assert_eq!(all.key_file, Some("env-key".into()));

        let given = Common::default();
        let all = combine(&given, &environment(), Some(FILE)).unwrap();
        assert_eq!(all.servers, ["env:1", "env:2"]);
        assert_eq!(
            (all.explicit, all.only, all.user.as_deref()),
            (false, false, Some("env"))
        );

        let mut environment = environment();
        (environment.servers, environment.user, environment.key_file) = (None, None, None);
        let all = combine(&given, &environment, Some(FILE)).unwrap();
        assert_eq!(
            (all.servers.as_slice(), all.user.as_deref()),
            (["file:1".to_string()].as_slice(), Some("file"))
        );
        assert_eq!(all.key_file, Some("/c/syncnet/key".into()));
        let all = combine(&given, &environment, Some("key_file = \"~/k\"")).unwrap();
        assert_eq!(all.key_file, Some("/h/k".into()));

        let all = combine(&given, &environment, None).unwrap();
        assert_eq!(
            (all.servers, all.user.as_deref()),
            (LOCAL_SERVERS.map(String::from).to_vec(), Some("login"))
        );
        assert_eq!(all.key_file, Some("/s/syncnet/key".into()));
        assert_eq!(combine(&given, &Environment::default(), None).unwrap().key_file, None);
    }

    #[test]
    fn the_local_servers_are_those_of_the_shipped_configuration() {
        let shipped = config::parse(include_str!("../../conf/cluster.toml"), Path::new("cluster.toml")).unwrap();
        let addresses: Vec<String> = shipped
            .config
            .servers
            .iter()
            .map(|s| s.address(s.client_port))
            .collect();
        assert_eq!(addresses, LOCAL_SERVERS);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let given = Common::default();
        let error = combine(&given, &environment(), Some("usr = \"x\"")).unwrap_err();
        assert!(
            error.starts_with("/c/syncnet/client.toml:1: ") && error.contains("did you mean `user`?"),
            "{error}"
        );
        let error = combine(&given, &environment(), Some("servers = [\"host\"]")).unwrap_err();
        assert!(error.contains("client.toml: servers: \"host\""), "{error}");
        let bad = Environment {
            servers: Some("host".to_string()),
            ..Environment::default()
        };
        assert!(combine(&given, &bad, None).unwrap_err().contains("SYNCNET_SERVERS"));
    }

    #[test]
    fn only_a_file_that_was_named_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment {
            config_home: Some(dir.path().to_path_buf()),
            ..Environment::default()
        };
        let mut given = Common::default();
        assert!(Settings::gather(&given, &environment).is_ok());
        given.config = Some(dir.path().join("mine.toml"));
        assert!(
            Settings::gather(&given, &environment)
                .unwrap_err()
                .0
                .contains("mine.toml")
        );
        std::fs::create_dir(dir.path().join("syncnet")).unwrap();
        std::fs::write(dir.path().join("syncnet/client.toml"), FILE).unwrap();
        given.config = None;
        assert_eq!(Settings::gather(&given, &environment).unwrap().servers, ["file:1"]);
    }
}
