//! One server of the model: the shipped `Cluster`, a disk, what waits for the disk, and a clock of its own. A step is a pure
//! function of the server and the input. What can be judged from one server alone is judged here, after every step.

use std::collections::VecDeque;
use std::sync::Arc;

use syncnet::cluster::chain::chain;
use syncnet::cluster::members::encode_members;
use syncnet::cluster::message::{
    AppendResult, Datagram, Entry, EntryKind, HardState, LogPosition, Member, Members, Message, Record, Recovered,
};
use syncnet::cluster::{Cluster, Identity, Output, Role};
use syncnet::config::Config;
use syncnet::types::{
    AppendId, Blob, Boot, ClusterId, DirectoryId, Level, LogIndex, Now, RingPosition, ServerId, Span, Term, Tick,
};

/// How many servers the model has.
pub const SERVERS: usize = 3;

/// How many timers a time-out may take: more than any wait for a turn.
const TIMERS_MAX: usize = 40;

/// A server's disk: what is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    pub state: HardState,
    pub log: Vec<(Entry, u32)>,
}

impl Disk {
    /// That of a member that has just been formed.
    pub fn formed(config: &Config) -> Disk {
        let member = |at: usize| Member {
            id: id(at),
            ring: RingPosition(at as u16),
            directory: directory(at),
        };
        let members = Members {
            cluster: ClusterId(77),
            members: (0..config.servers.len()).map(member).collect(),
        };
        let entry = Entry {
            index: LogIndex(1),
            term: Term(1),
            kind: EntryKind::Members,
            payload: Blob::new(&encode_members(&members)),
        };
        let check = chain(0, entry.term, entry.index, entry.kind, &entry.payload);
        Disk {
            state: HardState {
                term: Term(1),
                vote: None,
                commit: LogIndex(1),
            },
            log: vec![(entry, check)],
        }
    }

    fn write(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::State { state, .. } => {
                let commit = state.commit.max(self.state.commit);
                self.state = HardState { commit, ..*state };
            }
            Record::Entry { entry, chain, .. } => {
                let at = entry.index.0 as usize;
                if at == 0 || at > self.log.len() + 1 {
                    return Err(format!("entry {at} leaves a gap in a log of {}", self.log.len()));
                }
                self.log.truncate(at - 1);
                self.log.push((entry.clone(), *chain));
            }
            // No disk of the model loses anything that it had, and no log is cut at its beginning.
            Record::Fill { .. } | Record::Base { .. } => return Err("a repair without damage".to_owned()),
        }
        Ok(())
    }

    #[allow(clippy::needless_update)] // recovery may come to find more
    fn recovered(&self) -> Recovered {
        let mut terms: Vec<(LogIndex, Term)> = Vec::new();
        for (entry, _) in &self.log {
            if terms.last().is_none_or(|&(_, term)| term != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        Recovered {
            state: self.state,
            last: self
                .log
                .last()
                .map_or(LogPosition::default(), |(entry, _)| position(entry)),
            last_chain: self.log.last().map_or(0, |&(_, chain)| chain),
            terms,
            members: self.log.first().map(|(entry, _)| entry.clone()).into_iter().collect(),
            ..Default::default()
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.log.iter().map(|(entry, _)| entry.clone()).collect()
    }
}

fn position(entry: &Entry) -> LogPosition {
    LogPosition {
        term: entry.term,
        index: entry.index,
    }
}

/// The name of a server; its number is also its ring position.
pub fn id(at: usize) -> ServerId {
    ServerId::new(&format!("s{}", at + 1)).expect("a good name")
}

/// The number of a server.
pub fn at(id: ServerId) -> usize {
    (0..SERVERS).find(|&at| self::id(at) == id).expect("one of the servers")
}

pub fn directory(at: usize) -> DirectoryId {
    DirectoryId(100 + at as u64)
}

/// A server, running or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    pub at: usize,
    pub cluster: Option<Cluster>,
    clock: Tick,
    pub boot: Boot,
    pub disk: Disk,
    /// The disk one sync ago, kept only for disks that lie.
    earlier: Option<Box<Disk>>,
    /// Handed to the disk, not durable yet.
    unsynced: VecDeque<(AppendId, Vec<Record>)>,
    next_append: AppendId,
    /// The log as it was handed to the disk.
    pub log: Vec<Entry>,
    /// The last vote that was answered or counted: no crash may take it back.
    promised: Option<(Term, ServerId)>,
    /// The last entry that was said to be durable, and in which leader's term: only a later leader may replace it.
    claimed: (Term, LogIndex),
}

/// What happens to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input<'a> {
    Message {
        from: usize,
        message: &'a Message,
    },
    Datagram {
        from: usize,
        datagram: &'a Datagram,
    },
    /// The oldest append is on the disk.
    Persist,
    /// The clock goes on until something comes of it: the leader is lost, the server stands, gives up, steps down.
    Timeout,
    /// The clock goes on to the next deadline, mostly a heartbeat.
    Timer,
    Propose,
    /// It is asked to stop: a leader hands over.
    Stop,
    LinkUp {
        other: usize,
        boot: Boot,
    },
    LinkDown {
        other: usize,
    },
    /// The process dies, and so many of the records that weren't synced are on the disk nevertheless.
    Crash {
        keep: usize,
    },
    Start,
}

