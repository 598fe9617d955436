//! The whole model: three servers, their links, the datagrams on their way, and what history must not contradict. Everything that
//! could happen next is an [`Action`]; [`Model::next`] does one and judges what came of it.
//!
//! Servers, queues and messages are numbered, so that a state is a hundred bytes; and a step of one server, being pure, is
//! taken once and looked up from then on, however many states of the world it occurs in.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use syncnet::cluster::message::{AppendResult, Datagram, Entry, Message};
use syncnet::config::Config;
use syncnet::types::{LogIndex, Term};

use super::server::{Disk, Done, Input, SERVERS, Server, id};
use super::state::{Action, Bounds, Facts, History, PAIRS, Sabotage, Seen, State, Step, WAYS, forge, pair, way};
use super::table::Table;

/// An input in numbers: kind, two arguments, a message.
type Key = (u32, u8, u8, u8, u32);

pub struct Model {
    config: Arc<Config>,
    pub bounds: Bounds,
    pub sabotage: Option<Sabotage>,
    servers: Table<Server>,
    facts: Vec<Facts>,
    messages: Table<Message>,
    datagrams: Table<Datagram>,
    queues: Table<Vec<u32>>,
    entries: Table<Entry>,
    logs: Table<Vec<u32>>,
    histories: Table<History>,
    steps: HashMap<Key, Option<Rc<Step>>>,
    /// Pairs of logs that match.
    matching: HashSet<(u32, u32)>,
}

impl Model {
    pub fn new(config: Config) -> Model {
        let mut model = Model {
            config: Arc::new(config),
            bounds: Bounds::default(),
            sabotage: None,
            servers: Table::new(),
            facts: Vec::new(),
            messages: Table::new(),
            datagrams: Table::new(),
            queues: Table::new(),
            entries: Table::new(),
            logs: Table::new(),
            histories: Table::new(),
            steps: HashMap::new(),
            matching: HashSet::new(),
        };
        model.queues.put(Vec::new());
        model
    }

    /// All servers are down; the members entry is on their disks.
    pub fn first(&mut self) -> State {
        let disk = Disk::formed(&self.config);
        let servers = [0, 1, 2].map(|at| self.put_server(Server::new(at, disk.clone())));
        let committed = self.logs.get(self.facts[servers[0] as usize].log).iter();
        let committed = committed.map(|&entry| (entry, Term(1))).collect();
        let history = History {
            leaders: Vec::new(),
            committed,
        };
        State {
            servers,
            queues: [0; 6],
            heartbeats: [0; 6],
            tokens: [0; 6],
            history: self.histories.put(history).0,
            links: [false; 3],
            believes: [false; 6],
            used: Bounds::default(),
        }
    }

    /// How many states of single servers, and steps between them, were met.
    pub fn local(&self) -> (usize, usize) {
        (self.servers.len(), self.steps.len())
    }

    fn put_server(&mut self, server: Server) -> u32 {
        let mut numbers = |entries: &mut dyn Iterator<Item = &Entry>| -> Vec<u32> {
            entries.map(|entry| self.entries.put(entry.clone()).0).collect()
        };
        let log = numbers(&mut server.log.iter());
        let facts = Facts {
            is_up: server.cluster.is_some(),
            boot: server.boot,
            leads: server.leads(),
            term: server.cluster.as_ref().map_or(Term(0), |cluster| cluster.term()),
            commit: server.cluster.as_ref().map_or(0, |cluster| cluster.commit().0 as usize),
            waiting: server.waiting(),
            disk: numbers(&mut server.disk.log.iter().map(|(entry, _)| entry)),
            log: self.logs.put(log).0,
        };
        let (number, is_new) = self.servers.put(server);
        if is_new {
            self.facts.push(facts);
        }
        number
    }

    fn of(&self, state: &State, at: usize) -> &Facts {
        &self.facts[state.servers[at] as usize]
    }

    /// Who leads, the highest term last.
    pub fn leaders(&self, state: &State) -> Vec<(Term, usize)> {
        let mut leaders: Vec<_> = (0..SERVERS)
            .filter_map(|at| Some((self.of(state, at).leads?, at)))
            .collect();
        leaders.sort_unstable();
        leaders
    }

