//! The connections of clients: accepted up to a cap, read in turns, each a bounded amount, and sent what is theirs. A client that
//! doesn't take its answers, or whose commands the node can't take now, is left unread; the system's buffers then hold it back.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Token};
use socket2::{SockRef, TcpKeepalive};

use super::connection::{Connection, Got, Sent, Source, State};
use super::listener::Census;
use super::ready::Ready;
use super::{Alarm, Context};
use crate::limits;
use crate::node::{Input, Node};
use crate::types::{ConnId, Now};
use crate::wire::client::{Request, Response, command_in, decode_request, encode_response};
use crate::wire::frame::{Split, split};

/// A client that says nothing is asked by the system after a minute, and given up two minutes later.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(20))
    .with_retries(6);

/// What the system is to do for a client's socket. Where it can't, the client is served all the same.
fn set_options(socket: &SockRef) {
    // Frames are written whole and at once; waiting for more to go with them would only delay them.
    let _ = socket.set_tcp_nodelay(true);
    // A client whose machine is gone must not hold its place for ever. One that only reads slowly answers and stays.
    let _ = socket.set_tcp_keepalive(&KEEPALIVE);
    let _ = socket.set_send_buffer_size(limits::CLIENT_SOCKET_BYTES);
    let _ = socket.set_recv_buffer_size(limits::CLIENT_SOCKET_BYTES);
}

/// All connections of clients.
#[derive(Debug)]
pub struct Clients {
    /// Boxed, for a table that has grown is half empty.
    table: HashMap<ConnId, Box<Connection<TcpStream>>>,
    census: Census,
    unread: Ready,
    /// Left unread because others had used up the turn: first in the next.
    waiting: Ready,
    unsent: Ready,
    /// Left unread because the node takes no more now; asked again when something else has happened.
    held: Ready,
}

/// What looking for the next request came to.
enum Next {
    /// The node has it.
    Taken {
        is_question: bool,
    },
    Incomplete,
    Held,
    Later,
    Choked,
    Bad(String),
}

/// What may still be taken from all clients in a turn.
struct Budget {
    frames: usize,
    questions: usize,
}

impl Source for Node {
    fn pump(&mut self, conn: ConnId) -> Option<&[u8]> {
        Node::pump(self, conn)
    }

    fn taken(&mut self, conn: ConnId, n: usize, rest: &mut Vec<u8>) {
        rest.extend_from_slice(Node::taken(self, conn, n));
    }
}

impl Clients {
    /// None yet, and never more than `max`.
    #[must_use]
    pub fn new(max: usize) -> Clients {
        Clients {
            table: HashMap::new(),
            census: Census::new(max),
            unread: Ready::default(),
            waiting: Ready::default(),
            unsent: Ready::default(),
            held: Ready::default(),
        }
    }

