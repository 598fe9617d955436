//! The connections of clients: ordered streams of bytes, cut into frames where they arrive. A server sends no more than the client's
//! window takes, so that slow readers are slow.

use syncnet::client::calls::Input as ClientInput;
use syncnet::limits;
use syncnet::node::Input;
use syncnet::types::{ConnId, Tick};
use syncnet::wire::client::{Request, decode_request, decode_response};
use syncnet::wire::frame::{Split, split};

use super::people::Conn;
use super::plan::server_id;
use super::server::Arrival;
use super::world::{Happening, World};

impl World {
    /// A client begins to connect.
    pub fn connect(&mut self, person: usize, address: &str) {
        let server = (0..self.servers.len()).find(|&at| address == format!("{}:8000", server_id(at)));
        let Some(server) = server else {
            return self.fail(format!("a client connects to {address}, where nobody is"));
        };
        self.conns_made += 1;
        let id = self.conns_made;
        let conn = Conn::new(id, person, self.people[person].incarnation, server);
        self.conns.insert(id, conn);
        self.people[person].conn = Some(id);
        let delay = self.plan.client.draw(&mut self.rng);
        self.later(delay.times(2), Happening::Connected { conn: id });
    }

    pub fn connect_ends(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (person, server) = (conn.person, conn.server);
        if !conn.client_open {
            self.conns.remove(&id);
            return;
        }
        if self.net.clients_cut.contains(&(person, server)) || !self.servers[server].powered {
            // Nothing comes back; the client gives up by itself.
            return;
        }
        if self.servers[server].process.is_none() {
            self.conns.remove(&id);
            self.people[person].conn = None;
            return self.tell_person(person, ClientInput::ConnectFailed("connection refused".into()));
        }
        let life = self.servers[server].life;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.server_open = true;
            conn.life = life;
        }
        self.tell_person(person, ClientInput::Connected);
    }

    /// Puts bytes (or the end) on the way.
    pub fn put_on_stream(&mut self, id: u64, to_server: bool, bytes: Option<Vec<u8>>) {
        self.net.numbers += 1;
        self.deliver_stream(id, to_server, bytes, self.net.numbers);
    }

    fn deliver_stream(&mut self, id: u64, to_server: bool, bytes: Option<Vec<u8>>, number: u64) {
        let delay = self.plan.client.draw(&mut self.rng);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if self.net.clients_cut.contains(&(conn.person, conn.server)) {
            conn.stalled.insert(number, (to_server, bytes));
            return;
        }
        let last = &mut conn.last[usize::from(to_server)];
        let at = self.now.after(delay).max(Tick(last.0 + 1));
        *last = at;
        self.at(
            at,
            Happening::Stream {
                conn: id,
                to_server,
                bytes,
                number,
            },
        );
    }

    /// The connections between a client and a server work again.
    pub fn uncut_client(&mut self, person: usize, server: usize) {
        self.net.clients_cut.remove(&(person, server));
        let of = |conn: &&mut Conn| conn.person == person && conn.server == server;
        let mut waiting = Vec::new();
        for conn in self.conns.values_mut().filter(of) {
            let stalled = std::mem::take(&mut conn.stalled);
            waiting.extend(
                stalled
                    .into_iter()
                    .map(|(number, (to_server, bytes))| (conn.id, number, to_server, bytes)),
            );
        }
        for (id, number, to_server, bytes) in waiting {
            self.deliver_stream(id, to_server, bytes, number);
        }
    }

    pub fn stream_arrives(&mut self, id: u64, to_server: bool, bytes: Option<Vec<u8>>, number: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if self.net.clients_cut.contains(&(conn.person, conn.server)) {
            conn.stalled.insert(number, (to_server, bytes));
            return;
        }
        let server = conn.server;
        if to_server {
            let there = self.servers[server].process.is_some() && self.servers[server].life == conn.life;
            if there && conn.server_open {
                self.arrive(server, Arrival::Stream { conn: id, bytes });
            } else if !conn.client_open {
                self.conns.remove(&id);
            } else if self.servers[server].powered {
                self.put_on_stream(id, false, None);
            }
            return;
        }
        let person = conn.person;
        if !conn.client_open {
            return;
        }
        let Some(bytes) = bytes else {
            conn.client_open = false;
            let server_open = conn.server_open;
            if !server_open {
                self.conns.remove(&id);
            }
            self.people[person].conn = None;
            return self.tell_person(person, ClientInput::Lost("connection reset".into()));
        };
        conn.in_flight = conn.in_flight.saturating_sub(bytes.len());
        conn.client_input.extend_from_slice(&bytes);
        let frames = match take_frames(&mut conn.client_input, limits::CLIENT_FRAME_BYTES_MAX) {
            Ok(frames) => frames,
            Err(text) => return self.fail(format!("what {} sends to a client: {text}", server_id(server))),
        };
        if conn.server_open {
            // There is room in the window again.
            if let Some(process) = &mut self.servers[server].process {
                process.ready.insert(id);
            }
            self.wake_server(server);
        }
        for body in frames {
            match decode_response(&body) {
                Ok(response) if self.people[person].conn == Some(id) => {
                    self.tell_person(person, ClientInput::Response(response));
                }
                Ok(_) => {}
                Err(error) => self.fail(format!("a response of {}: {error}", server_id(server))),
            }
        }
    }

    /// The client gives up its connection.
    pub fn disconnect(&mut self, person: usize) {
        let Some(id) = self.people[person].conn.take() else {
            return;
        };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.client_open = false;
            self.put_on_stream(id, true, None);
        }
    }

    /// Both ends of a client's connection hear that it is gone.
    pub fn reset_stream(&mut self, person: usize) {
        let Some(id) = self.people[person].conn else { return };
        self.counts.one("client connections reset");
        self.put_on_stream(id, false, None);
        self.put_on_stream(id, true, None);
    }

    /// The server reads what came of a client.
    pub fn read_stream(&mut self, _at: usize, id: u64, bytes: Option<Vec<u8>>) -> Option<Input> {
        let conn = self.conns.get_mut(&id)?;
        let Some(bytes) = bytes else {
            return self.close_at_server(id);
        };
        conn.input.extend_from_slice(&bytes);
        let frames = match take_frames(&mut conn.input, limits::CLIENT_FRAME_BYTES_MAX) {
            Ok(frames) => frames,
            Err(text) => {
                self.fail(format!("what a client sends: {text}"));
                return None;
            }
        };
        for body in frames {
            match decode_request(&body) {
                Ok(request) => conn.requests.push_back(request),
                Err(error) => {
                    self.fail(format!("a request: {error}"));
                    return None;
                }
            }
        }
        None
    }

    /// The connection is gone at the server's end.
    fn close_at_server(&mut self, id: u64) -> Option<Input> {
        let conn = self.conns.get_mut(&id)?;
        if !std::mem::take(&mut conn.server_open) {
            return None;
        }
        if let Some(process) = &mut self.servers[conn.server].process {
            process.ready.remove(&id);
        }
        if !conn.client_open {
            self.conns.remove(&id);
        }
        Some(Input::ClientGone(ConnId(id)))
    }

    /// Hands in the requests that wait, as far as the node takes them. Whether some had to wait.
    pub fn take_requests(&mut self, at: usize) -> bool {
        let of = |conn: &&Conn| conn.server == at && conn.server_open && !conn.requests.is_empty();
        let waiting: Vec<u64> = self.conns.values().filter(of).map(|conn| conn.id).collect();
        let mut held_back = false;
        for id in waiting {
            loop {
                let accepts = self.accepts(at, id);
                let Some(conn) = self.conns.get_mut(&id) else { break };
                if conn.closing {
                    conn.requests.clear();
                }
                let full = conn.output.len() > limits::OUTPUT_BYTES_MAX;
                match conn.requests.front() {
                    None => break,
                    Some(Request::Command(_)) if !accepts || full => {
                        held_back = true;
                        self.counts.one("commands held back");
                        break;
                    }
                    Some(_) => {}
                }
                if let Some(request) = conn.requests.pop_front() {
                    self.counts.highest("most requests waiting", conn_len(&self.conns, id));
                    self.step(at, Input::Client(ConnId(id), request));
                }
            }
        }
        held_back
    }

    /// Sends items to the connections that may have some.
    pub fn pump(&mut self, at: usize) {
        let Some(process) = &mut self.servers[at].process else {
            return;
        };
        let ready = std::mem::take(&mut process.ready);
        for id in ready {
            loop {
                self.flush(id);
                let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.server_open && !conn.closing) else {
                    break;
                };
                let Some(process) = &mut self.servers[at].process else {
                    return;
                };
                let room = self.plan.people.window.saturating_sub(conn.in_flight);
                if room == 0 || !conn.output.is_empty() {
                    // Goes on when the client has read something.
                    process.ready.insert(id);
                    break;
                }
                let Some(slice) = process.node.pump(ConnId(id)) else {
                    break;
                };
                let take = slice.len().min(room);
                conn.output.extend_from_slice(&slice[..take]);
                let rest = process.node.taken(ConnId(id), take);
                if !rest.is_empty() {
                    self.counts.one("items cut in two");
                }
                conn.output.extend_from_slice(rest);
            }
        }
    }

    /// Sends what the window takes of a connection's output.
    pub fn flush(&mut self, id: u64) {
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.server_open) else {
            return;
        };
        let room = self.plan.people.window.saturating_sub(conn.in_flight);
        let take = conn.output.len().min(room);
        if take > 0 {
            let bytes: Vec<u8> = conn.output.drain(..take).collect();
            conn.in_flight += bytes.len();
            self.put_on_stream(id, false, Some(bytes));
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.closing && conn.output.is_empty() {
            let server = conn.server;
            self.put_on_stream(id, false, None);
            if let Some(gone) = self.close_at_server(id) {
                self.servers[server].inbox.push_back(Arrival::Input(gone));
                self.wake_server(server);
            }
        }
    }

    /// A server's process has ended: its clients hear of it if the machine goes on.
    pub fn streams_ended(&mut self, at: usize, machine_goes_on: bool) {
        let of = |conn: &&mut Conn| conn.server == at && conn.server_open;
        let mut told = Vec::new();
        for conn in self.conns.values_mut().filter(of) {
            conn.server_open = false;
            conn.requests.clear();
            told.push((conn.id, conn.client_open));
        }
        for (id, client_open) in told {
            if !client_open {
                self.conns.remove(&id);
            } else if machine_goes_on {
                self.put_on_stream(id, false, None);
            }
        }
    }
}

fn conn_len(conns: &std::collections::BTreeMap<u64, Conn>, id: u64) -> u64 {
    conns.get(&id).map_or(0, |conn| conn.requests.len()) as u64
}

/// The bodies of the whole frames at the beginning of a stream.
fn take_frames(stream: &mut Vec<u8>, max: usize) -> Result<Vec<Vec<u8>>, String> {
    let mut bodies = Vec::new();
    let mut used = 0;
    loop {
        match split(&stream[used..], max) {
            Split::Complete { body, consumed } => {
                bodies.push(body.to_vec());
                used += consumed;
            }
            Split::Incomplete => break,
            Split::TooLong(length) => return Err(format!("a frame of {length} bytes")),
        }
    }
    stream.drain(..used);
    Ok(bodies)
}