    /// The frame that arrives next on a way.
    pub fn next_frame(&self, state: &State, from: usize, to: usize) -> Option<&Message> {
        let queue = self.queues.get(state.queues[way(from, to)]);
        Some(&**self.messages.get(*queue.first()?))
    }

    /// Everything that can happen next, within the bounds.
    pub fn actions(&self, state: &State) -> Vec<Action> {
        let (used, bounds) = (state.used, self.bounds);
        let mut actions = Vec::with_capacity(24);
        for way in 0..6u8 {
            let at = usize::from(way);
            if state.queues[at] != 0 {
                actions.push(Action::Deliver(way));
            }
            if state.tokens[at] != 0 {
                actions.push(Action::Token(way));
            }
            if state.heartbeats[at] != 0 && used.heartbeats < bounds.heartbeats {
                actions.push(Action::Heartbeat(way));
            }
            if state.believes[at] && !state.links[pair(WAYS[at].0, WAYS[at].1)] {
                actions.push(Action::Learn(way));
            }
        }
        for at in 0..SERVERS {
            let (facts, server) = (self.of(state, at), at as u8);
            if !facts.is_up {
                actions.push(Action::Start(server));
                continue;
            }
            if facts.waiting > 0 {
                actions.push(Action::Persist(server));
            }
            if facts.leads.is_some() && used.proposals < bounds.proposals {
                actions.push(Action::Propose(server));
            }
            if facts.leads.is_some() && used.stops < bounds.stops {
                actions.push(Action::Stop(server));
            }
            if used.timeouts < bounds.timeouts {
                actions.push(Action::Timeout(server));
            }
            if used.timers < bounds.timers {
                actions.push(Action::Timer(server));
            }
            if used.crashes < bounds.crashes {
                actions.extend((0..=facts.waiting as u8).map(|keep| Action::Crash(server, keep)));
            }
        }
        for (at, &(a, b)) in PAIRS.iter().enumerate() {
            if state.links[at] {
                if used.resets < bounds.resets {
                    actions.push(Action::Reset(at as u8));
                }
            } else if self.of(state, a).is_up && self.of(state, b).is_up {
                actions.push(Action::Connect(at as u8));
            }
        }
        actions
    }

    /// The state after an action; `None` if nothing comes of it. The error says which promise is broken.
    pub fn next(&mut self, state: &State, action: Action) -> Result<Option<(State, Seen)>, String> {
        let mut next = *state;
        let mut seen = Seen::default();
        let used = &mut next.used;
        let alive = match action {
            Action::Persist(at) => self.step(&mut next, at.into(), (0, 0, 0), Input::Persist, &mut seen)?,
            Action::Timeout(at) => {
                used.timeouts += 1;
                self.step(&mut next, at.into(), (1, 0, 0), Input::Timeout, &mut seen)?
            }
            Action::Timer(at) => {
                used.timers += 1;
                self.step(&mut next, at.into(), (2, 0, 0), Input::Timer, &mut seen)?
            }
            Action::Propose(at) => {
                used.proposals += 1;
                self.step(&mut next, at.into(), (3, 0, 0), Input::Propose, &mut seen)?
            }
            Action::Stop(at) => {
                used.stops += 1;
                self.step(&mut next, at.into(), (4, 0, 0), Input::Stop, &mut seen)?
            }
            Action::Crash(at, keep) => {
                used.crashes += 1;
                let input = Input::Crash { keep: keep.into() };
                self.ended(&mut next, at.into());
                self.step(&mut next, at.into(), (5, keep, 0), input, &mut seen)?
            }
            Action::Start(at) => self.step(&mut next, at.into(), (6, 0, 0), Input::Start, &mut seen)?,
            Action::Deliver(way) => self.deliver(&mut next, way.into(), &mut seen)?,
            Action::Heartbeat(way) => {
                used.heartbeats += 1;
                let number = std::mem::take(&mut next.heartbeats[usize::from(way)]) - 1;
                self.hear(&mut next, way.into(), number, &mut seen)?
            }
            Action::Token(way) => {
                let number = std::mem::take(&mut next.tokens[usize::from(way)]) - 1;
                self.hear(&mut next, way.into(), number, &mut seen)?
            }
            Action::Reset(pair) => {
                used.resets += 1;
                next.links[usize::from(pair)] = false;
                true
            }
            Action::Learn(way) => {
                let (other, at) = WAYS[usize::from(way)];
                next.believes[usize::from(way)] = false;
                next.queues[usize::from(way)] = 0;
                let input = Input::LinkDown { other };
                self.step(&mut next, at, (7, other as u8, 0), input, &mut seen)?;
                true
            }
            Action::Connect(pair) => self.connect(&mut next, pair.into(), &mut seen)?,
        };
        if !alive {
            return Ok(None);
        }
        if next.used.heartbeats >= self.bounds.heartbeats {
            next.heartbeats = [0; 6];
        }
        Ok((next != *state).then_some((next, seen)))
    }