/// What comes out of a step.
#[derive(Debug, Default)]
pub struct Done {
    pub sends: Vec<(usize, Message)>,
    pub heartbeat: Option<Datagram>,
    pub tokens: Vec<(usize, Datagram)>,
    /// Whether entries were removed from the log.
    pub is_cut: bool,
    /// Whether a crash lost something.
    pub has_lost: bool,
    stands: bool,
}

impl Server {
    pub fn new(at: usize, disk: Disk) -> Server {
        Server {
            at,
            cluster: None,
            clock: Tick(0),
            boot: Boot(0),
            log: disk.entries(),
            disk,
            earlier: None,
            unsynced: VecDeque::new(),
            next_append: AppendId(0),
            promised: None,
            claimed: (Term(0), LogIndex(0)),
        }
    }

    /// The term that it leads.
    pub fn leads(&self) -> Option<Term> {
        let cluster = self.cluster.as_ref()?;
        (cluster.role() == Role::Leader).then(|| cluster.term())
    }

    /// How many records wait for the disk.
    pub fn waiting(&self) -> usize {
        self.unsynced.iter().map(|(_, records)| records.len()).sum()
    }

    fn now(&self) -> Now {
        Now {
            tick: self.clock,
            wall_ms: 0,
        }
    }

    /// The server after an input. `None`: nothing comes of it. `lies`: the disk keeps the last sync but one.
    pub fn step(&self, config: &Arc<Config>, input: Input<'_>, lies: bool) -> Result<Option<(Server, Done)>, String> {
        let mut server = self.clone();
        let mut done = Done::default();
        let now = self.now();
        match input {
            Input::Start => server.start(config)?,
            Input::Crash { keep } => server.crash(keep, lies, &mut done)?,
            Input::Persist => server.persist(lies)?,
            Input::Timeout => {
                if !server.time_out(&mut done)? {
                    return Ok(None);
                }
            }
            _ => {
                let Some(cluster) = &mut server.cluster else {
                    return Ok(None);
                };
                match input {
                    Input::Message { from, message } => cluster.message(now, id(from), message.clone()),
                    Input::Datagram { from, datagram } => {
                        cluster.datagram(now, id(from), directory(from), datagram.clone());
                    }
                    Input::Propose => {
                        // Says who made it, so that nobody else's entry looks the same.
                        let text = format!("{} {} {}", id(self.at), self.boot, self.log.len());
                        let payload = Blob::new(text.as_bytes());
                        if cluster.propose(now, EntryKind::Command, payload).is_none() {
                            return Ok(None);
                        }
                    }
                    Input::Stop => cluster.stop(now),
                    Input::LinkUp { other, boot } => cluster.link_up(now, id(other), directory(other), boot),
                    Input::LinkDown { other } => cluster.link_down(now, id(other)),
                    Input::Timer => server.timer(),
                    _ => {}
                }
            }
        }
        server.drain(&mut done)?;
        server.judge(self)?;
        Ok(Some((server, done)))
    }

    // --- Life and time ----------------------------------------------------------------------------

    fn start(&mut self, config: &Arc<Config>) -> Result<(), String> {
        self.boot = self.boot.next();
        self.clock = Tick::from_ms(1000);
        self.next_append = AppendId(1);
        let (recovered, seed) = (self.disk.recovered(), self.at as u64 + 1);
        self.cluster = Some(Cluster::new(
            Arc::clone(config),
            Identity {
                server: id(self.at),
                directory: directory(self.at),
                boot: self.boot,
                replaced: false,
            },
            recovered,
            self.now(),
            seed,
        )?);
        Ok(())
    }