    /// Whether there are bytes left to be read that the next turn must not wait for.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty() || !self.waiting.is_empty()
    }

    /// Whether there are bytes left to be sent that the next turn must not wait for.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether all answers have been handed to the system.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.table.values().all(|conn| conn.is_flushed())
    }

    /// A client has connected.
    pub fn accept(&mut self, mut stream: TcpStream, address: SocketAddr, context: &mut Context<'_>) {
        if let Err(text) = self.census.enter(address.ip()) {
            log::debug!("a client from {address} is refused: {text}");
            let mut frame = Vec::new();
            encode_response(&Response::Fatal { text }, &mut frame);
            // One try: a socket that was just accepted has room for a line.
            let _ = std::io::Write::write(&mut stream, &frame);
            return;
        }
        let id = context.ids.fresh();
        let token = Token(usize::try_from(id.0).unwrap_or(usize::MAX));
        if let Err(error) = context
            .registry
            .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
        {
            log::error!("a client from {address} can't be watched: {error}");
            self.census.leave(address.ip());
            return;
        }
        set_options(&SockRef::from(&stream));
        context
            .timers
            .set(Alarm::Hello(id), context.now.tick.after(limits::HELLO_TIMEOUT));
        self.table
            .insert(id, Box::new(Connection::new(id, address.ip(), stream)));
    }

    /// The system tells of a socket. False if it isn't one of ours.
    pub fn ready(&mut self, id: ConnId, readable: bool, writable: bool) -> bool {
        let Some(conn) = self.table.get_mut(&id) else {
            return false;
        };
        if readable {
            conn.readable = true;
            self.unread.push(id);
        }
        if writable {
            conn.set_writable();
            if conn.can_send() {
                self.unsent.push(id);
            }
        }
        true
    }

    /// Reads what is there and hands it to the node: a bounded amount from each, and from all together.
    pub fn read(&mut self, node: &mut Node, scratch: &mut [u8], context: &mut Context<'_>) {
        while let Some(id) = self.held.pop() {
            self.unread.push(id);
        }
        let mut budget = Budget {
            frames: limits::CLIENT_FRAMES_PER_TURN,
            questions: limits::CLIENT_QUESTIONS_PER_TURN,
        };
        // Those whose turn it would have been go before those who had theirs. What comes back during the turn waits for the next.
        let (waiting, unread) = (self.waiting.len(), self.unread.len());
        for n in 0..waiting + unread {
            let list = if n < waiting {
                &mut self.waiting
            } else {
                &mut self.unread
            };
            let Some(id) = list.pop() else { break };
            if budget.frames == 0 {
                self.waiting.push(id);
            } else {
                self.read_one(id, &mut budget, node, scratch, context);
            }
        }
    }

    fn read_one(
        &mut self,
        id: ConnId,
        all: &mut Budget,
        node: &mut Node,
        scratch: &mut [u8],
        context: &mut Context<'_>,
    ) {
        let (mut frames, mut questions) = (limits::FRAMES_PER_TURN, limits::QUESTIONS_PER_TURN);
        let mut bytes = limits::READ_BYTES_PER_TURN;
        let Some(conn) = self.table.get_mut(&id) else { return };
        loop {
            let serving = matches!(conn.state, State::New | State::Open);
            let may_ask = all.questions > 0;
            match if serving {
                next(conn, node, context.now, may_ask)
            } else {
                Next::Incomplete
            } {
                Next::Taken { is_question } => {
                    if conn.state == State::New {
                        conn.state = State::Open;
                        context.timers.cancel(Alarm::Hello(id));
                    }
                    let question = usize::from(is_question);
                    (frames, questions) = (frames - 1, questions - question);
                    (all.frames, all.questions) = (all.frames - 1, all.questions - question);
                    if frames == 0 || questions == 0 || all.frames == 0 {
                        return self.unread.push(id);
                    }
                    continue;
                }
                Next::Held => return self.held.push(id),
                Next::Later => return self.waiting.push(id),
                Next::Choked => {
                    conn.choked = true;
                    return;
                }
                Next::Bad(text) => {
                    log::debug!("a client from {} is told: {text}", conn.address);
                    conn.last_words = Some(Box::new(Response::Fatal { text }));
                    self.closing(id, context);
                    return;
                }
                Next::Incomplete => {}
            }
            if conn.ended {
                return self.gone(id, node, context);
            }
            if !conn.readable {
                return;
            }
            if bytes == 0 {
                return self.unread.push(id);
            }
            let room = scratch.len().min(limits::READ_BYTES_PER_TURN);
            match conn.read(scratch.get_mut(..room).unwrap_or_default()) {
                Got::Bytes(n) => bytes = bytes.saturating_sub(n),
                Got::Drained | Got::End => {}
            }
        }
    }

    /// An answer for a client.
    pub fn reply(&mut self, id: ConnId, response: &Response) {
        if let Some(conn) = self.table.get_mut(&id) {
            conn.answer(response);
            self.unsent.push(id);
        }
    }

    /// A client's subscriptions may have something.
    pub fn deliver(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(&id) {
            conn.delivering = true;
            if conn.can_send() {
                self.unsent.push(id);
            }
        }
    }

    /// Closes a connection once its answers are sent.
    pub fn closing(&mut self, id: ConnId, context: &mut Context<'_>) {
        if let Some(conn) = self.table.get_mut(&id)
            && matches!(conn.state, State::New | State::Open)
        {
            conn.state = State::Closing;
            conn.input = super::buffer::Buffer::default();
            context.timers.cancel(Alarm::Hello(id));
            context
                .timers
                .set(Alarm::Linger(id), context.now.tick.after(limits::LINGER_TIMEOUT));
            self.unsent.push(id);
            self.unread.push(id);
        }
    }

    /// A client has not said hello in time.
    pub fn hello_timeout(&mut self, id: ConnId, context: &mut Context<'_>) {
        if let Some(conn) = self.table.get_mut(&id) {
            let text = "no hello came in time; this port speaks SyncNet's native protocol".to_owned();
            conn.answer(&Response::Fatal { text });
            self.closing(id, context);
        }
    }

    /// Sends what waits: to each client its answers, and then a slice of the rooms that it follows.
    pub fn flush(&mut self, node: &mut Node, context: &mut Context<'_>) {
        for _ in 0..self.unsent.len() {
            let Some(id) = self.unsent.pop() else { break };
            let Some(conn) = self.table.get_mut(&id) else { continue };
            if let Some(words) = conn.last_words.take() {
                conn.answer(&words);
            }
            match conn.send(node) {
                Sent::Broken => {
                    self.gone(id, node, context);
                    continue;
                }
                Sent::More => self.unsent.push(id),
                Sent::All if conn.state == State::Closing => {
                    // Our end is announced, and the socket lives on for a moment: to close it with bytes unread would make the
                    // system throw away what was said last.
                    conn.state = State::Lingering;
                    let _ = conn.stream.shutdown(Shutdown::Write);
                }
                Sent::All | Sent::Blocked => {}
            }
            if let Some(conn) = self.table.get_mut(&id)
                && conn.choked
                && !conn.is_full()
            {
                conn.choked = false;
                self.unread.push(id);
            }
        }
    }

    /// Takes a connection away, and tells the node.
    pub fn gone(&mut self, id: ConnId, node: &mut Node, context: &mut Context<'_>) {
        let Some(mut conn) = self.table.remove(&id) else { return };
        let _ = context.registry.deregister(&mut conn.stream);
        context.timers.cancel(Alarm::Hello(id));
        context.timers.cancel(Alarm::Linger(id));
        self.census.leave(conn.address);
        if conn.state != State::New {
            node.step(context.now, Input::ClientGone(id));
        }
    }
}

