//! A small world for the consensus core: servers, links, datagrams and disks in virtual time, and the promises checked at
//! every step. Processing takes no time, messages and disks take some, and everything is decided by one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::disk::{Checkpoint, Disk, config};
use crate::cluster::message::{CheckpointId, Datagram, Entry, EntryKind, Hole, Message, Record};
use crate::cluster::{Cluster, Identity, Purpose, Role};
use crate::config::{Config, Election, LeaderMode};
use crate::rng::Rng;
use crate::types::{AppendId, Blob, Boot, DirectoryId, Level, LogIndex, Now, ServerId, Span, Term, Tick};

/// What can go wrong at random, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chances {
    /// A frame is lost although its link lives.
    pub lose_message: u64,
    /// A datagram is lost.
    pub lose_datagram: u64,
    /// A frame overtakes others.
    pub reorder: u64,
}

pub struct Server {
    pub cluster: Option<Cluster>,
    pub directory: DirectoryId,
    pub boot: Boot,
    pub disk: Disk,
    /// Handed to the disk, not durable yet.
    pub(super) unsynced: VecDeque<(AppendId, LogIndex, Vec<Record>)>,
    pub(super) next_append: AppendId,
    hung_until: Tick,
    /// No append becomes durable before this.
    stalled_until: Tick,
    pub(super) commit_seen: LogIndex,
    pub(super) reads: BTreeMap<u64, LogIndex>,
    pub reads_done: u64,
    /// Whether the directory is new in the place of another.
    pub replaced: bool,
    /// What it said when its directory's word didn't count any more.
    pub renounced: Option<String>,
    /// Checkpoints that it has got.
    pub installed: u64,
    /// How far its state machine has come.
    pub(super) applied: LogIndex,
}

#[derive(Debug)]
pub(super) enum Happening {
    Message {
        from: ServerId,
        to: ServerId,
        epoch: u64,
        message: Message,
    },
    Datagram {
        from: ServerId,
        to: ServerId,
        directory: DirectoryId,
        datagram: Datagram,
    },
    LinkUp {
        a: ServerId,
        b: ServerId,
    },
    LinkDown {
        at: ServerId,
        other: ServerId,
        epoch: u64,
    },
    Persisted {
        at: ServerId,
        boot: Boot,
        id: AppendId,
    },
    Entries {
        at: ServerId,
        boot: Boot,
        follower: ServerId,
        purpose: Purpose,
        from: LogIndex,
        entries: Vec<Entry>,
        damaged: Option<Hole>,
    },
    Piece {
        at: ServerId,
        boot: Boot,
        follower: ServerId,
        piece: Option<(CheckpointId, u64, Blob)>,
    },
    Store {
        at: ServerId,
        boot: Boot,
        id: CheckpointId,
        offset: u64,
        bytes: Blob,
    },
}

pub struct World {
    pub config: Arc<Config>,
    pub now: Tick,
    pub rng: Rng,
    pub chances: Chances,
    pub servers: BTreeMap<ServerId, Server>,
    happenings: BTreeMap<(Tick, u64), Happening>,
    counter: u64,
    /// The links that are up, with the number of each.
    pub(super) links: BTreeMap<(ServerId, ServerId), u64>,
    pub cuts: BTreeSet<(ServerId, ServerId)>,
    /// The last arrival on each direction of each link, so that frames stay in order.
    pub(super) arrivals: BTreeMap<(ServerId, ServerId), Tick>,
    /// Every entry that anybody has said to be committed.
    pub committed: BTreeMap<LogIndex, Entry>,
    pub(super) leaders: BTreeMap<Term, ServerId>,
    /// Events of all servers, from warnings up also on failure.
    pub events: Vec<(Tick, ServerId, Level, String)>,
    pub misconfigured: Vec<(ServerId, String)>,
    /// Whose disk may lose what it has acknowledged.
    pub victim: Option<ServerId>,
    /// Every checkpoint of which a piece was ever handed out: whoever has all of one knows what is in it.
    pub(super) handed_out: Vec<Checkpoint>,
}

pub fn id(n: usize) -> ServerId {
    ServerId::new(&format!("s{n}")).unwrap()
}

pub(super) fn pair(a: ServerId, b: ServerId) -> (ServerId, ServerId) {
    (a.min(b), a.max(b))
}