    fn crash(&mut self, keep: usize, lies: bool, done: &mut Done) -> Result<(), String> {
        self.cluster = None;
        done.has_lost = keep < self.waiting();
        if lies && let Some(earlier) = self.earlier.take() {
            self.disk = *earlier;
            self.unsynced.clear();
        }
        let records: Vec<_> = self.unsynced.drain(..).flat_map(|(_, records)| records).collect();
        for record in records.iter().take(keep) {
            self.disk.write(record)?;
        }
        self.log = self.disk.entries();
        self.clock = Tick(0);
        Ok(())
    }

    fn persist(&mut self, lies: bool) -> Result<(), String> {
        let Some((append, records)) = self.unsynced.pop_front() else {
            return Ok(());
        };
        if lies {
            self.earlier = Some(Box::new(self.disk.clone()));
        }
        for record in &records {
            self.disk.write(record)?;
        }
        let now = self.now();
        if let Some(cluster) = &mut self.cluster {
            cluster.persisted(now, append);
        }
        Ok(())
    }

    /// To the next deadline, in small steps: a long one would be taken for a pause of the process.
    fn timer(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            let deadline = cluster.deadline().unwrap_or(self.clock);
            self.clock = deadline.clamp(self.clock, self.clock.after(Span::from_ms(100)));
            let now = Now {
                tick: self.clock,
                wall_ms: 0,
            };
            cluster.timer(now);
        }
    }

    /// Whether something came of it.
    fn time_out(&mut self, done: &mut Done) -> Result<bool, String> {
        let Some(cluster) = &self.cluster else {
            return Ok(false);
        };
        let before = (cluster.role(), cluster.leader(), cluster.term());
        for _ in 0..TIMERS_MAX {
            // What was said in the meantime changes nothing at the others but their time, which isn't ours.
            done.sends.clear();
            self.timer();
            self.drain(done)?;
            let after = self
                .cluster
                .as_ref()
                .map(|cluster| (cluster.role(), cluster.leader(), cluster.term()));
            if done.stands || after != Some(before) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    // --- What it wants ----------------------------------------------------------------------------

    fn drain(&mut self, done: &mut Done) -> Result<(), String> {
        loop {
            let mut records = Vec::new();
            let mut reads = Vec::new();
            while let Some(output) = self.cluster.as_mut().and_then(Cluster::poll) {
                match output {
                    Output::Record(record) => {
                        done.is_cut |= self.wrote(&record)?;
                        records.push(record);
                    }
                    // A sign of life for the receiver's clock, which the model moves as it likes.
                    Output::Send(_, Message::Ping) => {}
                    Output::Send(to, message) => {
                        self.says(to, &message)?;
                        done.sends.push((at(to), message));
                    }
                    Output::Datagram(Datagram::Token { to, group, token }) => {
                        done.tokens.push((at(to), Datagram::Token { to, group, token }));
                    }
                    Output::Datagram(heartbeat) => done.heartbeat = Some(heartbeat),
                    Output::ReadEntries {
                        follower,
                        purpose,
                        from,
                        to,
                        ..
                    } => reads.push((follower, purpose, from, to)),
                    Output::ReadCheckpoint { .. } | Output::StoreCheckpoint { .. } | Output::Renounce(_) => {
                        return Err(format!("{} needs a checkpoint, or begins anew", id(self.at)));
                    }
                    Output::ReadDone { .. } | Output::LeaderChanged => {}
                    Output::Event { level, text } => {
                        if level == Level::Error {
                            return Err(format!("{} complains: {text}", id(self.at)));
                        }
                        done.stands |= text.contains(" stands for term ");
                    }
                    Output::Misconfigured(text) => return Err(text),
                }
            }
            let now = self.now();
            let Some(cluster) = &mut self.cluster else {
                return Ok(());
            };
            if !records.is_empty() {
                let append = self.next_append;
                self.next_append = append.next();
                cluster.appended(append);
                self.unsynced.push_back((append, records));
            }
            cluster.applied(cluster.commit());
            if reads.is_empty() {
                return Ok(());
            }
            for (follower, purpose, from, to) in reads {
                let wanted = |entry: &&Entry| from <= entry.index && entry.index <= to;
                let entries = self.log.iter().filter(wanted).cloned().collect();
                cluster.entries_read(now, follower, purpose, from, entries);
            }
        }
    }

    /// The log as it is once a record is in it; whether it was cut for it.
    fn wrote(&mut self, record: &Record) -> Result<bool, String> {
        let Record::Entry { entry, .. } = record else {
            return Ok(false);
        };
        let before = self.log.len();
        let keep = entry.index.0 as usize - 1;
        if keep > before {
            return Err(format!("{} leaves a gap in its log", id(self.at)));
        }
        self.log.truncate(keep);
        self.log.push(entry.clone());
        Ok(keep < before)
    }

    // --- What must hold ---------------------------------------------------------------------------

    /// Promises are checked against the disk when they are made.
    fn says(&mut self, to: ServerId, message: &Message) -> Result<(), String> {
        let me = id(self.at);
        match *message {
            Message::VoteAnswer {
                term, granted: true, ..
            } => {
                let vote = Some((to, directory(at(to))));
                if (self.disk.state.term, self.disk.state.vote) != (term, vote) {
                    return Err(format!(
                        "a vote is durable before it is answered: {me} answers {to} without"
                    ));
                }
                self.promise(term, to)
            }
            Message::AppendAnswer {
                term,
                result: AppendResult::Matched { received, durable },
                ..
            } => {
                let held = durable.0 as usize;
                if durable > received || received.0 as usize > self.log.len() {
                    return Err(format!("{me} has {received} as received and {durable} as durable"));
                }
                if !self.has_on_disk(held) {
                    return Err(format!(
                        "durable answers are true: {me} hasn't got {durable} on its disk"
                    ));
                }
                self.claimed = self.claimed.max((term, durable));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether the disk holds the log up to there.
    fn has_on_disk(&self, index: usize) -> bool {
        let (disk, log) = (self.disk.log.get(..index), self.log.get(..index));
        match (disk, log) {
            (Some(disk), Some(log)) => disk.iter().map(|(entry, _)| entry).eq(log),
            _ => false,
        }
    }

    fn promise(&mut self, term: Term, to: ServerId) -> Result<(), String> {
        if let Some((before, candidate)) = self.promised
            && (before > term || (before == term && candidate != to))
        {
            let me = id(self.at);
            return Err(format!(
                "{me} votes for {to} in term {term}, after {candidate} in term {before}"
            ));
        }
        self.promised = Some((term, to));
        Ok(())
    }

    /// What one server alone shows, compared with what it was before.
    fn judge(&mut self, before: &Server) -> Result<(), String> {
        let me = id(self.at);
        let Some(cluster) = &self.cluster else {
            return Ok(());
        };
        if cluster.last() != self.log.last().map_or(LogPosition::default(), position) {
            return Err(format!("{me} has another log in memory than it wrote"));
        }
        if !self.has_on_disk(cluster.durable().0 as usize) {
            return Err(format!("{me} takes {} for durable, and it isn't", cluster.durable()));
        }
        if cluster.commit().0 as usize > self.log.len() {
            return Err(format!("{me} has committed more than it has"));
        }
        if let Some(was) = before.cluster.as_ref().filter(|_| before.boot == self.boot) {
            if cluster.commit() < was.commit() || cluster.term() < was.term() {
                return Err(format!("the commit or the term of {me} went back"));
            }
            let leads = cluster.role() == Role::Leader && was.role() == Role::Leader;
            if leads && cluster.term() == was.term() && !self.log.starts_with(&before.log) {
                return Err(format!("a leader only appends: {me} changed its log"));
            }
        }
        let (role, term) = (cluster.role(), cluster.term());
        if role == Role::Leader {
            let own = (term, Some((me, directory(self.at))));
            if (self.disk.state.term, self.disk.state.vote) != own {
                return Err(format!("{me} leads term {term} without its own vote on its disk"));
            }
            self.promise(term, me)?;
        }
        Ok(())
    }

    /// A disk after a crash: what was promised is still on it.
    pub fn judge_crash(&self) -> Result<(), String> {
        let (me, state) = (id(self.at), self.disk.state);
        if let Some((term, to)) = self.promised {
            let kept = state.vote == Some((to, directory(at(to))));
            if state.term < term || (state.term == term && !kept) {
                return Err(format!("{me} forgot that it voted for {to} in term {term}"));
            }
        }
        let (term, index) = self.claimed;
        if state.term <= term && self.disk.log.len() < index.0 as usize {
            return Err(format!("{me} lost entry {index}, which it said was durable"));
        }
        Ok(())
    }
}
