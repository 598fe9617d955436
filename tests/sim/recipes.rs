//! Faults that come in a certain order, for what single ones meet too seldom: an election beside a log with holes, an admission that is
//! cut off, a directory that has been replaced and is back, a burst of commands of which a part dies, a leader that wakes from the past.
//!
//! Half of the seeds of the standard mix have two of them. They draw from a generator of their own and have numbers of their own, so that
//! they can be left out as other faults can.

use syncnet::cluster::Role;
use syncnet::cluster::message::{EntryKind, Message, Record};
use syncnet::log::Append;
use syncnet::log::disk::Disk;
use syncnet::log::sim_disk::SimDisk;
use syncnet::rng::{Rng, mix};
use syncnet::types::{Boot, DirectoryId, LogIndex, Lsn, RoomId, ServerId, Span, Term, Tick};
use syncnet::wire::client::From;
use syncnet::wire::peer::PeerMessage;

use super::disk::ServerDisk;
use super::faults::Healing;
use super::held::Held;
use super::plan::{Fault, server_id};
use super::server::open_log;
use super::world::{Happening, World};

/// Draws of recipes are those of nothing else.
const RECIPE_DRAWS: u64 = 0x2EC1_9E5D;
/// Their numbers begin here.
pub const RECIPES_FROM: usize = 1_000;
/// How long an admission is awaited.
const ADMISSION_WITHIN: Span = Span::from_ms(12_000);

pub const RECIPES: [Fault; 6] = [
    Fault::RottenLog,
    Fault::AdmissionCutOff,
    Fault::FormerIsBack,
    Fault::FormerVotes,
    Fault::BrokenBurst,
    Fault::LateLeader,
];

/// What comes next of a recipe.
#[derive(Clone, Debug)]
pub enum Step {
    Begin {
        number: usize,
        fault: Fault,
        tries: u32,
    },
    /// A server with a rotten log starts, and for so long gets nothing of what it asks for.
    StartRotten {
        at: usize,
        span: Span,
    },
    /// Whoever leads, if it isn't this one, dies for so long.
    LeaderDies {
        but: usize,
        span: Span,
    },
    /// The former disk of a server takes the place of the new one.
    Former {
        at: usize,
    },
    /// The new one is back.
    Back {
        at: usize,
    },
    /// Whoever asks for votes isn't heard by the others, but by this one, until then.
    VotesCut {
        but: usize,
        until: Tick,
    },
    /// A person says so many things more, one at a time.
    Burst {
        person: usize,
        left: u64,
    },
    /// The leader that was cut off and hung goes on, and somebody asks it at once.
    Wakes {
        at: usize,
    },
}

/// A disk with the directory on it, and what its server remembers of it.
struct Drive {
    disk: ServerDisk,
    directory: DirectoryId,
    boot: Boot,
    reached: Lsn,
    replaced: bool,
    held: Held,
}

/// What is under way.
pub struct Recipes {
    rng: Rng,
    /// Until when the admission of a server is awaited, and what is to be done then.
    awaited: Option<(usize, Fault, Tick)>,
    /// A server's other drive.
    aside: Option<(usize, Drive)>,
    /// The former directory that was put back.
    former: Option<DirectoryId>,
    votes_cut: Option<(usize, Tick)>,
    /// So many frames with commands that a follower forwards are lost.
    forwards_lost: Option<(usize, u64)>,
    /// What a server fetches of entries that it can't read is lost until then.
    fetches_lost: Option<(usize, Tick)>,
}

impl Recipes {
    pub fn new(seed: u64) -> Recipes {
        Recipes {
            rng: Rng::new(mix(seed ^ RECIPE_DRAWS)),
            awaited: None,
            aside: None,
            former: None,
            votes_cut: None,
            forwards_lost: None,
            fetches_lost: None,
        }
    }
}

