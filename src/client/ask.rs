//! A question to a server, and to all servers side by side. Blocking, one connection for one question: what a program needs
//! that asks now and then. Each server is asked by a thread of its own, so that one that is offline holds up nobody.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::health::Row;
use crate::limits;
use crate::types::{ServerId, Span, Usage};
use crate::wire::client::{
    MAGIC, Request, Response, ServerAddress, StatusRow, VERSIONS, decode_response, encode_request,
};
use crate::wire::frame::{Split, split};

/// What a server says of itself and its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it is.
    pub row: StatusRow,
    /// All servers, this one included.
    pub servers: Vec<ServerAddress>,
    /// The cluster's name.
    pub cluster: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskError {
    /// No connection, or it broke.
    Unreachable(String),
    /// Not in time.
    Timeout,
    /// Something else than a SyncNet server answers there.
    NotOurs(String),
    /// The server refused.
    Refused(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Unreachable(why) => write!(f, "no connection: {why}"),
            AskError::Timeout => f.write_str("no answer in time"),
            AskError::NotOurs(why) => write!(f, "not a SyncNet server: {why}"),
            AskError::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

impl std::error::Error for AskError {}

impl From<std::io::Error> for AskError {
    fn from(error: std::io::Error) -> AskError {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => AskError::Timeout,
            _ => AskError::Unreachable(error.to_string()),
        }
    }
}

const QUESTION: u64 = 1;

/// Asks the server at `host:port` how it is. Takes no longer than `timeout`, but for the look-up of a name.
///
/// # Errors
/// Why there is no answer.
pub fn ask(address: &str, timeout: Span) -> Result<Answer, AskError> {
    put(
        address,
        timeout,
        &Request::Status { id: QUESTION },
        |response| match response {
            Response::Status {
                id: QUESTION,
                row,
                servers,
                cluster,
            } => Some(Answer { row, servers, cluster }),
            _ => None,
        },
    )
}

/// Asks the server at `host:port` what its process has used. [`AskError::Refused`] by servers that don't know the question yet.
///
/// # Errors
/// Why there is no answer.
pub fn ask_usage(address: &str, timeout: Span) -> Result<Usage, AskError> {
    put(
        address,
        timeout,
        &Request::Usage { id: QUESTION },
        |response| match response {
            Response::Usage { id: QUESTION, usage } => Some(usage),
            _ => None,
        },
    )
}

/// Puts a question to a server; `pick` knows its answer.
fn put<T>(
    address: &str,
    timeout: Span,
    request: &Request,
    pick: impl Fn(Response) -> Option<T>,
) -> Result<T, AskError> {
    let deadline = Instant::now() + Duration::from_micros(timeout.0);
    let mut stream = connect(address, deadline)?;
    let mut question = Vec::new();
    let hello = Request::Hello {
        magic: MAGIC,
        versions: VERSIONS,
        agent: format!("syncnetctl {}", env!("CARGO_PKG_VERSION")),
    };
    // Both at once: there is nothing in the welcome that the question depends on.
    encode_request(&hello, &mut question);
    encode_request(request, &mut question);
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(&question)?;

    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let body = match split(&bytes, limits::CLIENT_FRAME_BYTES_MAX) {
            Split::Complete { body, consumed } => Some((decode_response(body), consumed)),
            Split::Incomplete => None,
            Split::TooLong(length) => return Err(AskError::NotOurs(format!("it announced {length} bytes"))),
        };
        if let Some((response, consumed)) = body {
            bytes.drain(..consumed);
            match response.map_err(|e| AskError::NotOurs(e.to_string()))? {
                Response::Refused { id: QUESTION, text, .. } | Response::Fatal { text } => {
                    return Err(AskError::Refused(text));
                }
                // Others are the welcome, and what servers say unasked.
                response => match pick(response) {
                    Some(answer) => return Ok(answer),
                    None => continue,
                },
            }
        }
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(AskError::Unreachable("the server closed the connection".to_string())),
            Ok(n) => bytes.extend(chunk.iter().take(n)),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn connect(address: &str, deadline: Instant) -> Result<TcpStream, AskError> {
    let mut last = AskError::Unreachable("the name has no address".to_string());
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = e.into(),
        }
    }
    Err(last)
}

fn left(deadline: Instant) -> Result<Duration, AskError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(AskError::Timeout)
    } else {
        Ok(left)
    }
}