impl World {
    pub fn new(config: Config, seed: u64) -> World {
        let config = Arc::new(config);
        let server = |n: u64| Server {
            cluster: None,
            directory: DirectoryId(100 + n),
            boot: Boot(0),
            disk: Disk::default(),
            unsynced: VecDeque::new(),
            next_append: AppendId(1),
            hung_until: Tick(0),
            stalled_until: Tick(0),
            commit_seen: LogIndex(0),
            reads: BTreeMap::new(),
            reads_done: 0,
            replaced: false,
            renounced: None,
            installed: 0,
            applied: LogIndex(0),
        };
        World {
            servers: (1..).zip(&config.servers).map(|(n, s)| (s.id, server(n))).collect(),
            config,
            now: Tick::from_ms(1000),
            rng: Rng::new(seed),
            chances: Chances::default(),
            happenings: BTreeMap::new(),
            counter: 0,
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            arrivals: BTreeMap::new(),
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            events: Vec::new(),
            misconfigured: Vec::new(),
            victim: None,
            handed_out: Vec::new(),
        }
    }

    /// All servers started and a leader elected.
    pub fn formed(servers: usize, election: Election, leader: LeaderMode, seed: u64) -> World {
        let mut world = World::new(config(servers, election, leader), seed);
        for n in 1..=servers {
            world.start(id(n));
        }
        world.run_ms(2000);
        assert!(
            world.leader().is_some(),
            "a cluster forms and elects: {:#?}",
            world.events
        );
        world
    }

    pub(super) fn now(&self) -> Now {
        Now {
            tick: self.now,
            wall_ms: 0,
        }
    }

    pub fn cluster(&self, server: ServerId) -> &Cluster {
        self.servers[&server].cluster.as_ref().expect("it runs")
    }

    pub fn is_up(&self, server: ServerId) -> bool {
        self.servers[&server].cluster.is_some()
    }

    pub fn ids(&self) -> Vec<ServerId> {
        self.servers.keys().copied().collect()
    }

    /// The leader of the highest term.
    pub fn leader(&self) -> Option<ServerId> {
        let leads = |server: &&ServerId| self.is_up(**server) && self.cluster(**server).role() == Role::Leader;
        self.servers
            .keys()
            .filter(leads)
            .max_by_key(|&&server| self.cluster(server).term())
            .copied()
    }

    // --- What the test does -----------------------------------------------------------------------

    pub fn try_start(&mut self, server: ServerId) -> Result<(), String> {
        let seed = self.rng.draw();
        let (now, config) = (self.now(), self.config.clone());
        let it = self.servers.get_mut(&server).unwrap();
        assert!(it.cluster.is_none());
        it.boot = it.boot.next();
        it.commit_seen = it.disk.base.index;
        it.applied = it.disk.base.index;
        it.renounced = None;
        let recovered = it.disk.recovered();
        let identity = Identity {
            server,
            directory: it.directory,
            boot: it.boot,
            replaced: it.replaced,
        };
        it.cluster = Some(Cluster::new(config, identity, recovered, now, seed)?);
        self.drain(server);
        for other in self.ids() {
            self.connect(server, other);
        }
        Ok(())
    }

    pub fn start(&mut self, server: ServerId) {
        self.try_start(server).unwrap();
    }

    fn connect(&mut self, a: ServerId, b: ServerId) {
        let free = a != b && self.is_up(a) && self.is_up(b) && !self.links.contains_key(&pair(a, b));
        if free && !self.cuts.contains(&pair(a, b)) {
            let delay = Span(self.rng.between(200, 3000));
            self.later(delay, Happening::LinkUp { a, b });
        }
    }

    /// The process dies; what wasn't synced is lost, but for a part that the disk may have got.
    pub fn kill(&mut self, server: ServerId) {
        let it = self.servers.get_mut(&server).unwrap();
        it.cluster = None;
        it.reads.clear();
        let kept = self.rng.below(it.unsynced.len() as u64 + 1);
        for (_, commit, records) in it.unsynced.drain(..).take(kept as usize) {
            records.iter().for_each(|record| it.disk.write(record));
            it.disk.knows(commit);
        }
        for other in self.ids() {
            self.reset(server, other);
        }
    }

    /// The disk is gone, and there is another: to be called while the server doesn't run.
    pub fn replace_disk(&mut self, server: ServerId) {
        let directory = DirectoryId(self.rng.between(1000, u64::MAX));
        let it = self.servers.get_mut(&server).unwrap();
        assert!(it.cluster.is_none());
        it.disk = Disk::default();
        it.directory = directory;
        it.replaced = true;
    }

    /// An entry on the disk of a server can't be read any more, or at least not what it says; `says`: but of which term it is.
    pub fn damage(&mut self, server: ServerId, index: LogIndex, says: bool) {
        let it = self.servers.get_mut(&server).unwrap();
        if it.disk.log.contains_key(&index) {
            it.disk.bad.insert(index, says);
        }
    }