    /// A process has died: what is on its way to it is lost, what it has sent may still arrive.
    fn ended(&self, state: &mut State, at: usize) {
        for (number, &(from, to)) in WAYS.iter().enumerate() {
            if to == at {
                state.queues[number] = 0;
                state.heartbeats[number] = 0;
                state.tokens[number] = 0;
                state.believes[number] = false;
            }
            if to == at || from == at {
                state.links[pair(from, to)] = false;
            }
        }
    }

    fn connect(&mut self, state: &mut State, number: usize, seen: &mut Seen) -> Result<bool, String> {
        let (a, b) = PAIRS[number];
        let ways = [way(a, b), way(b, a)];
        state.links[number] = true;
        for way in ways {
            state.queues[way] = 0;
            state.believes[way] = true;
        }
        for (at, other) in [(a, b), (b, a)] {
            let boot = self.of(state, other).boot;
            let input = Input::LinkUp { other, boot };
            self.step(state, at, (8, other as u8, boot.0 as u8), input, seen)?;
        }
        // The greetings are part of it.
        for way in ways {
            let first = self.queues.get(state.queues[way]).first();
            if first.is_some_and(|&first| matches!(**self.messages.get(first), Message::Hello { .. })) {
                self.deliver(state, way, seen)?;
            }
        }
        Ok(true)
    }

    fn deliver(&mut self, state: &mut State, way: usize, seen: &mut Seen) -> Result<bool, String> {
        let (from, to) = WAYS[way];
        let queue = self.queues.get(state.queues[way]);
        let Some((&first, rest)) = queue.split_first() else {
            return Ok(false);
        };
        let rest = rest.to_vec();
        state.queues[way] = self.queues.put(rest).0;
        let mut number = first;
        if let Some(sabotage) = self.sabotage {
            let receiver = self.of(state, to);
            let last = LogIndex(self.logs.get(receiver.log).len() as u64);
            let forged = forge(sabotage, self.messages.get(first), receiver.term, last);
            number = forged.map_or(first, |forged| self.messages.put(forged).0);
        }
        let message = Rc::clone(self.messages.get(number));
        match &*message {
            Message::VoteAnswer { granted: false, .. } => seen.refused_vote = true,
            Message::AppendAnswer {
                result: AppendResult::Mismatch { .. },
                ..
            } => seen.mismatch = true,
            Message::TransferNow { .. } => seen.handed_over = true,
            _ => {}
        }
        let input = Input::Message {
            from,
            message: &message,
        };
        self.step_of(state, to, (9, from as u8, 0, number), input, seen)?;
        Ok(true)
    }

    fn hear(&mut self, state: &mut State, way: usize, number: u32, seen: &mut Seen) -> Result<bool, String> {
        let (from, to) = WAYS[way];
        let datagram = Rc::clone(self.datagrams.get(number));
        let input = Input::Datagram {
            from,
            datagram: &datagram,
        };
        self.step_of(state, to, (10, from as u8, 0, number), input, seen)?;
        Ok(true)
    }

    fn step(
        &mut self,
        state: &mut State,
        at: usize,
        (kind, one, two): (u8, u8, u8),
        input: Input<'_>,
        seen: &mut Seen,
    ) -> Result<bool, String> {
        self.step_of(state, at, (kind, one, two, 0), input, seen)
    }