/// What all servers said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The cluster's name, if anybody answered.
    pub cluster: Option<String>,
    /// A row for each server, in the order of the ring; for each address that was asked if nobody answered.
    pub rows: Vec<Row>,
    /// Why those addresses didn't answer: (address, why).
    pub failures: Vec<(String, AskError)>,
}

type Reply = (String, Result<Answer, AskError>);

/// Asks all these addresses side by side, and as soon as the first answers, the servers that it names, too. Takes no longer
/// than twice the time-out: the first may answer at the last moment, and name one that doesn't.
#[must_use]
pub fn survey(addresses: &[String], timeout: Span) -> Survey {
    let (sender, receiver) = channel();
    let mut asked: Vec<String> = Vec::new();
    for address in addresses {
        start(address, timeout, &mut asked, &sender);
    }
    gather(&mut asked, timeout, &sender, &receiver)
}

fn start(address: &str, timeout: Span, asked: &mut Vec<String>, sender: &Sender<Reply>) {
    if asked.iter().any(|other| other == address) {
        return;
    }
    asked.push(address.to_string());
    let (thread_address, thread_sender) = (address.to_string(), sender.clone());
    let started = std::thread::Builder::new()
        .name(format!("ask {address}"))
        .spawn(move || {
            let result = ask(&thread_address, timeout);
            // Nobody listens any more if the look-up of a name took too long.
            let _ = thread_sender.send((thread_address, result));
        });
    if let Err(e) = started {
        let result = Err(AskError::Unreachable(format!("no thread to ask with: {e}")));
        let _ = sender.send((address.to_string(), result));
    }
}

