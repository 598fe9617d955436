//! What a configuration may say, and what is said of one that doesn't.

use super::*;
use crate::limits;

const SHIPPED: &str = include_str!("../../conf/cluster.toml");

fn checked(text: &str) -> Result<Config, String> {
    parse(text, Path::new("conf/cluster.toml"))
        .map(|parsed| parsed.config)
        .map_err(|e| e.to_string())
}

/// The shipped configuration with one thing changed: what is said of it.
fn refused(old: &str, new: &str) -> String {
    assert!(SHIPPED.contains(old), "{old}");
    match checked(&SHIPPED.replacen(old, new, 1)) {
        Ok(_) => panic!("{new} is taken"),
        Err(error) => error,
    }
}

fn accepted(old: &str, new: &str) -> Config {
    assert!(SHIPPED.contains(old), "{old}");
    checked(&SHIPPED.replacen(old, new, 1)).unwrap_or_else(|e| panic!("{new} is refused: {e}"))
}

#[test]
fn the_shipped_file_says_the_defaults() {
    let mut least = "[cluster]\nname = 'syncnet'\n[heartbeat]\nmulticast = '239.255.83.78:8020'\n".to_string();
    for n in 0..3 {
        least += &format!(
            "[[server]]\nid = 'server{}'\nring_position = {n}\nhost = '127.0.0.1'\nclient_port = {}\nhttp_port = {}\n\
             heartbeat_port = {}\npeer_port = {}\n",
            n + 1,
            8000 + n,
            8010 + n,
            8020 + n,
            8030 + n
        );
    }
    assert_eq!(checked(SHIPPED), checked(&least));
    let config = checked(SHIPPED).unwrap();
    assert_eq!(config.timing.heartbeat_interval, Span::from_ms(100));
    assert_eq!(config.timing.election_timeout, Span::from_ms(500));
    assert_eq!(config.chat.message_size_max, limits::MESSAGE_BYTES_DEFAULT);
    assert_eq!(config.chat.session_expiry, limits::SESSION_EXPIRY_DEFAULT);
    assert_eq!(config.log.segment_size, limits::SEGMENT_BYTES_DEFAULT);
    assert_eq!(config.servers.len(), 3);
}

#[test]
fn a_misspelt_key_is_named_with_its_line_and_the_nearest() {
    let error = refused("heartbeat_interval", "hartbeat_intervall");
    let line = SHIPPED
        .lines()
        .position(|l| l.starts_with("heartbeat_interval"))
        .unwrap()
        + 1;
    assert!(error.starts_with(&format!("conf/cluster.toml:{line}: ")), "{error}");
    assert!(error.contains("`hartbeat_intervall`"), "{error}");
    assert!(error.ends_with("did you mean `heartbeat_interval`?"), "{error}");
    assert!(refused("[timing]", "[timings]").contains("did you mean `timing`?"));
    assert!(refused("\"highest\"", "\"higest\"").contains("did you mean `highest`?"));
    assert!(!refused("name = ", "xyzzy = 1\nname = ").contains("did you mean"));
}

#[test]
fn timeouts_below_three_heartbeats_are_refused_with_the_reason() {
    for name in ["failure_timeout", "election_timeout"] {
        let error = refused(&format!("{name} = \"500ms\""), &format!("{name} = \"299ms\""));
        assert!(
            error.contains(name) && error.contains("three heartbeats") && error.contains("\"300ms\""),
            "{error}"
        );
        accepted(&format!("{name} = \"500ms\""), &format!("{name} = \"300ms\""));
    }
    let error = refused("heartbeat_interval = \"100ms\"", "heartbeat_interval = \"2s\"");
    assert!(error.contains("\"6s\""), "{error}");
    refused("heartbeat_interval = \"100ms\"", "heartbeat_interval = \"9ms\"");
    refused("connect_timeout = \"3s\"", "connect_timeout = \"0s\"");
    refused("connect_timeout = \"3s\"", "connect_timeout = \"61m\"");
}