impl World {
    /// Plans those of the seed.
    pub(super) fn plan_recipes(&mut self) {
        let rng = &mut self.recipes.rng;
        if !self.plan.standard || !rng.chance(50) {
            return;
        }
        let mut begin = Span::from_ms(rng.between(4_000, 12_000));
        for n in 0..2 {
            let rng = &mut self.recipes.rng;
            let fault = *rng.pick(&RECIPES).unwrap_or(&Fault::RottenLog);
            let number = RECIPES_FROM + n;
            self.later(
                begin,
                Happening::Recipe(Step::Begin {
                    number,
                    fault,
                    tries: 8,
                }),
            );
            begin = Span::from_ms(self.recipes.rng.between(28_000, 42_000));
        }
    }

    pub(super) fn recipe_step(&mut self, step: Step) {
        if !self.storm {
            return;
        }
        match step {
            Step::Begin { number, fault, tries } => self.begin_recipe(number, fault, tries),
            Step::StartRotten { at, span } => {
                self.recipes.fetches_lost = Some((at, self.now.after(span)));
                self.start(at);
            }
            Step::LeaderDies { but, span } => {
                if let Some(leader) = self.only_leader().filter(|&leader| leader != but) {
                    self.kill(leader);
                    self.later(span, Happening::Heal(Healing::Start(leader)));
                }
            }
            Step::Former { at } => self.bring_former(at),
            Step::Back { at } => self.bring_back(at),
            Step::VotesCut { but, until } => self.recipes.votes_cut = Some((but, until)),
            Step::Burst { person, left } => self.burst(person, left),
            Step::Wakes { at } => self.wakes_late(at),
        }
    }

    /// The end of all faults: what is under way is given up, and every server has the drive that it should have.
    pub(super) fn end_recipes(&mut self) {
        self.recipes.awaited = None;
        self.recipes.votes_cut = None;
        self.recipes.forwards_lost = None;
        self.recipes.fetches_lost = None;
        if let Some(at) = self.recipes.aside.as_ref().map(|&(at, _)| at) {
            self.bring_back(at);
        }
    }

    fn only_leader(&self) -> Option<usize> {
        match self.leaders().as_slice() {
            &[leader] if !self.servers[leader].paused => Some(leader),
            _ => None,
        }
    }

    fn begin_recipe(&mut self, number: usize, fault: Fault, tries: u32) {
        if self.only.as_ref().is_some_and(|only| !only.contains(&number)) {
            return;
        }
        let leader = self.only_leader();
        let others = (0..self.servers.len()).filter(|&at| Some(at) != leader);
        let others: Vec<usize> = others.filter(|&at| self.servers[at].is_running()).collect();
        let follower = self.recipes.rng.pick(&others).copied();
        let begun = match (leader, follower, fault) {
            (Some(leader), Some(_), Fault::LateLeader) => self.cut_and_hang(leader),
            (Some(leader), Some(_), Fault::BrokenBurst) => self.begin_burst(leader),
            (Some(_), Some(at), Fault::RottenLog) => self.rot(at),
            (Some(_), Some(at), _) => self.replace_drive(at, fault),
            _ => None,
        };
        let Some(at) = begun else {
            if tries > 0 {
                let tries = tries - 1;
                self.later(
                    Span::from_ms(700),
                    Happening::Recipe(Step::Begin { number, fault, tries }),
                );
            }
            return;
        };
        self.say(|| format!("recipe {number}: {fault:?} at {}", server_id(at)));
        self.note_struck(number, fault, at, Span(0));
    }

    fn next(&mut self, low_ms: u64, high_ms: u64, step: Step) {
        let after = Span(self.recipes.rng.between(low_ms * 1_000, high_ms * 1_000));
        self.later(after, Happening::Recipe(step));
    }

    // --- A log with holes ---------------------------------------------------------------------------

