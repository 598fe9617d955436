//! Scenarios as text that people can read, run on the simulator: one command a line, `#` begins a comment. Time is virtual; a command
//! takes none of it, except `wait`, and `expect`, which waits until it is so (1 s unless it says `within`).
//!
//! The world: `servers N`, `rings 2 0 1`, `election highest|lcr`, `leader preferred|sticky`, `routing forward|redirect`, before all else.
//! Processes: `start|kill|power-cut|pause|resume|stop all` or server names; `hang-disk server1 2s`,
//! `fill-disk server1 5s` (nothing is left on it), `clock server1 -1h`.
//! Network: `partition server1 | server2 server3`, `cut server1 server2`, `one-way server1 -> server2`, `reset server1 server2`,
//! `cut-link server1 server2` and `one-way-link server1 -> server2` (datagrams arrive), `multicast dead|works`, `heal`.
//! People: `client ann server1 server2` (whom she knows, in that order; all if she isn't introduced), `create ann ops`,
//! `create-again ann ops`, `join ann ops`, `say ann ops hello world` (two messages), `follow ann ops`, `read ann ops`, `rename ann bea`.
//! Expectations: see [`Script::expect`].

use std::collections::BTreeMap;
use std::sync::Arc;

use syncnet::client::calls::{Action, Input};
use syncnet::cluster::Role;
use syncnet::config::{Config, Election, LeaderMode, Routing};
use syncnet::types::{RingPosition, RoomId, Seq, Span, Tick};
use syncnet::wire::client::{From, What};

use super::faults::Healing;
use super::plan::{Plan, server_id, shown};
use super::world::{Happening, World};

/// How long an expectation waits if it doesn't say.
const PATIENCE: Span = Span::from_ms(1_000);
/// How often it looks.
const LOOK: Span = Span::from_ms(2);

/// A scenario that is being run.
pub struct Script {
    plan: Plan,
    world: Option<World>,
    people: BTreeMap<String, usize>,
    trace: bool,
}

/// Runs a scenario. The error names line, what was expected and what was found.
pub fn run(name: &str, text: &str, trace: bool) -> Result<(), String> {
    let mut script = Script {
        plan: Plan::calm(3),
        world: None,
        people: BTreeMap::new(),
        trace,
    };
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let outcome = script.command(&words).and_then(|()| script.unbroken());
        if let Err(text) = outcome {
            let said = script.last_events();
            return Err(format!("{name}:{}: {line}\n    {text}\n{said}", number + 1));
        }
    }
    Ok(())
}

fn span(text: &str) -> Result<Span, String> {
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| format!("{text} is no time"));
    if let Some(ms) = text.strip_suffix("ms") {
        return Ok(Span::from_ms(number(ms)?));
    }
    if let Some(s) = text.strip_suffix('s') {
        return Ok(Span::from_ms(number(s)? * 1000));
    }
    if let Some(h) = text.strip_suffix('h') {
        return Ok(Span::from_ms(number(h)? * 3_600_000));
    }
    Err(format!("{text} is no time: 10ms, 2s, 1h"))
}

impl Script {
    fn world(&mut self) -> &mut World {
        let (plan, trace) = (&self.plan, self.trace);
        self.world.get_or_insert_with(|| {
            let mut world = World::new(plan.clone());
            world.keep_events = true;
            world.trace = trace;
            world
        })
    }

    fn configure(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), String> {
        if self.world.is_some() {
            return Err("the world has begun already".into());
        }
        change(Arc::make_mut(&mut self.plan.config));
        Ok(())
    }

    fn unbroken(&self) -> Result<(), String> {
        let failure = self.world.as_ref().and_then(|world| world.failure.clone());
        failure.map_or(Ok(()), |text| Err(format!("a promise was broken {text}")))
    }

    fn last_events(&self) -> String {
        let Some(world) = &self.world else { return String::new() };
        let from = world.events.len().saturating_sub(12);
        let mut text = format!("    at {}; what the servers said last:\n", shown(world.now).trim());
        for (at, server, said) in &world.events[from..] {
            text += &format!("    {} {}: {said}\n", shown(*at), server_id(*server));
        }
        text
    }