#[test]
fn slow_timing_is_accepted() {
    let slow = SHIPPED
        .replace("heartbeat_interval = \"100ms\"", "heartbeat_interval = \"2s\"")
        .replace("failure_timeout = \"500ms\"", "failure_timeout = \"10s\"")
        .replace("election_timeout = \"500ms\"", "election_timeout = \"6s\"");
    assert_eq!(checked(&slow).unwrap().timing.failure_timeout, Span::from_ms(10_000));
}

#[test]
fn quantities_without_units_are_refused_with_the_form() {
    assert!(refused("\"100ms\"", "100").contains("\"100ms\""));
    assert!(refused("\"64KiB\"", "65536").contains("\"64KiB\""));
    assert!(refused("\"24h\"", "\"soon\"").contains("\"24h\""));
}

#[test]
fn bounds_are_exact() {
    accepted("\"16MiB\"", "\"1MiB\"");
    accepted("\"16MiB\"", "\"1GiB\"");
    refused("\"16MiB\"", "\"1048575B\"");
    refused("\"16MiB\"", "\"1025MiB\"");
    accepted("\"64KiB\"", "\"256KiB\"");
    accepted("\"64KiB\"", "\"1B\"");
    refused("\"64KiB\"", "\"257KiB\"");
    refused("\"64KiB\"", "\"0B\"");
    refused("\"24h\"", "\"59s\"");
    refused("100000", "0");
    assert_eq!(
        accepted("\"forever\"", "\"90d\"").log.retention,
        Retention::Age(Span::from_ms(90 * 86_400_000))
    );
    assert_eq!(
        accepted("\"forever\"", "\"20GiB\"").log.retention,
        Retention::Size(20 << 30)
    );
    assert_eq!(
        accepted("\"forever\"", "\"64MiB\"").log.retention,
        Retention::Size(64 << 20)
    );
    assert_eq!(
        accepted("\"forever\"", "\"1m\"").log.retention,
        Retention::Age(Span::from_ms(60_000))
    );
    assert!(refused("\"forever\"", "\"63MiB\"").contains("at least 4 segments: 64MiB or more"));
    assert!(refused("\"forever\"", "\"59s\"").contains("must be 1m or more"));
    assert!(refused("\"forever\"", "\"90\"").contains("\"90d\""));
    refused("\"forever\"", "\"always\"");
}

#[test]
fn multicast_must_be_multicast() {
    assert_eq!(accepted("multicast = \"239.255.83.78:8020\"", "").multicast, None);
    for bad in [
        "127.0.0.1:8020",
        "239.255.83.78",
        "239.255.83.78:0",
        "[ff02::1]:8020",
        "x",
    ] {
        assert!(refused("239.255.83.78:8020", bad).contains("239.255.83.78:8020"));
    }
    refused("# interface = \"10.0.0.5\"", "interface = \"eth0\"");
}

#[test]
fn servers_share_nothing() {
    for (old, new, what) in [
        ("\"server2\"", "\"server1\"", "id"),
        ("ring_position = 1", "ring_position = 0", "ring_position"),
        ("client_port = 8001", "client_port = 8000", "client_port"),
        ("client_port = 8001", "client_port = 8010", "http_port"),
        ("peer_port = 8031", "peer_port = 8011", "peer_port"),
        ("heartbeat_port = 8021", "heartbeat_port = 8020", "heartbeat_port"),
    ] {
        let error = refused(old, new);
        assert!(error.contains(what) && error.contains("give each its own"), "{error}");
        assert!(error.starts_with("conf/cluster.toml:"), "{error}");
    }
    for (old, new) in [
        ("\"server2\"", "\"server 2\""),
        ("\"server2\"", "\"a-name-of-twenty-four-char\""),
        ("client_port = 8001", "client_port = 0"),
        ("client_port = 8001", "client_port = 65536"),
        ("host = \"127.0.0.1\"", "host = \"0.0.0.0\""),
        ("host = \"127.0.0.1\"", "host = \"a b\""),
        ("# listen = \"0.0.0.0\"", "listen = \"here\""),
    ] {
        refused(old, new);
    }
    // UDP and TCP ports are different things.
    accepted("heartbeat_port = 8021", "heartbeat_port = 8001");
}

