//! The simulated world: virtual time, and everything that is going to happen, in order. One seed, one history: whatever is drawn
//! comes from generators that the seed gave, and whatever happens at the same moment happens in the order in which it was planned.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use syncnet::log::sim_disk::SimDisk;
use syncnet::rng::Rng;
use syncnet::types::{Lsn, Span, Term, Tick};

use super::counts::Counts;
use super::faults::{Healing, Struck};
use super::net::{Bits, Net};
use super::oracle::Oracle;
use super::people::{Conn, Person};
use super::plan::{Plan, shown};
use super::quorums::Quorums;
use super::recipes::{Recipes, Step};
use super::sabotage::Sabotage;
use super::server::Server;
use super::threads::DiskStep;

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A server's turn of its poll loop.
    Turn { server: usize, life: u64 },
    /// The log writer of a server gets on.
    Disk { server: usize, life: u64, step: DiskStep },
    /// The log reader of a server is done with its next job.
    Read { server: usize, life: u64 },
    /// The housekeeper of a server's log gets on.
    Keep { server: usize, life: u64 },
    /// The server is started.
    Start { server: usize },
    /// Something comes out of a link.
    Bits {
        from: usize,
        to: usize,
        epoch: u64,
        bits: Bits,
        number: u64,
    },
    /// The server that dials tries to make a link.
    Dial { from: usize, to: usize },
    /// Has the link been silent for too long?
    Silence { at: usize, of: usize, epoch: u64 },
    /// A datagram arrives.
    Datagram { from: usize, to: usize, bytes: Vec<u8> },
    /// Bytes of a client arrive at its server, or of the server at its client. None: the end of the connection.
    Stream {
        conn: u64,
        to_server: bool,
        bytes: Option<Vec<u8>>,
        number: u64,
    },
    /// A client's attempt to connect comes to something.
    Connected { conn: u64 },
    /// The core of a client wants to be woken.
    Wake { person: usize, incarnation: u64 },
    /// A person does the next thing.
    Act { person: usize },
    /// The next fault comes.
    Fault,
    /// The moment of an ambush comes.
    Ambush(usize),
    /// The power of a server goes, if faults still come.
    PowerCut { server: usize },
    /// A fault ends.
    Heal(Healing),
    /// A recipe goes on.
    Recipe(Step),
}

/// What is going to happen, the earliest first, and what comes at the same moment in the order in which it was planned. Only the
/// times are sorted; what happens lies still in its place.
#[derive(Default)]
struct Queue {
    order: BinaryHeap<Reverse<(Tick, u64, usize)>>,
    places: Vec<Option<Happening>>,
    free: Vec<usize>,
    planned: u64,
}

impl Queue {
    fn put(&mut self, at: Tick, happening: Happening) {
        self.planned += 1;
        let place = self.free.pop().unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push(None);
        }
        self.places[place] = Some(happening);
        self.order.push(Reverse((at, self.planned, place)));
    }

    /// The next, if it isn't later than that.
    fn take_until(&mut self, end: Tick) -> Option<(Tick, Happening)> {
        let &Reverse((at, _, place)) = self.order.peek().filter(|next| next.0.0 <= end)?;
        self.order.pop();
        self.free.push(place);
        self.places[place].take().map(|happening| (at, happening))
    }
}

/// Everything there is.
pub struct World {
    pub plan: Plan,
    pub now: Tick,
    queue: Queue,
    /// For the network and whatever has no generator of its own.
    pub rng: Rng,
    pub servers: Vec<Server>,
    pub net: Net,
    pub people: Vec<Person>,
    pub conns: BTreeMap<u64, Conn>,
    pub conns_made: u64,
    pub oracle: Oracle,
    pub quorums: Quorums,
    pub counts: Counts,
    pub sabotage: Option<Sabotage>,
    /// For the sabotage of restored disks: each server's disk, and where its log ended.
    pub backups: Vec<(SimDisk, Lsn)>,
    /// The term of each server's last pre-vote, for the forger.
    pub asked_for: Vec<Term>,
    pub trace: bool,
    /// What the nodes told their operators, for scenarios.
    pub events: Vec<(Tick, usize, String)>,
    pub keep_events: bool,
    /// Whether faults still come.
    pub storm: bool,
    /// People whose clients hang, and what waits for them.
    pub hung: BTreeSet<usize>,
    pub frozen_people: Vec<(usize, Happening)>,
    /// Whether a server has had a configuration of its own.
    pub other_configs: bool,
    /// For the next fault, if the plan has each draw from a generator of its own.
    pub fault_rng: Rng,
    pub recipes: Recipes,
    /// The faults so far, also those that were left out.
    pub struck: Vec<Struck>,
    /// The numbers of the faults that strike, if not all do.
    pub only: Option<BTreeSet<usize>>,
    /// The first promise that was broken.
    pub failure: Option<String>,
}