    fn server(&self, name: &str) -> Result<usize, String> {
        let found = (0..self.plan.servers()).find(|&at| server_id(at).as_str() == name);
        found.ok_or_else(|| format!("there is no server {name}"))
    }

    fn servers(&self, names: &[&str]) -> Result<Vec<usize>, String> {
        match names {
            [] | ["all"] => Ok((0..self.plan.servers()).collect()),
            names => names.iter().map(|name| self.server(name)).collect(),
        }
    }

    fn room(&mut self, name: &str) -> Result<RoomId, String> {
        let known = self.world().oracle.known_rooms.get(name).copied();
        known.ok_or_else(|| format!("nobody has made a room {name} yet"))
    }

    fn person(&mut self, name: &str) -> usize {
        if let Some(&at) = self.people.get(name) {
            return at;
        }
        let all: Vec<usize> = (0..self.plan.servers()).collect();
        let at = self.world().add_person(name, &all, true);
        self.people.insert(name.to_string(), at);
        at
    }

    fn command(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["servers", count] => {
                let count: usize = count.parse().map_err(|_| "how many servers?")?;
                self.plan = Plan::calm(count);
                Ok(())
            }
            ["rings", rings @ ..] => {
                let rings: Vec<u16> = rings.iter().filter_map(|ring| ring.parse().ok()).collect();
                self.configure(|config| {
                    config
                        .servers
                        .iter_mut()
                        .zip(&rings)
                        .for_each(|(s, &ring)| s.ring = RingPosition(ring));
                })
            }
            ["election", "highest"] => self.configure(|config| config.election = Election::Highest),
            ["election", "lcr"] => self.configure(|config| config.election = Election::Lcr),
            ["leader", "preferred"] => self.configure(|config| config.leader = LeaderMode::Preferred),
            ["leader", "sticky"] => self.configure(|config| config.leader = LeaderMode::Sticky),
            ["routing", "forward"] => self.configure(|config| config.routing = Routing::Forward),
            ["routing", "redirect"] => self.configure(|config| config.routing = Routing::Redirect),
            ["wait", time] => {
                let time = span(time)?;
                self.world().run_for(time);
                Ok(())
            }
            [
                what @ ("start" | "kill" | "power-cut" | "pause" | "resume" | "stop"),
                names @ ..,
            ] => {
                let servers = self.servers(names)?;
                let world = self.world();
                for at in servers {
                    match *what {
                        "start" => world.start(at),
                        "kill" => world.kill(at),
                        "power-cut" => world.power_cut(at),
                        "pause" => world.pause(at),
                        "resume" => world.resume(at),
                        _ => {
                            world.step(at, syncnet::node::Input::Stop);
                            world.wake_server(at);
                        }
                    }
                }
                Ok(())
            }
            ["hang-disk", name, time] => {
                let (at, time) = (self.server(name)?, span(time)?);
                let world = self.world();
                world.servers[at].disk_hangs_until = world.now.after(time);
                Ok(())
            }
            ["fill-disk", name, time] => {
                let (at, time) = (self.server(name)?, span(time)?);
                let world = self.world();
                let disk = &world.servers[at].disk.disk;
                disk.set_space(Some(disk.used()));
                world.later(time, Happening::Heal(Healing::Space(at)));
                Ok(())
            }
            ["clock", name, skew] => {
                let at = self.server(name)?;
                let (sign, time) = skew.strip_prefix('-').map_or((1, *skew), |rest| (-1, rest));
                self.world().servers[at].clock.wall_skew_ms = sign * span(time)?.as_ms() as i64;
                Ok(())
            }
            ["expect", rest @ ..] => self.expect(rest),
            _ => self.network(words).or_else(|unknown| match unknown {
                None => self.people(words),
                Some(text) => Err(text),
            }),
        }
    }

    /// `None` as error: no command of the network.
    fn network(&mut self, words: &[&str]) -> Result<(), Option<String>> {
        let mut cuts = Vec::new();
        match words {
            ["partition", sides @ ..] => {
                let sides: Vec<Vec<usize>> = sides
                    .split(|&word| word == "|")
                    .map(|side| self.servers(side))
                    .collect::<Result<_, _>>()?;
                for (n, one) in sides.iter().enumerate() {
                    for other in sides
                        .iter()
                        .enumerate()
                        .filter(|&(m, _)| m != n)
                        .flat_map(|(_, side)| side)
                    {
                        cuts.extend(one.iter().map(|&at| (at, *other)));
                    }
                }
            }
            ["cut", a, b] => {
                let (a, b) = (self.server(a)?, self.server(b)?);
                cuts.extend([(a, b), (b, a)]);
            }
            ["one-way", a, "->", b] => cuts.push((self.server(a)?, self.server(b)?)),
            ["cut-link", a, b] => {
                let (a, b) = (self.server(a)?, self.server(b)?);
                [(a, b), (b, a)]
                    .into_iter()
                    .for_each(|(a, b)| self.world().cut(a, b, true, false));
            }
            ["one-way-link", a, "->", b] => {
                let (a, b) = (self.server(a)?, self.server(b)?);
                self.world().cut(a, b, true, false);
            }
            ["reset", a, b] => {
                let (a, b) = (self.server(a)?, self.server(b)?);
                self.world().reset_link(a, b);
            }
            ["multicast", state @ ("dead" | "works")] => self.world().net.multicast_dead = *state == "dead",
            ["heal"] => {
                let count = self.plan.servers();
                let world = self.world();
                (0..count * count).for_each(|pair| world.uncut(pair / count, pair % count));
            }
            _ => return Err(None),
        }
        for (from, to) in cuts {
            self.world().cut(from, to, true, true);
        }
        Ok(())
    }

    fn people(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["client", name, known @ ..] => {
                let known = self.servers(known)?;
                let at = self.world().add_person(name, &known, true);
                self.people.insert((*name).to_string(), at);
                Ok(())
            }
            ["create", name, room] => {
                let at = self.person(name);
                self.world().create(at, room, true);
                self.world().tell_person(at, Input::Timer);
                let room = (*room).to_string();
                self.until(Span::from_ms(5_000), &|script| {
                    let known = script.world().oracle.known_rooms.contains_key(&room);
                    if known {
                        Ok(())
                    } else {
                        Err("the room to be made: it isn't".into())
                    }
                })
            }
            ["create-again", name, room] => {
                let at = self.person(name);
                self.world().create(at, room, false);
                self.world().tell_person(at, Input::Timer);
                Ok(())
            }
            ["join", name, room] => self.submit(
                name,
                Action::Join {
                    room: (*room).to_string(),
                },
            ),
            ["rename", name, new] => self.submit(
                name,
                Action::Rename {
                    name: (*new).to_string(),
                },
            ),
            ["say", name, room, texts @ ..] => {
                let (at, room) = (self.person(name), self.room(room)?);
                let world = self.world();
                texts
                    .iter()
                    .for_each(|text| world.say_in(at, room, (*text).to_string(), None));
                world.tell_person(at, Input::Timer);
                Ok(())
            }
            [what @ ("follow" | "read"), name, room] => {
                let (at, room) = (self.person(name), self.room(room)?);
                let world = self.world();
                world.people[at].lines.clear();
                world.people[at].ended.clear();
                let from = From::AfterSeq(Seq(0));
                if *what == "read" {
                    world.read_now(at, room, from)
                } else {
                    world.follow_from(at, room, from)
                }
                world.tell_person(at, Input::Timer);
                Ok(())
            }
            _ => Err("nobody knows this command".into()),
        }
    }

    fn submit(&mut self, name: &str, action: Action) -> Result<(), String> {
        let at = self.person(name);
        self.world().submit_action(at, action);
        self.world().tell_person(at, Input::Timer);
        Ok(())
    }

    /// Looks again and again until something is so.
    fn until(&mut self, patience: Span, look: &dyn Fn(&mut Script) -> Result<(), String>) -> Result<(), String> {
        let end = self.world().now.after(patience);
        loop {
            self.unbroken()?;
            match look(self) {
                Ok(()) => return Ok(()),
                Err(text) if self.world().now >= end => return Err(format!("expected {text}")),
                Err(_) => self.world().run_for(LOOK),
            };
        }
    }

    /// `expect leader NAME|none` (all running servers agree), `expect leads NAME` (it says so itself), `expect role NAME ROLE`,
    /// `expect acked NAME N`, `expect history ROOM = a b c` (at every running server), `expect shown NAME = a b c`,
    /// `expect read NAME fresh|stale`, `expect rooms a b c` (at every running server), `expect people ROOM a b`, `expect connected NAME SERVER`,
    /// `expect refused NAME Code`, `expect redirects`, `expect stopped NAME`, `expect said TEXT …` (some server, at any time),
    /// `expect hops A B C A` (a ring election's token of A went this way), `expect healthy`. All may end with `within TIME`, or with
    /// `for TIME`: then it must be so all the time.
    fn expect(&mut self, words: &[&str]) -> Result<(), String> {
        let (words, within, lasting) = match words {
            [words @ .., "within", time] => (words, span(time)?, None),
            [words @ .., "for", time] => (words, Span(0), Some(span(time)?)),
            words => (words, PATIENCE, None),
        };
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let look = |script: &mut Script| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            script.look(&words)
        };
        let Some(lasting) = lasting else {
            return self.until(within, &look);
        };
        let end = self.world().now.after(lasting);
        while self.world().now < end {
            look(self).map_err(|text| format!("expected all the time {text}"))?;
            self.world().run_for(LOOK);
            self.unbroken()?;
        }
        Ok(())
    }

    fn look(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["leader", name] => self.look_leader(name),
            ["leads", name] => {
                let at = self.server(name)?;
                let leaders: Vec<_> = self.world().leaders().into_iter().map(server_id).collect();
                equal(
                    &format!("{name} to lead"),
                    leaders.contains(&server_id(at)),
                    true,
                    &leaders,
                )
            }
            ["role", name, role] => {
                let at = self.server(name)?;
                let is = self.world().servers[at].node().map(|node| node.cluster().role());
                let wanted = match *role {
                    "leader" => Role::Leader,
                    "follower" => Role::Follower,
                    "candidate" => Role::Candidate,
                    _ => Role::Learner,
                };
                equal(&format!("{name} to be {role}"), is, Some(wanted), &is)
            }
            ["acked", name, count] => {
                let at = self.person(name);
                let acked = self.world().people[at].acked.to_string();
                equal(
                    &format!("{count} messages of {name} acknowledged"),
                    acked.as_str(),
                    *count,
                    &acked,
                )
            }
            ["history", room, "=", texts @ ..] => {
                let room = self.room(room)?;
                let items = self.world().oracle.rooms.get(&room).cloned().unwrap_or_default();
                let said: Vec<String> = items
                    .into_iter()
                    .filter_map(|made| match made.what {
                        What::Message(text) => Some(text),
                        _ => None,
                    })
                    .collect();
                equal(
                    &format!("history {texts:?}"),
                    said.iter().map(String::as_str).collect(),
                    texts.to_vec(),
                    &said,
                )?;
                self.look_same_states()
            }
            ["shown", name, "=", texts @ ..] => {
                let at = self.person(name);
                let lines = self.world().people[at].lines.clone();
                let messages: Vec<&str> = lines
                    .iter()
                    .map(|(_, text)| text.as_str())
                    .filter(|text| !text.starts_with('('))
                    .collect();
                equal(
                    &format!("{name} to be shown {texts:?}"),
                    messages.clone(),
                    texts.to_vec(),
                    &messages,
                )
            }
            ["read", name, kind] => {
                let at = self.person(name);
                let ended = self.world().people[at].ended.last().map(|&(_, fresh)| fresh);
                equal(
                    &format!("{name} to get a {kind} answer"),
                    ended,
                    Some(*kind == "fresh"),
                    &ended,
                )
            }
            ["rooms", names @ ..] => {
                self.look_same_states()?;
                let model = self.world().oracle.model();
                let rooms: Vec<String> = model
                    .rooms_after(RoomId(0))
                    .map(|room| room.name.shown.to_string())
                    .collect();
                equal(
                    &format!("rooms {names:?}"),
                    rooms.iter().map(String::as_str).collect(),
                    names.to_vec(),
                    &rooms,
                )
            }
            ["people", room, names @ ..] => {
                self.look_same_states()?;
                let room = self.room(room)?;
                let users = self.world().oracle.model().users_in(room);
                equal(
                    &format!("people {names:?}"),
                    users.iter().map(String::as_str).collect(),
                    names.to_vec(),
                    &users,
                )
            }
            ["connected", name, server] => {
                let (at, server) = (self.person(name), self.server(server)?);
                let is = self.world().people[at].server;
                equal(
                    &format!("{name} to be connected to {}", server_id(server)),
                    is,
                    Some(server_id(server)),
                    &is,
                )
            }
            ["refused", name, code] => {
                let at = self.person(name);
                let codes: Vec<String> = self.world().people[at]
                    .refusals
                    .iter()
                    .map(|code| format!("{code:?}"))
                    .collect();
                equal(
                    &format!("{name} to be refused with {code}"),
                    codes.iter().any(|c| c == code),
                    true,
                    &codes,
                )
            }
            ["redirects"] => {
                let redirects = self.world().counts.get("redirects");
                equal("a client to be sent to the leader", redirects > 0, true, &redirects)
            }
            ["stopped", name] => {
                let at = self.server(name)?;
                let runs = self.world().servers[at].node().is_some();
                equal(&format!("{name} to have stopped"), runs, false, &"it runs")
            }
            ["said", text @ ..] => {
                let text = text.join(" ");
                let found = self.world().events.iter().any(|(_, _, said)| said.contains(&text));
                equal(&format!("a server to say \"{text}\""), found, true, &"nobody did")
            }
            ["hops", path @ ..] => {
                let paths = self.token_paths(path.first().copied().unwrap_or_default());
                equal(
                    &format!("a token to go {path:?}"),
                    paths.iter().any(|p| p == path),
                    true,
                    &paths,
                )
            }
            ["healthy"] => {
                let missing = self.world().unsettled();
                equal("all to be well", missing.is_none(), true, &missing)
            }
            _ => Err("something that nobody understands".into()),
        }
    }

    fn look_leader(&mut self, name: &str) -> Result<(), String> {
        let wanted = if name == "none" {
            None
        } else {
            Some(server_id(self.server(name)?))
        };
        let world = self.world();
        let mut views = Vec::new();
        for server in world.servers.iter().filter(|server| server.is_running()) {
            views.push((server.id, server.node().and_then(|node| node.cluster().leader())));
        }
        let agreed = !views.is_empty() && views.iter().all(|&(_, leader)| leader == wanted);
        let leads = wanted.is_none()
            || world
                .leaders()
                .into_iter()
                .map(server_id)
                .any(|leader| Some(leader) == wanted);
        equal(&format!("leader {name}"), agreed && leads, true, &views)
    }

    /// Every running server has the same state: that of the whole log.
    fn look_same_states(&mut self) -> Result<(), String> {
        let world = self.world();
        for server in &world.servers {
            if let Some(node) = server.node()
                && node.state() != world.oracle.model()
            {
                let (has, all) = (node.state().applied(), world.oracle.entries().len());
                return Err(format!(
                    "{} to have applied all of the log\n    found: {has} of {all}",
                    server.id
                ));
            }
        }
        Ok(())
    }

    /// The ways that the tokens of a server went, of each round: told by what the servers say of them.
    fn token_paths(&mut self, origin: &str) -> Vec<Vec<String>> {
        let mark = format!("token of {origin} ");
        let mut paths: Vec<Vec<String>> = Vec::new();
        for (_, _, said) in self.world().events.iter().filter(|(_, _, said)| said.contains(&mark)) {
            let Some((before, to)) = said.rsplit_once(" to ") else {
                continue;
            };
            if before.contains("hop 1,") {
                paths.push(vec![origin.to_string()]);
            }
            if let Some(path) = paths.last_mut() {
                path.push(to.to_string());
            }
        }
        paths
    }
}

/// An error that says what was expected and what was found.
fn equal<T: PartialEq>(what: &str, is: T, wanted: T, found: &dyn std::fmt::Debug) -> Result<(), String> {
    if is == wanted {
        Ok(())
    } else {
        Err(format!("{what}\n    found: {found:?}"))
    }
}

/// The moment at which a script's world begins.
pub const BEGINS: Tick = Tick::from_ms(1_000);