#[test]
fn the_number_of_servers_is_bounded() {
    let (head, server) = SHIPPED.split_once("[[server]]").unwrap();
    assert!(checked(head).unwrap_err().contains("no [[server]]"));
    assert_eq!(
        checked(&format!(
            "{head}[[server]]{}",
            server.split("[[server]]").next().unwrap()
        ))
        .unwrap()
        .servers
        .len(),
        1
    );
    let mut many = head.to_string();
    for n in 0..=limits::SERVERS_MAX {
        many += &format!(
            "[[server]]\nid = 's{n}'\nring_position = {n}\nhost = '127.0.1.{n}'\nclient_port = 1\nhttp_port = 2\n\
             heartbeat_port = 3\npeer_port = 4\n"
        );
    }
    assert!(checked(&many).unwrap_err().contains("10 servers"));
}

#[test]
fn without_a_secret_everything_is_loopback() {
    for (old, new) in [
        ("host = \"127.0.0.1\"", "host = \"10.0.0.5\""),
        ("host = \"127.0.0.1\"", "host = \"chat.example\""),
        ("# listen = \"0.0.0.0\"", "listen = \"0.0.0.0\""),
    ] {
        let error = refused(old, new);
        assert!(
            error.contains("secret_file") && error.contains("/dev/urandom"),
            "{error}"
        );
        let text = SHIPPED.replacen(old, new, 1).replace("# secret_file", "secret_file");
        let parsed = parse(&text, Path::new("conf/cluster.toml")).unwrap();
        assert_eq!(parsed.secret_file, Some(PathBuf::from("conf/cluster.secret")));
    }
    accepted("host = \"127.0.0.1\"", "host = \"localhost\"");
    accepted("host = \"127.0.0.1\"", "host = \"::1\"");
}

#[test]
fn the_secret_is_found_beside_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster.toml");
    std::fs::write(&file, SHIPPED.replace("# secret_file", "secret_file")).unwrap();
    let error = load(&file).unwrap_err();
    assert_eq!(error.file, dir.path().join("cluster.secret"));
    let secret = dir.path().join("cluster.secret");
    std::fs::write(&secret, "ab".repeat(32)).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = load(&file).unwrap();
    assert_eq!(config.secret, Some(Secret(vec![0xab; 32])));
    assert!(!format!("{config:?}").contains("171"), "a secret is never printed");
    assert!(
        load(&dir.path().join("none.toml"))
            .unwrap_err()
            .to_string()
            .contains("--config")
    );
}

#[test]
fn broken_toml_is_an_error_with_its_line() {
    let error = checked("[cluster]\nname = \n").unwrap_err();
    assert!(error.starts_with("conf/cluster.toml:2: "), "{error}");
    assert!(checked("").unwrap_err().contains("`cluster`"));
    assert!(checked("\u{feff}\0").is_err());
}

#[test]
fn a_server_finds_itself() {
    let config = checked(SHIPPED).unwrap();
    let id = ServerId::new("server2").unwrap();
    assert_eq!(own_server(&config, Some("server2"), "elsewhere"), Ok(id));
    assert_eq!(own_server(&config, None, "SERVER2.example.org"), Ok(id));
    assert!(
        own_server(&config, Some("server9"), "server2")
            .unwrap_err()
            .contains("server1, server2, server3")
    );
    assert!(
        own_server(&config, None, "elsewhere")
            .unwrap_err()
            .contains("--server-id")
    );
    assert_eq!(data_dir(Path::new(LOCAL_CONFIG), None, id), Path::new("data/server2"));
    assert_eq!(
        data_dir(Path::new(SYSTEM_CONFIG), None, id),
        Path::new("/var/lib/syncnet/server2")
    );
    assert_eq!(
        data_dir(Path::new(SYSTEM_CONFIG), Some(Path::new("x")), id),
        Path::new("x")
    );
    assert_eq!(config.servers[1].address(80), "127.0.0.1:80");
}