    /// One server takes a step, and what it sends is on its way.
    fn step_of(
        &mut self,
        state: &mut State,
        at: usize,
        (kind, one, two, message): (u8, u8, u8, u32),
        input: Input<'_>,
        seen: &mut Seen,
    ) -> Result<bool, String> {
        let before = state.servers[at];
        let key = (before, kind, one, two, message);
        let step = match self.steps.get(&key) {
            Some(step) => step.clone(),
            None => {
                let step = self.take_step(before, input)?.map(Rc::new);
                self.steps.insert(key, step.clone());
                step
            }
        };
        let Some(step) = step else {
            return Ok(false);
        };
        state.servers[at] = step.server;
        seen.cut |= step.is_cut;
        seen.lost |= step.has_lost;
        for &(to, message) in &step.sends {
            let to = usize::from(to);
            self.judge_answer(state, at, to, message)?;
            if state.links[pair(at, to)] {
                self.enqueue(state, way(at, to), message);
            }
        }
        if let Some(heartbeat) = step.heartbeat {
            for to in (0..SERVERS).filter(|&to| to != at) {
                if self.of(state, to).is_up {
                    state.heartbeats[way(at, to)] = heartbeat + 1;
                }
            }
        }
        for &(to, token) in &step.tokens {
            if self.of(state, to.into()).is_up {
                state.tokens[way(at, to.into())] = token + 1;
            }
        }
        self.judge(state, at, before, seen)?;
        Ok(true)
    }

    fn enqueue(&mut self, state: &mut State, way: usize, message: u32) {
        let queue = self.queues.get(state.queues[way]);
        // The same sign of life twice says no more than once.
        let is_empty = matches!(&**self.messages.get(message), Message::Append { entries, .. } if entries.is_empty());
        if is_empty && queue.last() == Some(&message) {
            return;
        }
        let longer = queue.iter().copied().chain([message]).collect();
        state.queues[way] = self.queues.put(longer).0;
    }

    fn take_step(&mut self, before: u32, input: Input<'_>) -> Result<Option<Step>, String> {
        let server = Rc::clone(self.servers.get(before));
        let lies = self.sabotage == Some(Sabotage::LyingDisks);
        let result = catch_unwind(AssertUnwindSafe(|| server.step(&self.config, input, lies)));
        let result = result.unwrap_or_else(|_| Err(format!("{} panics", id(server.at))));
        let Some((after, done)) = result? else {
            return Ok(None);
        };
        if after.cluster.is_none() && !lies {
            after.judge_crash()?;
        }
        let Done {
            sends,
            heartbeat,
            tokens,
            is_cut,
            has_lost,
            ..
        } = done;
        Ok(Some(Step {
            server: self.put_server(after),
            sends: sends
                .into_iter()
                .map(|(to, message)| (to as u8, self.messages.put(message).0))
                .collect(),
            heartbeat: heartbeat.map(|heartbeat| self.datagrams.put(heartbeat).0),
            tokens: tokens
                .into_iter()
                .map(|(to, token)| (to as u8, self.datagrams.put(token).0))
                .collect(),
            is_cut,
            has_lost,
        }))
    }

    // --- What must hold ---------------------------------------------------------------------------

    /// What a follower says of its log must be so, compared with that of the leader it says it to.
    fn judge_answer(&self, state: &State, at: usize, to: usize, message: u32) -> Result<(), String> {
        let Message::AppendAnswer {
            term,
            result: AppendResult::Matched { received, durable },
            ..
        } = **self.messages.get(message)
        else {
            return Ok(());
        };
        let (leader, follower) = (self.of(state, to), self.of(state, at));
        if leader.leads != Some(term) {
            return Ok(());
        }
        let (theirs, ours) = (self.logs.get(leader.log), self.logs.get(follower.log));
        let (received, durable) = (received.0 as usize, durable.0 as usize);
        if theirs.get(..received) != ours.get(..received) || theirs.get(..durable) != follower.disk.get(..durable) {
            let (at, to) = (id(at), id(to));
            return Err(format!(
                "{at} tells {to} of entries up to {received}, {durable} of them durable: not so"
            ));
        }
        Ok(())
    }