fn gather(asked: &mut Vec<String>, timeout: Span, sender: &Sender<Reply>, receiver: &Receiver<Reply>) -> Survey {
    // Some more than the askers themselves wait.
    let patience = Duration::from_micros(timeout.0) + Duration::from_millis(200);
    let mut deadline = Instant::now() + patience;
    let mut first: Option<Answer> = None;
    let mut answers: Vec<StatusRow> = Vec::new();
    let mut failures = Vec::new();
    let mut replies = 0;
    while replies < asked.len() {
        let Ok((address, result)) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
            break;
        };
        replies += 1;
        match result {
            Err(error) => failures.push((address, error)),
            Ok(answer) => {
                if first.is_none() {
                    deadline = Instant::now() + patience;
                    for server in answer
                        .servers
                        .iter()
                        .filter(|s| s.id != answer.row.id)
                        .take(limits::SERVERS_MAX)
                    {
                        start(&server.address, timeout, asked, sender);
                    }
                }
                let first = first.get_or_insert_with(|| answer.clone());
                // One server may have been asked by two addresses; one of another cluster isn't ours to judge.
                let known = answers.iter().any(|row| row.id == answer.row.id);
                if first.cluster == answer.cluster && !known {
                    answers.push(answer.row);
                }
            }
        }
    }
    let Some(first) = first else {
        return Survey {
            cluster: None,
            rows: asked.iter().map(|address| Row::unknown(address)).collect(),
            failures,
        };
    };
    let said = |id: ServerId| answers.iter().find(|row| row.id == id).cloned();
    let mut rows: Vec<Row> = first
        .servers
        .iter()
        .map(|server| Row::of(server, said(server.id)))
        .collect();
    rows.sort_by_key(|row| row.ring);
    Survey {
        cluster: Some(first.cluster),
        rows,
        failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ServerId;
    use crate::wire::client::{Role, decode_request, encode_response};
    use std::net::TcpListener;

    const TIMEOUT: Span = Span::from_ms(2_000);
    const SHORT: Span = Span::from_ms(100);

    fn id(n: usize) -> ServerId {
        ServerId::new(&format!("server{n}")).unwrap()
    }

    fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    /// An address at which nothing listens: its port has just been given back.
    fn nobody() -> String {
        listener().1
    }

    fn addresses(all: &[&str]) -> Vec<ServerAddress> {
        let server = |(n, address): (usize, &&str)| ServerAddress {
            id: id(n + 1),
            address: (*address).to_string(),
            ring: n as u16,
            heartbeat_port: 8020,
        };
        all.iter().enumerate().map(server).collect()
    }

    /// Serves one asker with these bytes, then closes. Ends when it has.
    fn serve(listener: TcpListener, answer: Vec<u8>) {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            let mut requests = Vec::new();
            while requests.len() < 2 {
                let mut chunk = [0; 1024];
                let n = stream.read(&mut chunk).unwrap();
                bytes.extend(&chunk[..n]);
                while let Split::Complete { body, consumed } = split(&bytes, 1 << 16) {
                    requests.push(decode_request(body).unwrap());
                    bytes.drain(..consumed);
                }
            }
            assert!(matches!(requests[0], Request::Hello { magic: MAGIC, .. }));
            assert_eq!(requests[1], Request::Status { id: QUESTION });
            // In pieces, as networks do.
            for piece in answer.chunks(100) {
                stream.write_all(piece).unwrap();
            }
        });
    }

    fn status(cluster: &str, n: usize, servers: &[ServerAddress]) -> Vec<u8> {
        let row = StatusRow {
            id: id(n),
            role: Role::Follower,
            leader: None,
            term: 1,
            ring_position: 0,
            uptime_ms: 0,
            clients: 0,
            messages: 0,
            commit: 0,
            applied: 0,
            last_log: 0,
            repairing: false,
            address: String::new(),
        };
        let mut bytes = Vec::new();
        let quorum = Response::Quorum {
            available: true,
            leader: None,
        };
        encode_response(&quorum, &mut bytes);
        let status = Response::Status {
            id: QUESTION,
            row,
            servers: servers.to_vec(),
            cluster: cluster.to_string(),
        };
        encode_response(&status, &mut bytes);
        bytes
    }

    #[test]
    fn the_first_to_answer_names_the_others() {
        let ((one, a), (two, b), c) = (listener(), listener(), nobody());
        let servers = addresses(&[&a, &b, &c]);
        serve(one, status("x", 1, &servers));
        serve(two, status("x", 2, &servers));
        let survey = survey(&[nobody(), b], TIMEOUT);
        assert_eq!(survey.cluster.as_deref(), Some("x"));
        let rows: Vec<(&str, bool)> = survey
            .rows
            .iter()
            .map(|row| (row.name.as_str(), row.answer.is_some()))
            .collect();
        assert_eq!(rows, [("server1", true), ("server2", true), ("server3", false)]);
    }

    #[test]
    fn a_server_asked_by_two_names_is_one() {
        let ((one, a), (again, alias)) = (listener(), listener());
        let servers = addresses(&[&a]);
        serve(one, status("x", 1, &servers));
        serve(again, status("x", 1, &servers));
        let survey = survey(&[alias, a], TIMEOUT);
        assert_eq!(survey.rows.len(), 1);
    }

    #[test]
    fn a_stranger_that_answers_for_another_cluster_counts_as_offline() {
        let ((one, a), (two, b)) = (listener(), listener());
        let servers = addresses(&[&a, &b]);
        serve(two, status("y", 2, &servers));
        serve(one, status("x", 1, &servers));
        let survey = survey(&[a], TIMEOUT);
        assert_eq!(survey.rows.iter().filter(|row| row.answer.is_some()).count(), 1);
    }

    #[test]
    fn when_nobody_answers_every_address_is_a_row() {
        let asked = [nobody(), nobody()];
        let survey = survey(&asked, TIMEOUT);
        assert_eq!((survey.cluster, survey.rows.len(), survey.failures.len()), (None, 2, 2));
    }

    #[test]
    fn what_goes_wrong_is_told_apart() {
        assert!(matches!(ask(&nobody(), TIMEOUT), Err(AskError::Unreachable(_))));
        // Accepted by the system, answered by nobody.
        let (silent, address) = listener();
        assert_eq!(ask(&address, SHORT), Err(AskError::Timeout));
        drop(silent);
        let mut refusal = Vec::new();
        let text = "too old".to_string();
        encode_response(&Response::Fatal { text: text.clone() }, &mut refusal);
        for (bytes, error) in [
            (refusal, AskError::Refused(text)),
            (
                b"HTTP/1.1 400".to_vec(),
                AskError::NotOurs("it announced 1347703880 bytes".to_string()),
            ),
            (
                vec![],
                AskError::Unreachable("the server closed the connection".to_string()),
            ),
        ] {
            let (one, address) = listener();
            serve(one, bytes);
            assert_eq!(ask(&address, TIMEOUT), Err(error));
        }
        let (one, address) = listener();
        serve(one, vec![3, 0, 0, 0, 255, 255, 255]);
        assert!(matches!(ask(&address, TIMEOUT), Err(AskError::NotOurs(_))));
    }
}
