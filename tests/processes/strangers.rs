//! Whoever talks nonsense to a port gets an error, and costs nobody else anything.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};

use syncnet::limits;
use syncnet::wire::client::{MAGIC, Request, Response, VERSIONS, decode_response, encode_request};
use syncnet::wire::frame::{self, Split};

use crate::support::cluster::{Cluster, Options};
use crate::support::{PATIENCE, wait_until};

/// A connection to a port of this machine that gives up instead of hanging.
fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the port is served");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    stream
}

/// Everything that comes until the other side closes.
#[track_caller]
fn until_closed(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        // Closed with bytes of ours unread.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection wasn't closed: {error}"),
    }
    bytes
}

/// The answers in a stream of frames.
#[track_caller]
fn answers(mut bytes: &[u8]) -> Vec<Response> {
    let mut found = Vec::new();
    while let Split::Complete { body, consumed } = frame::split(bytes, limits::CLIENT_FRAME_BYTES_MAX) {
        found.push(decode_response(body).expect("servers are well-behaved"));
        bytes = &bytes[consumed..];
    }
    assert!(bytes.is_empty(), "half a frame at the end");
    found
}

fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    let hello = Request::Hello {
        magic: MAGIC,
        versions: VERSIONS,
        agent: "test".to_string(),
    };
    encode_request(&hello, &mut bytes);
    bytes
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::frame(&mut bytes, |out| out.extend_from_slice(body));
    bytes
}

/// Does something bad, and sees that a reader and a writer go on, and that all servers still run.
fn others_go_on(bad: impl FnOnce(&Cluster)) {
    let cluster = Cluster::start(Options::default());
    let server = cluster.address("server1");
    let mut sender = cluster.spawn_syncnet(&["send", "--json", "--only", "-s", &server, "ops"]);
    sender.say("before\n");
    wait_until("the first message is acknowledged", || {
        sender.output().contains("\"seq\":1")
    });
    let reader = cluster.spawn_syncnet(&[
        "tail", "--only", "-s", &server, "--after", "0", "--count", "2", "--json", "ops",
    ]);
    wait_until("the reader reads", || reader.output().contains("before"));
    bad(&cluster);
    sender.say("after\n");
    assert_eq!(sender.end().code(0).numbers("seq"), [1, 2]);
    assert_eq!(reader.end().code(0).texts("text"), ["before", "after"]);
    let report = cluster.status(&["--json"]).code(0).json().remove(0);
    for row in report["servers"].as_array().expect("rows") {
        assert_eq!(row["term"], 2, "nobody had to elect again: {row}");
    }
}

#[test]
fn garbage_at_the_clients_port_is_answered_and_closed() {
    others_go_on(|cluster| {
        let port = cluster.servers[0].client_port;
        let oversized = (limits::CLIENT_FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
        let another_version = {
            let mut bytes = Vec::new();
            let hello = Request::Hello {
                magic: MAGIC,
                versions: (200, 201),
                agent: String::new(),
            };
            encode_request(&hello, &mut bytes);
            bytes
        };
        for (what, bytes) in [
            ("another protocol", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
            ("an oversized first frame", u32::MAX.to_le_bytes().to_vec()),
            ("an oversized frame", [hello(), oversized.to_vec()].concat()),
            ("a frame of garbage", [hello(), framed(&[0xFF; 100])].concat()),
            ("an empty frame", [hello(), framed(&[])].concat()),
            ("bytes behind a request", [hello(), framed(&[10, 1, 0])].concat()),
            ("a request before the hello", framed(&[10, 1])),
            ("a hello of another version", another_version),
        ] {
            let mut stream = connect(port);
            stream.write_all(&bytes).expect("the server reads");
            let answers = answers(&until_closed(stream));
            let fatal = |answer: &Response| matches!(answer, Response::Fatal { text } if !text.is_empty());
            assert!(answers.iter().any(fatal), "{what}: {answers:?}");
        }
    });
}

#[test]
fn who_has_not_said_hello_may_send_no_more_than_one() {
    others_go_on(|cluster| {
        let mut stream = connect(cluster.servers[0].client_port);
        let announced = (limits::HELLO_BYTES_MAX as u32 + 1).to_le_bytes();
        stream.write_all(&announced).expect("the server reads");
        let limit = format!("the limit is {}", limits::HELLO_BYTES_MAX);
        let told = answers(&until_closed(stream));
        assert!(
            matches!(&told[..], [Response::Fatal { text }] if text.contains(&limit)),
            "{told:?}"
        );
    });
}

#[test]
fn connections_that_end_or_stall_in_the_middle_cost_nothing() {
    others_go_on(|cluster| {
        let port = cluster.servers[0].client_port;
        let hello = hello();
        for end in 0..hello.len() {
            let mut stream = connect(port);
            stream.write_all(&hello[..end]).expect("the server reads");
        }
        let mut truncated = connect(port);
        truncated
            .write_all(&[&hello[..], &[100, 0, 0, 0, 1, 2, 3]].concat())
            .expect("the server reads");
        drop(truncated);
        // Half a hello and then nothing: closed by the server.
        let mut half = connect(port);
        half.write_all(&hello[..5]).expect("the server reads");
        let silent = connect(port);
        until_closed(half);
        until_closed(silent);
    });
}

#[test]
fn garbage_at_the_servers_ports_is_dropped() {
    others_go_on(|cluster| {
        for server in &cluster.servers {
            for bytes in [
                &b"GET / HTTP/1.1\r\n\r\n"[..],
                &u32::MAX.to_le_bytes(),
                &framed(&[0xFF; 64]),
            ] {
                let mut stream = connect(server.peer_port);
                stream.write_all(bytes).expect("the server reads");
                until_closed(stream);
            }
        }
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for n in 0..500usize {
            let bytes = [&b"SYND\x01\x01"[..], &vec![n as u8; n * 3]].concat();
            for target in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(239, 255, 83, 78)] {
                // A machine without a route for multicast refuses; unicast reaches one of them.
                let _ = socket.send_to(&bytes[n % 7..], (target, cluster.multicast.port()));
            }
        }
    });
}