    /// Figure 3 of the paper, for the server that has just moved.
    fn judge(&mut self, state: &mut State, at: usize, before: u32, seen: &mut Seen) -> Result<(), String> {
        let me = id(at);
        let facts = &self.facts[state.servers[at] as usize];
        let history = Rc::clone(self.histories.get(state.history));
        let mut changed: Option<History> = None;
        let log = self.logs.get(facts.log);
        if let Some(term) = facts.leads {
            match history.leaders.iter().find(|&&(known, ..)| known == term) {
                Some(&(_, other, boot)) if (other, boot) != (at, facts.boot) => {
                    return Err(format!("election safety: {me} leads term {term}, as {} did", id(other)));
                }
                Some(_) => {}
                None => {
                    changed
                        .get_or_insert_with(|| (*history).clone())
                        .leaders
                        .push((term, at, facts.boot));
                    seen.elected = true;
                    seen.elected_after_commit = history.committed.len() > 2;
                }
            }
            let missing = |&(index, &(entry, by)): &(usize, &(u32, Term))| by < term && log.get(index) != Some(&entry);
            if let Some((index, &(_, by))) = history.committed.iter().enumerate().find(missing) {
                let index = index + 1;
                return Err(format!(
                    "leader completeness: {me} leads term {term} without entry {index}, committed in term {by}"
                ));
            }
        }
        for (index, &entry) in log.iter().enumerate().take(facts.commit) {
            match history.committed.get(index) {
                Some(&(known, _)) if known != entry => {
                    return Err(format!(
                        "state machine safety: {me} has another entry committed at {}",
                        index + 1
                    ));
                }
                Some(_) => {}
                None => {
                    let holds = |at: &usize| self.of(state, *at).disk.get(index) == Some(&entry);
                    if (0..SERVERS).filter(holds).count() <= SERVERS / 2 {
                        return Err(format!(
                            "{me} commits entry {}, which a majority hasn't got on disk",
                            index + 1
                        ));
                    }
                    let changed = changed.get_or_insert_with(|| (*history).clone());
                    changed.committed.push((entry, facts.term));
                    seen.committed = true;
                }
            }
        }
        if facts.log != self.facts[before as usize].log {
            let mine = facts.log;
            for other in (0..SERVERS).filter(|&other| other != at) {
                let theirs = self.of(state, other).log;
                if !self.matches(mine, theirs) {
                    return Err(format!(
                        "log matching: the logs of {me} and {} differ below a match",
                        id(other)
                    ));
                }
            }
        }
        if let Some(mut changed) = changed {
            changed.leaders.sort_unstable();
            state.history = self.histories.put(changed).0;
        }
        Ok(())
    }

    /// Whether two logs are the same up to the last place at which both have an entry of the same term.
    fn matches(&mut self, a: u32, b: u32) -> bool {
        if a == b || self.matching.contains(&(a, b)) {
            return true;
        }
        let (one, two) = (self.logs.get(a), self.logs.get(b));
        let term = |entry: u32| self.entries.get(entry).term;
        let last = one
            .iter()
            .zip(two.iter())
            .rposition(|(&one, &two)| term(one) == term(two));
        let fine = last.is_none_or(|last| one[..=last] == two[..=last]);
        if fine {
            self.matching.insert((a, b));
        }
        fine
    }

    /// An action in words, for the state that it begins from.
    pub fn tell(&self, state: &State, action: Action) -> String {
        let between = |way: u8| {
            let (from, to) = WAYS[usize::from(way)];
            format!("{} to {}", id(from), id(to))
        };
        match action {
            Action::Deliver(way) => {
                let queue = self.queues.get(state.queues[usize::from(way)]);
                let message = queue.first().map(|&first| self.messages.get(first));
                format!("{}: {message:?}", between(way))
            }
            Action::Heartbeat(way) => format!("heartbeat of {}", between(way)),
            Action::Token(way) => format!("token of {}", between(way)),
            Action::Learn(way) => format!("link of {} is found broken", between(way)),
            Action::Reset(pair) | Action::Connect(pair) => {
                let (a, b) = PAIRS[usize::from(pair)];
                format!("{action:?}: {} and {}", id(a), id(b))
            }
            _ => format!("{action:?}"),
        }
    }
}