    /// The scrubber of a server has found that entries can't be read.
    pub fn find(&mut self, server: ServerId, indexes: &[LogIndex]) {
        let disk = &self.servers[&server].disk;
        let bad = |index: &&LogIndex| disk.bad.contains_key(index);
        let hole = |&index: &LogIndex| Hole { index, term: None };
        let holes: Vec<_> = indexes.iter().filter(bad).map(hole).collect();
        self.act(server, |cluster, now| cluster.damaged(now, &holes));
    }

    /// Removes the log of a server up to an entry, which is in a checkpoint then.
    pub fn trim(&mut self, server: ServerId, index: LogIndex) {
        let it = self.servers.get_mut(&server).unwrap();
        it.disk.trim(index);
        let first = it.disk.base.index.next();
        self.act(server, |cluster, now| cluster.kept_from(now, first));
    }

    /// How far a server's state machine has come.
    pub fn applied(&self, server: ServerId) -> LogIndex {
        self.servers[&server].applied
    }

    /// The link is reset; both sides learn of it, and try again a little later.
    pub fn reset(&mut self, a: ServerId, b: ServerId) {
        let Some(epoch) = self.links.remove(&pair(a, b)) else {
            return;
        };
        self.arrivals.remove(&(a, b));
        self.arrivals.remove(&(b, a));
        for (at, other) in [(a, b), (b, a)] {
            let delay = Span(self.rng.between(50, 1000));
            self.later(delay, Happening::LinkDown { at, other, epoch });
        }
        self.connect_later(a, b);
    }

    fn connect_later(&mut self, a: ServerId, b: ServerId) {
        let delay = Span(self.rng.between(100_000, 200_000));
        self.later(delay, Happening::LinkUp { a, b });
    }

    /// Nothing passes between two servers any more.
    pub fn cut(&mut self, a: ServerId, b: ServerId) {
        self.cuts.insert(pair(a, b));
    }

    pub fn heal(&mut self) {
        for (a, b) in std::mem::take(&mut self.cuts) {
            self.reset(a, b);
            self.connect(a, b);
        }
    }

    /// The process gets no time; all that comes waits.
    pub fn hang(&mut self, server: ServerId, span: Span) {
        self.servers.get_mut(&server).unwrap().hung_until = self.now.after(span);
    }

    /// The disk stands still.
    pub fn stall(&mut self, server: ServerId, span: Span) {
        self.servers.get_mut(&server).unwrap().stalled_until = self.now.after(span);
    }

    pub fn propose(&mut self, server: ServerId, text: &str) -> Option<LogIndex> {
        self.act(server, |cluster, now| {
            cluster.propose(now, EntryKind::Command, Blob::new(text.as_bytes()))
        })?
    }

    pub fn read(&mut self, server: ServerId) {
        let committed = self.committed.keys().next_back().copied().unwrap_or_default();
        let now = self.now();
        let it = self.servers.get_mut(&server).unwrap();
        if self.now < it.hung_until || it.cluster.is_none() {
            return;
        }
        if let Some(token) = it.cluster.as_mut().and_then(|cluster| cluster.read(now)) {
            it.reads.insert(token, committed);
        }
        self.drain(server);
    }

    /// Calls into a server that runs and doesn't hang, and does what it wants done.
    pub fn act<T>(&mut self, server: ServerId, call: impl FnOnce(&mut Cluster, Now) -> T) -> Option<T> {
        let now = self.now();
        let it = self.servers.get_mut(&server).unwrap();
        let result = call(it.cluster.as_mut()?, now);
        self.drain(server);
        Some(result)
    }

    // --- Time -------------------------------------------------------------------------------------

    pub(super) fn later(&mut self, span: Span, happening: Happening) {
        self.at(self.now.after(span), happening);
    }

    pub(super) fn at(&mut self, tick: Tick, happening: Happening) {
        self.counter += 1;
        self.happenings.insert((tick, self.counter), happening);
    }

