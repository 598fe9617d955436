//! One simulated server: a real node on a real log on a simulated disk, driven as the poll loop drives it. A turn reads what has
//! come, hands it in, gathers the effects; the log's threads are replaced by moments at which they get on.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use syncnet::cluster::message::Entry;
use syncnet::keep::keeper::Keeper;
use syncnet::keep::open::Opened;
use syncnet::log::reader::Reader;
use syncnet::log::reader_queue::{ReaderJob, ReaderQueue};
use syncnet::log::recovery::{OpenError, Options};
use syncnet::log::writer::Log;
use syncnet::log::{Append, ReadAnswer, ReadRequest, Recovered};
use syncnet::node::{Effect, Input, Node, Setup};
use syncnet::rng::Rng;
use syncnet::types::{AppendId, Boot, ConnId, DirectoryId, GroupId, Level, LogIndex, Lsn, Now, ServerId, Span, Tick};
use syncnet::wire::client::{Request, Response, encode_response};
use syncnet::wire::datagram::{Sealed, seal};

use super::ambushes::Ambush;
use super::clock::Clock;
use super::disk::ServerDisk;
use super::held::Held;
use super::net::Bits;
use super::plan::server_id;
use super::threads::DiskStep;
use super::world::{Happening, World};

/// How long a look at everything that is on a disk takes.
pub const SCRUB_WITHIN: Span = Span::from_ms(5_000);
/// Turns within a virtual tenth of a second; more is a loop that never rests.
const TURNS_MAX: u32 = 20_000;

/// Something that waits in the sockets of a server.
#[derive(Clone, Debug)]
pub enum Arrival {
    Bits { from: usize, epoch: u64, bits: Bits },
    Datagram { from: usize, bytes: Vec<u8> },
    Stream { conn: u64, bytes: Option<Vec<u8>> },
    Input(Input),
}

/// A machine and its data directory, and the process if it runs.
pub struct Server {
    pub at: usize,
    pub id: ServerId,
    pub disk: ServerDisk,
    pub directory: DirectoryId,
    /// The first entry that is in its log.
    pub first_kept: LogIndex,
    /// Whether the directory is new in the place of another.
    pub replaced: bool,
    pub(super) boot: Boot,
    /// Instead of the plan's.
    pub config: Option<Arc<syncnet::config::Config>>,
    /// Counts the processes: what was meant for an earlier one is void.
    pub life: u64,
    pub process: Option<Box<Process>>,
    /// Whether the machine answers (with resets) when no process does.
    pub powered: bool,
    pub paused: bool,
    pub frozen: Vec<Happening>,
    pub inbox: VecDeque<Arrival>,
    pub(super) rng: Rng,
    pub clock: Clock,
    turn_at: Option<Tick>,
    /// When turns are planned, also such as an earlier one has made pointless.
    turns_planned: Vec<Tick>,
    turns: (Tick, u32),
    pub disk_factor: u64,
    pub disk_hangs_until: Tick,
    /// The last hard state that a recovery has found.
    pub hard: Option<Recovered>,
    /// Where its log ended when it was last opened: what the identity file remembers.
    pub reached: Lsn,
    /// Whether the process was asked to stop.
    pub stopping: bool,
    /// Whether its disk has lost something that isn't mended yet.
    pub damaged: bool,
    /// When that was.
    pub damaged_at: Tick,
    /// The entry at which a checkpoint was asked for in the end, and why there is none, once that is known.
    pub unmade: Option<(LogIndex, Option<String>)>,
    /// What its log must hold.
    pub held: Held,
    /// What waits for its log writer.
    pub ambush: Option<Ambush>,
}

/// A running process.
pub struct Process {
    pub node: Node,
    pub(super) log: Log<ServerDisk>,
    pub(super) reader: Reader<ServerDisk>,
    pub(super) appends: VecDeque<Append>,
    pub(super) writing: bool,
    pub(super) writes: u64,
    pub(super) persisted: AppendId,
    pub(super) jobs: ReaderQueue,
    pub(super) reading: bool,
    pub(super) keeper: Keeper<ServerDisk>,
    /// When the housekeeper gets on.
    pub(super) keep_at: Option<Tick>,
    datagrams: u64,
    /// Connections whose subscriptions may have something.
    pub ready: BTreeSet<u64>,
}