    /// Bits of a log flip, mostly of its end, while its server is down. When it is back, and not mended yet, the leader dies.
    fn rot(&mut self, at: usize) -> Option<usize> {
        if !self.others_hold_everything(at) {
            return None;
        }
        let disk = self.servers[at].disk.disk.clone();
        let used = |name: &String| {
            let contents = disk.contents(name).unwrap_or_default();
            contents
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |last| last as u64)
        };
        let names = disk.list("log").unwrap_or_default();
        let mut files: Vec<_> = names.into_iter().map(|name| format!("log/{name}")).collect();
        files.retain(|name| used(name) > 512);
        files.sort_unstable();
        let name = files.pop()?;
        let used = used(&name);
        self.kill(at);
        // A seal is never synced. Were it lost with the power in the same moment, the last records before it would look torn.
        disk.write_back();
        let rng = &mut self.recipes.rng;
        let reach = *rng.pick(&[600, 3_000, 100_000]).unwrap_or(&600);
        let flips: Vec<(u64, u32)> = (0..rng.between(1, 4))
            .map(|_| (used - rng.below(reach.min(used)), rng.below(8) as u32))
            .collect();
        let whole = self.what_is_promised(at, disk.copy());
        for (offset, bit) in flips {
            disk.flip_bit(&name, offset, bit);
            // A last record that was written a moment ago, and can't be read, looks like one that never got to the disk: nobody can tell.
            if self.what_is_promised(at, disk.copy()) < whole {
                disk.flip_bit(&name, offset, bit);
            }
        }
        self.counts.one("logs that rotted while their servers were down");
        self.damage(at);
        let span = Span::from_ms(self.recipes.rng.between(500, 3_000));
        self.next(50, 300, Step::StartRotten { at, span });
        let span = Span::from_ms(self.recipes.rng.between(1_000, 3_000));
        self.next(500, 900, Step::LeaderDies { but: at, span });
        Some(at)
    }

    /// The term and the end of the log that a start with this disk would find; all that there is if it would find that nothing can be trusted.
    pub(super) fn what_is_promised(&self, at: usize, disk: SimDisk) -> (Term, LogIndex) {
        let disk = ServerDisk {
            disk,
            ..ServerDisk::default()
        };
        match open_log(self, at, disk) {
            Ok(opened) => (opened.recovered.state.term, opened.recovered.last.index),
            Err(_) => (Term(u64::MAX), LogIndex(u64::MAX)),
        }
    }

    // --- Admissions and former directories -----------------------------------------------------------

    /// A server gets a new and empty disk. The former is kept.
    fn replace_drive(&mut self, at: usize, fault: Fault) -> Option<usize> {
        // A directory that has not been admitted yet would be none of the former.
        let votes = self.servers[at]
            .node()
            .is_some_and(|node| node.cluster().role() != Role::Learner);
        let busy = self.recipes.aside.is_some() || self.recipes.awaited.is_some();
        if busy || !votes || !self.others_hold_everything(at) {
            return None;
        }
        let drive = self.drive(at);
        let span = Span::from_ms(self.recipes.rng.between(20, 300));
        let directory = DirectoryId(self.recipes.rng.draw() | 1);
        self.lose_disk_for(at, directory, span);
        self.recipes.aside = Some((at, drive));
        self.recipes.awaited = Some((at, fault, self.now.after(ADMISSION_WITHIN)));
        Some(at)
    }

    fn drive(&self, at: usize) -> Drive {
        let server = &self.servers[at];
        Drive {
            disk: server.disk.clone(),
            directory: server.directory,
            boot: server.boot,
            reached: server.reached,
            replaced: server.replaced,
            held: server.held.clone(),
        }
    }

    /// Exchanges the drive of a server for the one that was set aside.
    fn exchange_drives(&mut self, at: usize) {
        let Some((_, other)) = self.recipes.aside.take() else {
            return;
        };
        self.kill(at);
        let own = self.drive(at);
        let server = &mut self.servers[at];
        (server.disk, server.directory) = (other.disk, other.directory);
        (server.boot, server.reached, server.replaced) = (other.boot, other.reached, other.replaced);
        (server.hard, server.first_kept) = (None, LogIndex(1));
        self.oracle.begins_anew(at);
        self.holds(at, other.held);
        self.recipes.aside = Some((at, own));
    }

    /// Records go to the disk of a server. That is the moment if the awaited admission is among them.
    pub(super) fn watch_admission(&mut self, leader: usize, append: &Append) {
        let Some((at, fault, until)) = self.recipes.awaited else {
            return;
        };
        let admits = |record: &Record| matches!(record, Record::Entry { entry, .. } if entry.kind == EntryKind::Members && entry.index.0 > 1);
        let leads = self.servers[leader]
            .node()
            .is_some_and(|node| node.cluster().role() == Role::Leader);
        if self.now > until || !self.storm {
            self.recipes.awaited = None;
            self.recipes.aside = None;
        } else if leads && leader != at && append.records.iter().any(admits) {
            self.recipes.awaited = None;
            self.cut_admission(leader, at, fault);
        }
    }

    fn cut_admission(&mut self, leader: usize, at: usize, fault: Fault) {
        self.counts.one("admissions cut off");
        self.say(|| format!("the admission of {} is cut off", server_id(at)));
        let others = (0..self.servers.len()).filter(|&other| other != leader && other != at);
        let others: Vec<usize> = others.collect();
        let back = others.iter().map(|&other| (other, leader));
        let mut cuts: Vec<_> = back.collect();
        let mut heals = Span::from_ms(self.recipes.rng.between(400, 2_000));
        match fault {
            // The others don't hear of it. The leader has the word of the server itself, which doesn't count.
            Fault::AdmissionCutOff => {
                cuts.extend(others.iter().map(|&other| (leader, other)));
                self.recipes.aside = None;
            }
            // And then that server has its former disk again, whose word doesn't count either.
            Fault::FormerIsBack => {
                cuts.extend(others.iter().map(|&other| (leader, other)));
                self.next(5, 60, Step::Former { at });
                self.next(2_200, 4_000, Step::Back { at });
            }
            // The others hold the entry, and the leader, whom they can't tell, gives up. Then there is an election, and the former
            // directory is the only one whose vote arrives.
            _ => {
                heals = Span::from_ms(950);
                let later = self.now.after(Span::from_ms(3_500));
                self.kill(at);
                self.next(650, 750, Step::Former { at });
                self.next(900, 940, Step::VotesCut { but: at, until: later });
                self.next(4_000, 5_000, Step::Back { at });
            }
        }
        for &(from, to) in &cuts {
            self.cut(from, to, true, false);
        }
        self.later(heals, Happening::Heal(Healing::Uncut(cuts)));
    }

    fn bring_former(&mut self, at: usize) {
        if self.recipes.aside.is_none() {
            return;
        }
        self.exchange_drives(at);
        self.recipes.former = Some(self.servers[at].directory);
        self.counts.one("former directories that were back");
        self.say(|| format!("{} has its former disk", server_id(at)));
        self.start(at);
    }

    fn bring_back(&mut self, at: usize) {
        // It may have begun anew meanwhile: then nobody will ever ask for the other one. And whoever doesn't remember it any more, because
        // that is in a checkpoint only, may have admitted it anew: then the other one is a former directory.
        let (server, directory) = (self.servers[at].id, self.servers[at].directory);
        if self.recipes.former.take() == Some(directory) && !self.quorums.is_member(server, directory) {
            self.exchange_drives(at);
            self.say(|| format!("{} has its new disk again", server_id(at)));
            self.start(at);
        }
        self.recipes.aside = None;
    }

    /// A server says something to another: a vote that is asked for isn't heard where it would count.
    pub(super) fn watch_votes(&mut self, from: usize, to: ServerId, message: &PeerMessage) {
        let Some((but, until)) = self.recipes.votes_cut else {
            return;
        };
        if self.now > until {
            self.recipes.votes_cut = None;
        } else if from != but && matches!(message, PeerMessage::Cluster(Message::Vote { .. })) {
            let others = (0..self.servers.len()).filter(|&other| other != from && other != but);
            let cuts: Vec<_> = others.map(|other| (from, other)).collect();
            cuts.iter().for_each(|&(from, to)| self.cut(from, to, true, false));
            self.say(|| format!("the vote that {} asks {to} for isn't heard", server_id(from)));
            self.counts.one("votes asked of former directories");
            self.recipes.votes_cut = None;
            // Whoever is linked while somebody stands is asked for its vote.
            self.reset_link(from, but);
            self.later(Span::from_ms(900), Happening::Heal(Healing::Uncut(cuts)));
        }
    }

    /// Whether what a server says to another is lost on the way.
    pub(super) fn loses(&mut self, from: usize, to: ServerId, message: &PeerMessage) -> bool {
        match (message, self.recipes.forwards_lost, self.recipes.fetches_lost) {
            (PeerMessage::Forward { .. }, Some((at, left)), _) if from == at => {
                self.counts.one("forwarded commands lost");
                self.recipes.forwards_lost = (left > 1).then_some((at, left - 1));
                true
            }
            (PeerMessage::Cluster(Message::Fetched { .. }), _, Some((at, until))) if server_id(at) == to => {
                self.now < until
            }
            _ => false,
        }
    }

    // --- A burst of commands --------------------------------------------------------------------------

    /// Somebody sends many commands by way of a follower. Some of them never reach a leader, and those behind them do.
    fn begin_burst(&mut self, leader: usize) -> Option<usize> {
        let follower = |at: usize| self.servers[at].id;
        let able: Vec<(usize, usize)> = (0..self.people.len())
            .filter(|at| !self.hung.contains(at) && !self.people[*at].closed && !self.people[*at].scripted)
            .filter_map(|at| {
                let server = self.people[at].server?;
                let place = (0..self.servers.len()).find(|&place| follower(place) == server)?;
                (place != leader && self.servers[place].is_running()).then_some((at, place))
            })
            .collect();
        let &(person, place) = self.recipes.rng.pick(&able)?;
        self.counts.one("bursts of commands cut in two");
        for _ in 0..self.recipes.rng.between(4, 12) {
            self.burst_post(person);
        }
        let after = Span(self.recipes.rng.between(0, 4_000));
        if self.recipes.rng.chance(70) {
            let frames = self.recipes.rng.between(1, 2);
            self.recipes.forwards_lost = Some((place, frames));
        } else {
            let span = Span::from_ms(self.recipes.rng.between(1_000, 2_000));
            self.later(after, Happening::Recipe(Step::LeaderDies { but: place, span }));
        }
        self.next(0, 5, Step::Burst { person, left: 30 });
        Some(place)
    }

    fn burst_post(&mut self, person: usize) {
        if self.people[person].core.room_in_outbox() && !self.people[person].closed {
            self.post(person);
            self.tell_person(person, syncnet::client::calls::Input::Timer);
        }
    }

    fn burst(&mut self, person: usize, left: u64) {
        if self.hung.contains(&person) || left == 0 {
            return;
        }
        self.burst_post(person);
        self.next(0, 60, Step::Burst { person, left: left - 1 });
    }

    // --- A leader from the past -----------------------------------------------------------------------

    /// The leader hangs, and hears of nobody for a while after that.
    fn cut_and_hang(&mut self, leader: usize) -> Option<usize> {
        let others = (0..self.servers.len()).filter(|&other| other != leader);
        let cuts: Vec<_> = others.flat_map(|other| [(leader, other), (other, leader)]).collect();
        cuts.iter().for_each(|&(from, to)| self.cut(from, to, true, true));
        self.pause(leader);
        let asleep = self.recipes.rng.between(1_500, 3_500);
        self.later(Span::from_ms(asleep), Happening::Recipe(Step::Wakes { at: leader }));
        self.later(Span::from_ms(asleep + 600), Happening::Heal(Healing::Uncut(cuts)));
        // Whatever becomes of the recipe.
        self.later(Span::from_ms(asleep + 700), Happening::Heal(Healing::Resume(leader)));
        Some(leader)
    }

    fn wakes_late(&mut self, at: usize) {
        self.resume(at);
        let leaders = self.leaders();
        if !leaders.contains(&at) || leaders.len() < 2 {
            return;
        }
        self.counts.one("leaders asked as they woke");
        let name = format!("watcher{}", self.people.len());
        let person = self.add_person(&name, &[at], true);
        let rooms: Vec<RoomId> = self.oracle.known_rooms.values().copied().collect();
        for room in rooms {
            self.read_now(person, room, From::Last(3));
        }
        self.tell_person(person, syncnet::client::calls::Input::Timer);
    }
}