impl World {
    /// A world in which no server has been started yet.
    pub fn new(plan: Plan) -> World {
        let mut rng = Rng::new(plan.seed ^ 0x5EED);
        let count = plan.servers();
        let servers = (0..count).map(|at| Server::new(at, &mut rng)).collect();
        World {
            now: Tick::from_ms(1_000),
            queue: Queue::default(),
            servers,
            net: Net::new(count),
            people: Vec::new(),
            conns: BTreeMap::new(),
            conns_made: 0,
            oracle: Oracle::new(count),
            quorums: Quorums::new(count),
            counts: Counts::default(),
            sabotage: None,
            backups: Vec::new(),
            asked_for: vec![Term(0); count],
            trace: false,
            events: Vec::new(),
            keep_events: false,
            storm: false,
            hung: BTreeSet::new(),
            frozen_people: Vec::new(),
            other_configs: false,
            fault_rng: Rng::new(0),
            recipes: Recipes::new(plan.seed),
            struck: Vec::new(),
            only: None,
            failure: None,
            rng,
            plan,
        }
    }

    /// Plans something for later.
    pub fn later(&mut self, after: Span, happening: Happening) {
        self.at(self.now.after(after), happening);
    }

    /// Plans something for a moment.
    pub fn at(&mut self, at: Tick, happening: Happening) {
        self.queue.put(at.max(self.now), happening);
    }

    /// Lets time pass up to a moment. False if a promise was broken.
    pub fn run_until(&mut self, end: Tick) -> bool {
        while self.failure.is_none() {
            let Some((at, happening)) = self.queue.take_until(end) else {
                break;
            };
            self.now = at;
            self.happen(happening);
        }
        self.now = self.now.max(end);
        self.failure.is_none()
    }

    /// Lets time pass.
    pub fn run_for(&mut self, span: Span) -> bool {
        self.run_until(self.now.after(span))
    }

    pub fn happen(&mut self, happening: Happening) {
        // What concerns a process that is stopped waits until it goes on.
        if let Some(server) = self.stopped_process(&happening) {
            self.servers[server].frozen.push(happening);
            return;
        }
        if let Some(person) = self.hung_person(&happening) {
            self.frozen_people.push((person, happening));
            return;
        }
        match happening {
            Happening::Turn { server, life } => self.turn(server, life),
            Happening::Disk { server, life, step } => self.disk_step(server, life, step),
            Happening::Read { server, life } => self.read_step(server, life),
            Happening::Keep { server, life } => self.keep_step(server, life),
            Happening::Start { server } => self.start(server),
            Happening::Bits {
                from,
                to,
                epoch,
                bits,
                number,
            } => self.bits_arrive(from, to, epoch, bits, number),
            Happening::Dial { from, to } => self.dial(from, to),
            Happening::Silence { at, of, epoch } => self.check_silence(at, of, epoch),
            Happening::Datagram { from, to, bytes } => self.datagram_arrives(from, to, bytes),
            Happening::Stream {
                conn,
                to_server,
                bytes,
                number,
            } => self.stream_arrives(conn, to_server, bytes, number),
            Happening::Connected { conn } => self.connect_ends(conn),
            Happening::Wake { person, incarnation } => self.wake_person(person, incarnation),
            Happening::Act { person } => self.act(person),
            Happening::Fault => self.next_fault(),
            Happening::Ambush(number) => self.next_ambush(number),
            Happening::PowerCut { server } if self.storm => self.power_cut(server),
            Happening::PowerCut { .. } => {}
            Happening::Heal(healing) => self.heal(&healing),
            Happening::Recipe(step) => self.recipe_step(step),
        }
    }

    fn stopped_process(&self, happening: &Happening) -> Option<usize> {
        let server = match *happening {
            Happening::Turn { server, .. }
            | Happening::Disk { server, .. }
            | Happening::Read { server, .. }
            | Happening::Keep { server, .. } => server,
            Happening::Silence { at, .. } => at,
            _ => return None,
        };
        self.servers[server].paused.then_some(server)
    }

    /// A promise was broken.
    pub fn fail(&mut self, text: String) {
        if self.failure.is_none() {
            self.say(|| format!("FAILED: {text}"));
            self.failure = Some(format!("at {}: {text}", shown(self.now).trim()));
        }
    }

    /// Notes the outcome of a check.
    pub fn check(&mut self, result: Result<(), String>) {
        if let Err(text) = result {
            self.fail(text);
        }
    }

    /// A line of the trace.
    pub fn say(&self, line: impl FnOnce() -> String) {
        if self.trace {
            println!("{} {}", shown(self.now), line());
        }
    }
}