impl Server {
    pub fn new(at: usize, rng: &mut Rng) -> Server {
        Server {
            at,
            id: server_id(at),
            disk: ServerDisk::default(),
            directory: DirectoryId(rng.draw() | 1),
            first_kept: LogIndex(1),
            replaced: false,
            boot: Boot(0),
            config: None,
            life: 0,
            process: None,
            powered: true,
            paused: false,
            frozen: Vec::new(),
            inbox: VecDeque::new(),
            rng: rng.child(),
            clock: Clock::new(),
            turn_at: None,
            turns_planned: Vec::new(),
            turns: (Tick(0), 0),
            disk_factor: 1,
            disk_hangs_until: Tick(0),
            hard: None,
            reached: Lsn(0),
            stopping: false,
            damaged: false,
            damaged_at: Tick(0),
            unmade: None,
            held: Held::default(),
            ambush: None,
        }
    }

    pub fn node(&self) -> Option<&Node> {
        self.process.as_ref().map(|process| &process.node)
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some() && !self.paused
    }

    fn now(&self, world: Tick) -> Now {
        self.clock.now(world)
    }
}

/// Opens the log of a directory as a starting server does.
pub fn open_log(world: &World, at: usize, disk: ServerDisk) -> Result<Opened<ServerDisk>, OpenError> {
    let options = Options {
        segment_size: world.plan.config.log.segment_size,
        groups: vec![GroupId::ROOT],
        reached: world.servers[at].reached,
        checkpoint: None,
    };
    Opened::open(disk, world.servers[at].directory, options)
}

/// Entries as they stand on the disk of a server, a bounded number of them.
pub fn read_entries(reader: &mut Reader<ServerDisk>, from: LogIndex, to: LogIndex) -> Result<Vec<Entry>, String> {
    let (group, bytes_max) = (GroupId::ROOT, 1 << 20);
    match reader.read(&ReadRequest::Entries {
        token: 0,
        group,
        from,
        to,
        bytes_max,
    }) {
        Ok(ReadAnswer::Entries { entries, .. }) => Ok(entries),
        // Somebody has them, and will be asked.
        Ok(ReadAnswer::Damaged { .. }) => Ok(Vec::new()),
        other => Err(format!("entries from {from} to {to} can't be read: {other:?}")),
    }
}

impl World {
    // --- The life of a process ------------------------------------------------------------------

    /// Starts the server's process, if none runs.
    pub fn start(&mut self, at: usize) {
        if self.servers[at].process.is_some() {
            return;
        }
        self.check_syncs(at, false, false);
        let mut opened = match open_log(self, at, self.servers[at].disk.clone()) {
            Ok(opened) => opened,
            Err(OpenError::Io { .. }) => {
                self.check_syncs(at, false, true);
                // The disk failed once more; whoever watches over the server starts it again.
                self.counts.one("failed disks");
                return self.later(Span::from_ms(300), Happening::Start { server: at });
            }
            Err(error @ OpenError::Untrusted { .. }) if self.servers.len() > 1 => {
                let why = error.to_string();
                self.set_aside(at, &why);
                match open_log(self, at, self.servers[at].disk.clone()) {
                    Ok(opened) => opened,
                    Err(error) => return self.fail(format!("{} can't begin anew: {error}", server_id(at))),
                }
            }
            Err(error) => return self.fail(format!("{} can't be started: {error}", server_id(at))),
        };
        if opened.report.cut_bytes > 0 {
            self.counts.one("torn ends cut off");
            self.counts.add("bytes cut off", opened.report.cut_bytes);
        }
        self.counts
            .highest("most segments of a log", opened.report.segments as u64);
        if opened.report.rewritten_bytes > 0 {
            self.counts.one("ends written anew");
        }
        self.check_syncs(at, true, true);
        self.check_opened(at, &mut opened);
        let recovered = opened.recovered;
        if !recovered.holes.is_empty() {
            self.counts.add("holes found at a start", recovered.holes.len() as u64);
        }
        let result = self.oracle.restarted(at, &recovered);
        self.check(result);
        let config = Arc::clone(self.servers[at].config.as_ref().unwrap_or(&self.plan.config));
        self.quorums.started(at, self.servers[at].directory, &recovered);
        let server = &mut self.servers[at];
        server.reached = opened.log.end();
        server.life += 1;
        server.boot = server.boot.next();
        server.powered = true;
        server.stopping = false;
        server.clock.start_at(server.rng.below(1 << 40), self.now);
        server.hard = Some(recovered.clone());
        server.inbox.clear();
        let setup = Setup {
            config,
            me: server.id,
            directory: server.directory,
            boot: server.boot,
            recovered,
            state: opened.state,
            replaced: server.replaced,
            seed: server.rng.draw(),
        };
        let node = match Node::new(setup, server.now(self.now)) {
            Ok(node) => node,
            Err(text) => return self.fail(format!("{} can't be started: {text}", server_id(at))),
        };
        let mut keeper = opened.keeper;
        keeper.scrub_within(SCRUB_WITHIN);
        server.process = Some(Box::new(Process {
            node,
            log: opened.log,
            reader: opened.reader,
            appends: VecDeque::new(),
            writing: false,
            writes: 0,
            persisted: AppendId(0),
            jobs: ReaderQueue::default(),
            reading: false,
            keeper,
            keep_at: None,
            datagrams: 0,
            ready: BTreeSet::new(),
        }));
        let life = server.life;
        self.counts.one("starts");
        self.say(|| format!("{} starts, life {life}", server_id(at)));
        self.net_started(at);
        let step = DiskStep::Prewrite;
        self.later(Span::from_ms(5), Happening::Disk { server: at, life, step });
        self.keep_at(at, self.now.after(Span::from_ms(5)));
        self.wake_server(at);
    }