    pub fn run_ms(&mut self, ms: u64) {
        let end = self.now.after(Span::from_ms(ms));
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until something holds; the time that it took.
    pub fn run_until(&mut self, ms_max: u64, mut holds: impl FnMut(&World) -> bool) -> Span {
        let begin = self.now;
        let end = begin.after(Span::from_ms(ms_max));
        while !holds(self) {
            assert!(self.step(end), "not within {ms_max} ms: {:#?}", self.events);
        }
        self.now.since(begin)
    }

    fn step(&mut self, end: Tick) -> bool {
        let happening = self.happenings.first_key_value().map(|(&(tick, _), _)| tick);
        let timer = self
            .servers
            .iter()
            .filter_map(|(&server, it)| {
                let deadline = it.cluster.as_ref()?.deadline()?;
                Some((deadline.max(it.hung_until).max(self.now), server))
            })
            .min();
        match (happening, timer) {
            (Some(tick), timer) if tick <= end && timer.is_none_or(|(deadline, _)| tick <= deadline) => {
                self.now = tick.max(self.now);
                if let Some((_, happening)) = self.happenings.pop_first() {
                    self.happen(happening);
                }
                true
            }
            (_, Some((deadline, server))) if deadline <= end => {
                self.now = deadline;
                self.act(server, |cluster, now| cluster.timer(now));
                true
            }
            _ => false,
        }
    }

    fn happen(&mut self, happening: Happening) {
        let hung = |world: &World, server: ServerId| {
            let until = world.servers[&server].hung_until;
            (until > world.now).then_some(until)
        };
        match happening {
            Happening::LinkUp { a, b } => {
                let free = self.is_up(a) && self.is_up(b) && !self.links.contains_key(&pair(a, b));
                if !free {
                    return;
                }
                if self.cuts.contains(&pair(a, b)) || hung(self, a).is_some() || hung(self, b).is_some() {
                    self.connect_later(a, b);
                    return;
                }
                self.counter += 1;
                self.links.insert(pair(a, b), self.counter);
                for (at, other) in [(a, b), (b, a)] {
                    let (directory, boot) = (self.servers[&other].directory, self.servers[&other].boot);
                    self.act(at, |cluster, now| cluster.link_up(now, other, directory, boot));
                }
            }
            Happening::LinkDown { at, other, epoch } => {
                if let Some(until) = hung(self, at) {
                    self.at(until, Happening::LinkDown { at, other, epoch });
                } else if self.links.get(&pair(at, other)).is_none_or(|&link| link == epoch) {
                    self.act(at, |cluster, now| cluster.link_down(now, other));
                }
            }
            Happening::Message {
                from,
                to,
                epoch,
                message,
            } => {
                if self.links.get(&pair(from, to)) != Some(&epoch) || self.cuts.contains(&pair(from, to)) {
                    return;
                }
                if let Some(until) = hung(self, to) {
                    self.at(
                        until,
                        Happening::Message {
                            from,
                            to,
                            epoch,
                            message,
                        },
                    );
                    return;
                }
                self.act(to, |cluster, now| cluster.message(now, from, message));
            }
            Happening::Datagram {
                from,
                to,
                directory,
                datagram,
            } => {
                if let Some(until) = hung(self, to) {
                    self.at(
                        until,
                        Happening::Datagram {
                            from,
                            to,
                            directory,
                            datagram,
                        },
                    );
                } else if !self.cuts.contains(&pair(from, to)) {
                    self.act(to, |cluster, now| cluster.datagram(now, from, directory, datagram));
                }
            }
            Happening::Persisted { at, boot, id } => {
                let it = self.servers.get_mut(&at).unwrap();
                if it.boot != boot || it.cluster.is_none() {
                    return;
                }
                let wait = it.stalled_until.max(it.hung_until);
                if wait > self.now {
                    self.at(wait, Happening::Persisted { at, boot, id });
                    return;
                }
                while it.unsynced.front().is_some_and(|&(first, ..)| first <= id) {
                    let (_, commit, records) = it.unsynced.pop_front().unwrap();
                    records.iter().for_each(|record| it.disk.write(record));
                    it.disk.knows(commit);
                }
                self.act(at, |cluster, now| cluster.persisted(now, id));
            }
            Happening::Entries {
                at,
                boot,
                follower,
                purpose,
                from,
                entries,
                damaged,
            } => {
                if self.servers[&at].boot == boot {
                    self.act(at, |cluster, now| {
                        cluster.damaged(now, damaged.as_slice());
                        cluster.entries_read(now, follower, purpose, from, entries);
                    });
                }
            }
            Happening::Piece {
                at,
                boot,
                follower,
                piece,
            } => {
                if self.servers[&at].boot == boot {
                    self.act(at, |cluster, now| cluster.checkpoint_read(now, follower, piece));
                }
            }
            Happening::Store {
                at,
                boot,
                id,
                offset,
                bytes,
            } => {
                if self.servers[&at].boot == boot && self.is_up(at) {
                    self.store(at, id, offset, &bytes);
                }
            }
        }
    }
}