/// Hands the next request of a connection to the node, if it may be looked at now.
fn next(conn: &mut Connection<TcpStream>, node: &mut Node, now: Now, may_ask: bool) -> Next {
    if conn.input.is_empty() {
        return Next::Incomplete;
    }
    if conn.is_full() {
        return Next::Choked;
    }
    // Who hasn't said hello has no need for more, and costs no more.
    let max = match conn.state {
        State::New => limits::HELLO_BYTES_MAX,
        _ => limits::CLIENT_FRAME_BYTES_MAX,
    };
    match split(conn.input.pending(), max) {
        Split::Incomplete => Next::Incomplete,
        Split::TooLong(n) => Next::Bad(format!(
            "a frame of {n} bytes; the limit is {max}; this port speaks SyncNet's native protocol"
        )),
        Split::Complete { body, consumed } => {
            // Only commands wait for room: whoever asks how the server is, or whether it lives, is answered.
            let is_question = match command_in(body) {
                Some(_) if !node.accepts_commands(conn.id) => return Next::Held,
                Some(command) => {
                    node.command(now, conn.id, command);
                    false
                }
                None => match decode_request(body) {
                    // In no form that anybody writes: it would come past what bounds commands.
                    Ok(Request::Command(_)) => return Next::Bad("not a well-formed command".to_owned()),
                    Ok(_) if !may_ask => return Next::Later,
                    Ok(request) => {
                        node.step(now, Input::Client(conn.id, request));
                        true
                    }
                    Err(error) => return Next::Bad(format!("{error}; this port speaks SyncNet's native protocol")),
                },
            };
            conn.input.consume(consumed);
            Next::Taken { is_question }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_client_that_reads_nothing_fills_only_its_own_small_buffer() {
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(door.local_addr().unwrap()).unwrap();
        // So that it is known how much of what is sent the client's side holds.
        SockRef::from(&client).set_recv_buffer_size(4096).unwrap();
        let (mut stream, _) = door.accept().unwrap();
        set_options(&SockRef::from(&stream));
        assert!(stream.nodelay().unwrap());
        stream.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let error = loop {
            match stream.write(&[0; 64 * 1024]) {
                Ok(bytes) => sent += bytes,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(sent <= 4 * limits::CLIENT_SOCKET_BYTES, "{sent} bytes");
    }
}