    /// The process is gone, with what it had in memory. The other ends of its connections notice if the machine goes on.
    pub fn end_process(&mut self, at: usize, machine_goes_on: bool) {
        let server = &mut self.servers[at];
        if server.process.take().is_none() {
            return;
        }
        server.life += 1;
        server.paused = false;
        server.frozen.clear();
        server.inbox.clear();
        server.turn_at = None;
        server.turns_planned.clear();
        self.net_ended(at, machine_goes_on);
        self.streams_ended(at, machine_goes_on);
    }

    /// What is on the disk doesn't count any more: it is put aside, and the server begins anew with another directory.
    pub fn set_aside(&mut self, at: usize, why: &str) {
        self.counts.one("directories set aside");
        self.say(|| format!("{} begins anew: {why}", server_id(at)));
        self.oracle.begins_anew(at);
        self.holds_nothing(at);
        let server = &mut self.servers[at];
        server.disk.renew();
        server.directory = DirectoryId(server.rng.draw() | 1);
        server.boot = Boot(0);
        server.reached = Lsn(0);
        server.replaced = true;
    }

    /// The node has said that its directory's word doesn't count any more.
    fn renounce(&mut self, at: usize, why: &str) {
        self.counts.one("directories renounced");
        self.end_process(at, true);
        self.set_aside(at, why);
        self.later(Span::from_ms(200), Happening::Start { server: at });
    }

    /// The process dies; what it wrote stays in the page cache.
    pub fn kill(&mut self, at: usize) {
        if let Some(process) = &mut self.servers[at].process {
            self.counts.one("kills");
            // Killed in the middle of a write.
            if process.writing && self.rng.chance(50) {
                let _ = process.log.flush();
            }
            self.say(|| format!("{} is killed", server_id(at)));
            self.end_process(at, true);
        }
        self.servers[at].disk.disk.kill();
    }

    /// The machine loses power.
    pub fn power_cut(&mut self, at: usize) {
        self.counts.one("power cuts");
        if let Some(process) = &mut self.servers[at].process
            && process.writing
            && self.rng.chance(50)
        {
            let _ = process.log.flush();
        }
        self.say(|| format!("{} loses power", server_id(at)));
        self.end_process(at, false);
        self.servers[at].powered = false;
        let mut rng = self.rng.child();
        self.servers[at].disk.disk.power_cut(&mut rng);
        self.servers[at].held.lossy = true;
        self.restore_backup(at);
    }

    pub fn pause(&mut self, at: usize) {
        if self.servers[at].process.is_some() && !self.servers[at].paused {
            self.say(|| format!("{} is stopped (SIGSTOP)", server_id(at)));
            self.servers[at].paused = true;
        }
    }

    pub fn resume(&mut self, at: usize) {
        if !self.servers[at].paused {
            return;
        }
        self.say(|| format!("{} goes on", server_id(at)));
        self.servers[at].paused = false;
        self.wake_server(at);
        for happening in std::mem::take(&mut self.servers[at].frozen) {
            // What waits in the sockets is read before silence is believed.
            let late = matches!(happening, Happening::Silence { .. });
            self.later(Span(if late { 1_000 } else { 0 }), happening);
        }
    }

