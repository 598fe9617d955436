//! Where searches begin: states that were reached from the first start by the model's own actions, so that the interesting
//! places are a few steps away instead of forty.

use std::path::Path;

use syncnet::cluster::message::{AppendResult, Message};
use syncnet::config::{Config, Election, parse};
use syncnet::types::LogIndex;

use super::model::Model;
use super::state::{Action, Bounds, PAIRS, State, WAYS};

/// A place to begin at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// All run, are linked, and know each other; the first election begins.
    Gathered,
    /// `s3` has led for a while; everybody has everything.
    Settled,
    /// After that, an entry is committed that `s2` hasn't got: its link to `s3` is broken.
    Committed,
    /// `s3` led, and fell with an entry that only it has; `s2` leads and has written another there, which nobody else has yet.
    /// `s3` is back.
    Divergent,
    /// Figure 8 of the paper: then `s2` was cut off and `s3` elected again. `s1` has got the old entry of `s3` on its disk, so that
    /// a majority has it, and its answer is on its way; nothing of the new term is on a majority.
    Figure8,
}

/// Three servers, as a configuration file says it.
pub fn config(election: Election) -> Config {
    let election = match election {
        Election::Highest => "highest",
        Election::Lcr => "lcr",
    };
    let mut text = format!("[cluster]\nname = \"small\"\nelection = \"{election}\"\nleader = \"sticky\"\n");
    for at in 0..3 {
        let (name, port) = (at + 1, 8000 + at);
        text.push_str(&format!(
            "[[server]]\nid = \"s{name}\"\nring_position = {at}\nhost = \"127.0.0.1\"\nclient_port = {port}\n\
             http_port = {}\nheartbeat_port = {}\npeer_port = {}\n",
            port + 10,
            port + 20,
            port + 30
        ));
    }
    parse(&text, Path::new("small.toml"))
        .expect("a good configuration")
        .config
}

/// Does things by hand.
struct Script<'a> {
    model: &'a mut Model,
    state: State,
}

impl Script<'_> {
    /// Does it, if something comes of it.
    fn act(&mut self, action: Action) -> bool {
        match self.model.next(&self.state, action) {
            Ok(Some((next, _))) => {
                self.state = next;
                true
            }
            Ok(None) => false,
            Err(text) => panic!("on the way to the root: {text}"),
        }
    }

    /// Whether it can happen, and then does it.
    fn try_act(&mut self, action: Action) -> bool {
        self.model.actions(&self.state).contains(&action) && self.act(action)
    }

    fn must(&mut self, action: Action) {
        assert!(
            self.try_act(action),
            "{action:?} should be possible on the way to the root"
        );
    }

    /// Disks and everything on its way, between these servers only, until nothing is left to do or `done`.
    fn settle(&mut self, servers: &[usize], heartbeats: bool, done: impl Fn(&Model, &State) -> bool) {
        for _ in 0..1000 {
            let within = |way: u8| {
                let (from, to) = WAYS[usize::from(way)];
                servers.contains(&from) && servers.contains(&to)
            };
            let wanted = |action: &Action| match *action {
                Action::Persist(at) => servers.contains(&usize::from(at)),
                Action::Deliver(way) | Action::Token(way) => within(way),
                Action::Heartbeat(way) => heartbeats && within(way),
                _ => false,
            };
            if done(self.model, &self.state) {
                return;
            }
            let mut actions = self.model.actions(&self.state);
            actions.sort_by_key(|action| !matches!(action, Action::Persist(_)));
            // One that changes nothing would be chosen for ever.
            if !actions.into_iter().filter(wanted).any(|action| self.act(action)) {
                return;
            }
        }
        panic!("it never settles");
    }

    fn leader(&self) -> Option<usize> {
        self.model.leaders(&self.state).last().map(|&(_, at)| at)
    }

    fn crash(&mut self, at: usize) {
        self.must(Action::Crash(at as u8, 0));
        for (number, &(from, _)) in WAYS.iter().enumerate() {
            if from == at {
                self.must(Action::Learn(number as u8));
            }
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        let number = PAIRS.iter().position(|&pair| pair == (a, b)).expect("a pair") as u8;
        self.must(Action::Reset(number));
        for (number, &way) in WAYS.iter().enumerate() {
            if way == (a, b) || way == (b, a) {
                self.must(Action::Learn(number as u8));
            }
        }
    }

    /// Lets the server stand and win against one other.
    fn elect(&mut self, at: usize, with: usize) {
        for _ in 0..10 {
            let won = move |model: &Model, state: &State| model.leaders(state).iter().any(|&(_, leader)| leader == at);
            self.settle(&[at, with], false, won);
            if won(self.model, &self.state) {
                return;
            }
            self.try_act(Action::Timeout(at as u8));
        }
        panic!("server {at} isn't elected");
    }
}

/// Whether the next frame from `s1` to `s3` says that entry 3 is on its disk.
fn has_old_entry(model: &Model, state: &State) -> bool {
    let durable = AppendResult::Matched {
        received: LogIndex(3),
        durable: LogIndex(3),
    };
    matches!(model.next_frame(state, 0, 2), Some(Message::AppendAnswer { result, .. }) if *result == durable)
}

/// The state at a root.
pub fn reach(model: &mut Model, root: Root) -> State {
    let (bounds, sabotage) = (model.bounds, model.sabotage.take());
    let many = u8::MAX;
    model.bounds = Bounds {
        crashes: many,
        resets: many,
        timeouts: many,
        timers: many,
        proposals: many,
        stops: 0,
        heartbeats: many,
    };
    let state = model.first();
    let mut script = Script { model, state };
    for at in 0..3 {
        script.must(Action::Start(at));
    }
    for pair in 0..3 {
        script.must(Action::Connect(pair));
    }
    if root == Root::Gathered {
        // The heartbeats of the start, of which the last begins the election.
        for way in 0..6 {
            script.must(Action::Heartbeat(way));
        }
    } else {
        script.settle(&[0, 1, 2], true, |_, _| false);
        assert_eq!(script.leader(), Some(2), "the highest ring position leads first");
    }
    if root == Root::Committed {
        script.cut(1, 2);
        script.must(Action::Propose(2));
        script.settle(&[0, 1, 2], false, |_, _| false);
        assert_eq!(script.leader(), Some(2), "s2 alone takes nobody from office");
    }
    if matches!(root, Root::Divergent | Root::Figure8) {
        script.must(Action::Propose(2));
        script.must(Action::Persist(2));
        script.crash(2);
        script.elect(1, 0);
        script.must(Action::Persist(1));
        script.must(Action::Start(2));
    }
    if root == Root::Divergent {
        script.must(Action::Connect(1));
        script.must(Action::Connect(2));
    }
    if root == Root::Figure8 {
        script.cut(0, 1);
        script.must(Action::Connect(1));
        script.elect(2, 0);
        script.settle(&[0, 2], false, has_old_entry);
        assert!(has_old_entry(script.model, &script.state), "the answer is on its way");
    }
    let mut state = script.state;
    model.bounds = bounds;
    model.sabotage = sabotage;
    state.begin();
    state
}