    // --- Turns ----------------------------------------------------------------------------------

    /// Has the server take a turn soon.
    pub fn wake_server(&mut self, at: usize) {
        let busy = self.plan.turn.draw(&mut self.servers[at].rng);
        self.turn_at(at, self.now.after(busy));
    }

    fn turn_at(&mut self, at: usize, when: Tick) {
        let server = &mut self.servers[at];
        if server.process.is_none() || server.turn_at.is_some_and(|planned| planned <= when) {
            return;
        }
        server.turn_at = Some(when);
        // The early swarm planned the same turn anew each time, and its seeds mean that.
        if self.plan.faults_apart {
            if server.turns_planned.contains(&when) {
                return;
            }
            server.turns_planned.push(when);
        }
        let life = server.life;
        self.at(when, Happening::Turn { server: at, life });
    }

    pub fn turn(&mut self, at: usize, life: u64) {
        let server = &mut self.servers[at];
        if server.life == life {
            server.turns_planned.retain(|&planned| planned > self.now);
        }
        if server.life != life || server.turn_at.is_none_or(|planned| planned > self.now) {
            return;
        }
        server.turn_at = None;
        let (since, turns) = &mut server.turns;
        if self.now.since(*since) > Span::from_ms(100) {
            (*since, *turns) = (self.now, 0);
        }
        *turns += 1;
        if *turns > TURNS_MAX {
            return self.fail(format!("{} never rests: {TURNS_MAX} turns in 100 ms", server_id(at)));
        }
        for _ in 0..self.servers[at].inbox.len() {
            let Some(arrival) = self.servers[at].inbox.pop_front() else {
                break;
            };
            for input in self.read_socket(at, arrival) {
                self.step(at, input);
            }
        }
        let held_back = self.take_requests(at);
        let (now, due) = {
            let server = &self.servers[at];
            let now = server.now(self.now);
            let deadline = server.node().and_then(Node::deadline);
            (now, deadline.is_some_and(|deadline| deadline <= now.tick))
        };
        if due {
            self.step(at, Input::Timer);
        }
        self.drain(at);
        self.pump(at);
        self.drain(at);
        self.observe(at);
        let Some(deadline) = self.servers[at].node().map(Node::deadline) else {
            return;
        };
        if let Some(deadline) = deadline {
            let soonest = self.now.after(self.plan.turn.draw(&mut self.rng));
            // Rounded up, as a poll's time-out is.
            let when = if deadline <= now.tick {
                soonest
            } else {
                self.servers[at].clock.world_time(deadline).max(soonest)
            };
            self.turn_at(at, when);
        }
        if held_back {
            self.turn_at(at, self.now.after(Span::from_ms(1)));
        }
    }

    pub fn step(&mut self, at: usize, input: Input) {
        let now = self.servers[at].now(self.now);
        self.trace_input(at, &input);
        let result = self.quorums.hears(at, &input);
        self.check(result);
        let Some(process) = &mut self.servers[at].process else {
            return;
        };
        match input {
            // As the server does: of bytes that stay where they are.
            Input::Client(conn, Request::Command(bytes)) => process.node.command(now, conn, &bytes),
            input => process.node.step(now, input),
        }
        if self.plan.drain_each {
            self.drain(at);
        }
    }

    fn drain(&mut self, at: usize) {
        while let Some(process) = &mut self.servers[at].process
            && let Some(effect) = process.node.poll()
        {
            self.effect(at, effect);
        }
    }

    fn trace_input(&self, at: usize, input: &Input) {
        self.say(|| {
            let mut text = format!("{input:?}");
            text.truncate(text.char_indices().nth(220).map_or(text.len(), |(end, _)| end));
            format!("{} < {text}", server_id(at))
        });
    }

    fn effect(&mut self, at: usize, effect: Effect) {
        self.say(|| {
            let mut text = format!("{effect:?}");
            text.truncate(text.char_indices().nth(220).map_or(text.len(), |(end, _)| end));
            format!("{} > {text}", server_id(at))
        });
        match effect {
            Effect::Append(append) => self.write(at, append),
            Effect::Index(items) => self.reader_job(at, ReaderJob::Index(items)),
            Effect::Read(request) => self.reader_job(at, ReaderJob::Read(request)),
            Effect::Peer(to, message) => {
                self.watch_votes(at, to, &message);
                let result = self.oracle.sends(at, to, &message);
                self.check(result);
                if let Some(process) = &self.servers[at].process {
                    let result = self.quorums.says(at, to, &message, process.node.cluster());
                    self.check(result);
                }
                if !self.loses(at, to, &message) {
                    self.send_to_peer(at, to, &message);
                }
            }
            Effect::Datagram(datagram) => {
                self.servers[at].held.says(&datagram);
                let Some(process) = &mut self.servers[at].process else {
                    return;
                };
                process.datagrams += 1;
                let sealed = Sealed {
                    sender: process.node.sender(),
                    sequence: process.datagrams,
                    datagram,
                };
                let bytes = seal(&sealed, self.plan.config.secret.as_ref());
                self.multicast(at, &bytes);
            }
            Effect::Reply(conn, response) => {
                match &response {
                    Response::Redirect { .. } => self.counts.one("redirects"),
                    Response::Resend { .. } => self.counts.one("resends asked for"),
                    _ => {}
                }
                if let Some(conn) = self.conns.get_mut(&conn.0) {
                    encode_response(&response, &mut conn.output);
                    let id = conn.id;
                    self.flush(id);
                }
            }
            Effect::Usage(..) => self.fail("nobody here asks for what only a system knows".to_string()),
            Effect::Deliver(conn) => {
                if let Some(process) = &mut self.servers[at].process {
                    process.ready.insert(conn.0);
                }
            }
            Effect::Close(conn) => {
                if let Some(conn) = self.conns.get_mut(&conn.0) {
                    conn.closing = true;
                    let id = conn.id;
                    self.flush(id);
                }
            }
            Effect::Event(event) => {
                self.say(|| format!("{} says ({:?}): {}", server_id(at), event.level, event.text));
                // Where a disk was damaged it is said; that servers are at odds is never right.
                let spoilt = self.servers.iter().any(|server| server.damaged);
                let odds = event.text.contains("differ") || event.text.contains("also claims");
                if event.level == Level::Error && (odds || !spoilt) {
                    self.fail(format!("{} says: {}", server_id(at), event.text));
                }
                if self.keep_events {
                    self.events.push((self.now, at, event.text));
                }
            }
            Effect::Stopped => {
                // Its last words may be acknowledgements.
                self.observe(at);
                if let Some(process) = &mut self.servers[at].process {
                    let _ = process.log.flush();
                    let _ = process.log.close();
                    self.counts.one("orderly stops");
                    self.say(|| format!("{} has stopped", server_id(at)));
                    self.end_process(at, true);
                }
            }
            Effect::Seed(rooms) => self.reader_job(at, ReaderJob::Seed(rooms)),
            Effect::Trim(index) => self.reader_job(at, ReaderJob::Trim(index)),
            Effect::Keep(job) => self.keep_job(at, job),
            Effect::Renounce(why) => self.renounce(at, &why),
            Effect::Misconfigured(text) => self.fail(format!("{}: misconfigured: {text}", server_id(at))),
        }
    }

    // --- What can be seen of it -------------------------------------------------------------------

    /// Who leads, as far as running servers say so of themselves.
    pub fn leaders(&self) -> Vec<usize> {
        let leads = |server: &&Server| {
            server
                .node()
                .is_some_and(|node| node.cluster().role() == syncnet::cluster::Role::Leader)
        };
        self.servers.iter().filter(leads).map(|server| server.at).collect()
    }

    /// The state of a server is looked at after each of its turns.
    fn observe(&mut self, at: usize) {
        let Some(process) = &mut self.servers[at].process else {
            return;
        };
        let leads = process.node.cluster().role() == syncnet::cluster::Role::Leader;
        let in_flight = leads && self.people.iter().any(|person| person.core.unacknowledged() > 0);
        let reader = &mut process.reader;
        let mut older = |from, to| read_entries(reader, from, to);
        let result = self
            .oracle
            .observe(at, &process.node, in_flight, &mut self.counts, &mut older);
        let counted = self.quorums.observe(at, process.node.cluster(), &mut self.counts);
        self.check(result.and(counted));
    }

    /// How far the server has applied; 0 if it doesn't run.
    pub fn applied(&self, at: usize) -> LogIndex {
        self.servers[at]
            .node()
            .map_or(LogIndex(0), |node| node.state().applied())
    }

    /// Whether a request of this connection would be taken.
    pub fn accepts(&self, at: usize, conn: u64) -> bool {
        self.servers[at]
            .node()
            .is_some_and(|node| node.accepts_commands(ConnId(conn)))
    }
}
