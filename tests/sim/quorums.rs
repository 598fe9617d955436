//! Who counts, judged by what goes to the disks and over the links and by nothing that a server makes of it: what each data directory
//! holds and has promised, which directories a server's log says to be members, and whether a majority of them stands behind every
//! leader, every commit and every answer to a reader. Nobody vouches for what it can't read, and nobody stands who can't.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syncnet::cluster::members::decode_members;
use syncnet::cluster::message::{AppendResult, Entry, EntryKind, Member, Members, Message, Record, Recovered};
use syncnet::cluster::{Cluster, Role};
use syncnet::log::Append;
use syncnet::node::Input;
use syncnet::types::{AppendId, DirectoryId, LogIndex, ServerId, Term};
use syncnet::wire::peer::PeerMessage;

use super::counts::Counts;
use super::plan::server_id;

/// For whom a server voted in a term, with which of its directories.
type Vote = (Term, Option<(ServerId, DirectoryId)>);

/// A data directory, whether anybody uses it now or not.
#[derive(Debug, Default)]
struct Directory {
    /// Its log, synced or not.
    log: BTreeMap<LogIndex, Term>,
    /// The terms of the entries that were last on the disk, by index: what was cut off since is still here.
    durable: BTreeMap<LogIndex, Term>,
    /// What is at or before this is in a checkpoint.
    base: LogIndex,
    /// The members entries of the log.
    members: BTreeMap<LogIndex, Members>,
    /// The vote that is on the disk.
    vote: Vote,
    /// What waits for a sync.
    waiting: VecDeque<(AppendId, Vec<Line>)>,
}

/// What a record will make durable.
#[derive(Debug)]
enum Line {
    Entry(LogIndex, Term),
    Vote(Vote),
}

impl Directory {
    fn recovered(recovered: &Recovered) -> Directory {
        let mut directory = Directory {
            base: recovered.base.index,
            vote: (recovered.state.term, recovered.state.vote),
            ..Directory::default()
        };
        for (at, &(first, term)) in recovered.terms.iter().enumerate() {
            let end = recovered
                .terms
                .get(at + 1)
                .map_or(recovered.last.index.next(), |next| next.0);
            directory
                .log
                .extend((first.0..end.0).map(|index| (LogIndex(index), term)));
        }
        for entry in &recovered.members {
            directory.learn_members(entry);
        }
        directory
    }

    fn learn_members(&mut self, entry: &Entry) {
        if entry.kind == EntryKind::Members
            && let Some(members) = decode_members(&entry.payload)
        {
            self.members.insert(entry.index, members);
        }
    }

    fn write(&mut self, append: &Append) {
        let mut lines = Vec::new();
        for record in &append.records {
            match record {
                Record::State { state, .. } => lines.push(Line::Vote((state.term, state.vote))),
                Record::Entry { entry, .. } => {
                    self.log.split_off(&entry.index);
                    self.log.insert(entry.index, entry.term);
                    self.members.split_off(&entry.index);
                    self.learn_members(entry);
                    lines.push(Line::Entry(entry.index, entry.term));
                }
                Record::Fill { entry, .. } => {
                    self.log.insert(entry.index, entry.term);
                    self.learn_members(entry);
                    lines.push(Line::Entry(entry.index, entry.term));
                }
                Record::Base { at, members, .. } => {
                    self.log = BTreeMap::from([(at.index, at.term)]);
                    self.base = at.index;
                    self.members.clear();
                    self.learn_members(members);
                    lines.push(Line::Entry(at.index, at.term));
                }
            }
        }
        self.waiting.push_back((append.id, lines));
    }

    fn synced(&mut self, id: AppendId) {
        while self.waiting.front().is_some_and(|&(waiting, _)| waiting <= id) {
            for line in self.waiting.pop_front().map_or(Vec::new(), |(_, lines)| lines) {
                match line {
                    Line::Entry(index, term) => {
                        self.durable.insert(index, term);
                    }
                    Line::Vote(vote) => self.vote = vote,
                }
            }
        }
    }

    /// Whether it has had this very entry on its disk.
    fn has_held(&self, index: LogIndex, term: Term) -> bool {
        index <= self.base || self.durable.get(&index) == Some(&term)
    }

    /// The members whose word counts while the log is known to be committed so far: of the last entry that is, as long as no later
    /// one gives the member another directory. And how many members there are.
    fn electorate(&self, commit: LogIndex) -> (Vec<Member>, usize) {
        let committed = self.members.range(..=commit).next_back();
        let Some((&at, members)) = committed.or(self.members.first_key_value()) else {
            return (Vec::new(), 0);
        };
        let same = |member: &Member, later: &Members| {
            let found = later.members.iter().find(|other| other.id == member.id);
            found.is_some_and(|other| other.directory == member.directory)
        };
        let certain = |member: &&Member| self.members.range(at..).all(|(_, later)| same(member, later));
        let electors = members.members.iter().filter(certain).copied().collect();
        (electors, members.members.len())
    }
}

/// A server as it was when it was last looked at, and what its process was told since it began.
#[derive(Debug, Default)]
struct Seen {
    directory: DirectoryId,
    commit: LogIndex,
    /// Whether there was something that it can't read.
    has_holes: bool,
    /// The last term that it led.
    led: Term,
    /// At the other end of each link.
    links: BTreeMap<ServerId, DirectoryId>,
    /// The votes that it was given in a term.
    votes: (Term, BTreeSet<(ServerId, DirectoryId)>),
    /// Its questions for a read position: to whom, the number, and how far the log was known to be committed when it asked.
    questions: BTreeMap<(ServerId, u64), LogIndex>,
}

/// The judge of majorities.
#[derive(Debug, Default)]
pub struct Quorums {
    directories: BTreeMap<DirectoryId, Directory>,
    servers: Vec<Seen>,
    /// How far any server has known the log to be committed.
    committed: LogIndex,
}

impl Quorums {
    pub fn new(servers: usize) -> Quorums {
        Quorums {
            servers: (0..servers).map(|_| Seen::default()).collect(),
            ..Quorums::default()
        }
    }

    /// A process begins with what recovery has found in a directory. All of that is synced.
    pub fn started(&mut self, at: usize, directory: DirectoryId, recovered: &Recovered) {
        let mut found = Directory::recovered(recovered);
        if let Some(before) = self.directories.remove(&directory) {
            found.durable = before.durable;
        }
        found.durable.extend(&found.log);
        self.directories.insert(directory, found);
        self.servers[at] = Seen {
            directory,
            commit: recovered.state.commit,
            has_holes: !recovered.holes.is_empty(),
            ..Seen::default()
        };
    }

    /// Records go to the disk of a server.
    pub fn writes(&mut self, at: usize, append: &Append) {
        self.directory_mut(at).write(append);
    }

    /// Its disk has them.
    pub fn synced(&mut self, at: usize, id: AppendId) {
        self.directory_mut(at).synced(id);
    }

    fn directory_mut(&mut self, at: usize) -> &mut Directory {
        self.directories.entry(self.servers[at].directory).or_default()
    }

    fn directory(&self, at: usize) -> Option<&Directory> {
        self.directories.get(&self.servers[at].directory)
    }

    /// Whether a members entry that changes something waits in a server's log to be committed.
    pub fn admission_waits(&self, at: usize) -> bool {
        let last = self
            .directory(at)
            .and_then(|directory| directory.members.last_key_value());
        last.is_some_and(|(&index, _)| index.0 > 1 && index > self.committed)
    }

    /// Whether a directory is, or is about to be, that of a member: by the last members entry that any of the directories holds.
    pub fn is_member(&self, server: ServerId, directory: DirectoryId) -> bool {
        let last = self
            .directories
            .values()
            .filter_map(|held| held.members.last_key_value());
        let last = last.max_by_key(|(index, _)| **index);
        last.is_some_and(|(_, members)| {
            let mut members = members.members.iter();
            members.any(|member| member.id == server && member.directory == directory)
        })
    }

    /// A server hears something, and is going to act on it.
    pub fn hears(&mut self, at: usize, input: &Input) -> Result<(), String> {
        let seen = &mut self.servers[at];
        match input {
            Input::LinkUp { server, directory, .. } => {
                seen.links.insert(*server, *directory);
                seen.questions.retain(|(to, _), _| to != server);
            }
            Input::LinkDown { server } => {
                seen.links.remove(server);
            }
            Input::Peer(
                from,
                PeerMessage::Cluster(Message::VoteAnswer {
                    term, granted: true, ..
                }),
            ) => {
                if seen.votes.0 < *term {
                    seen.votes = (*term, BTreeSet::new());
                }
                if let Some(&directory) = seen.links.get(from).filter(|_| seen.votes.0 == *term) {
                    seen.votes.1.insert((*from, directory));
                }
            }
            Input::Peer(
                from,
                PeerMessage::Cluster(Message::ReadIndexAnswer {
                    id, index: Some(index), ..
                }),
            ) => {
                if let Some(asked) = seen.questions.remove(&(*from, *id)).filter(|asked| asked > index) {
                    return Err(format!(
                        "{} asked how far to read when {asked} was committed, and {from} says {index}",
                        server_id(at)
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A server says something to another.
    pub fn says(&mut self, at: usize, to: ServerId, message: &PeerMessage, cluster: &Cluster) -> Result<(), String> {
        let PeerMessage::Cluster(message) = message else {
            return Ok(());
        };
        let name = server_id(at);
        match message {
            Message::ReadIndex { id, .. } => {
                let committed = self.committed;
                self.servers[at].questions.insert((to, *id), committed);
            }
            Message::PreVote { .. } | Message::Vote { .. } if self.servers[at].has_holes => {
                if let Some(hole) = cluster.first_hole() {
                    return Err(format!("{name} stands, and can't read entry {hole}"));
                }
            }
            Message::VoteAnswer {
                term, granted: true, ..
            } => {
                let vote = self.directory(at).map(|directory| directory.vote);
                if !vote.is_some_and(|(of, vote)| of == *term && vote.is_some_and(|(voted, _)| voted == to)) {
                    return Err(format!(
                        "{name} votes for {to} in term {term}, and its disk knows {vote:?}"
                    ));
                }
            }
            Message::AppendAnswer {
                result: AppendResult::Matched { durable, .. },
                ..
            } => {
                if let Some(hole) = cluster.first_hole().filter(|hole| hole <= durable) {
                    return Err(format!(
                        "{name} vouches for the log up to {durable}, and can't read entry {hole}"
                    ));
                }
                let held = |directory: &Directory| match directory.log.get(durable) {
                    Some(&term) => directory.has_held(*durable, term),
                    None => *durable <= directory.base,
                };
                if !self.directory(at).is_none_or(held) {
                    return Err(format!("{name} says that entry {durable} is on its disk, and it isn't"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks at a server after a turn.
    pub fn observe(&mut self, at: usize, cluster: &Cluster, counts: &mut Counts) -> Result<(), String> {
        let (term, commit) = (cluster.term(), cluster.commit());
        if cluster.role() == Role::Leader && self.servers[at].led < term {
            self.check_election(at, cluster)?;
            self.servers[at].led = term;
            if self.servers.iter().any(|seen| seen.has_holes) {
                counts.one("elections beside a log with holes");
            }
        }
        if cluster.role() == Role::Leader && commit > self.committed {
            self.check_commit(at, term, commit)?;
        }
        let holes = cluster.holes() > 0;
        let seen = &mut self.servers[at];
        (seen.commit, seen.has_holes) = (commit, holes);
        self.committed = self.committed.max(commit);
        Ok(())
    }

    /// A server leads a term: a majority of the members has given it its votes, with the directories that are members, and its own is
    /// on its disk.
    fn check_election(&self, at: usize, cluster: &Cluster) -> Result<(), String> {
        let (me, term, seen) = (server_id(at), cluster.term(), &self.servers[at]);
        let Some(directory) = self.directory(at) else {
            return Ok(());
        };
        if let Some(hole) = cluster.first_hole().filter(|_| seen.has_holes) {
            return Err(format!("{me} leads term {term}, and can't read entry {hole}"));
        }
        let mut votes = BTreeSet::new();
        if directory.vote == (term, Some((me, seen.directory))) {
            votes.insert((me, seen.directory));
        }
        if seen.votes.0 == term {
            votes.extend(&seen.votes.1);
        }
        // In the same turn it may have heard of a commit that admits somebody.
        let elected = [seen.commit, cluster.commit()].into_iter().any(|commit| {
            let (electors, members) = directory.electorate(commit);
            let voted = electors
                .iter()
                .filter(|member| votes.contains(&(member.id, member.directory)));
            2 * voted.count() > members
        });
        if elected {
            return Ok(());
        }
        let (electors, members) = directory.electorate(seen.commit);
        Err(format!(
            "{me} leads term {term} with the votes of {votes:?}; of {members} members {electors:?} count"
        ))
    }

    /// A leader is the first to know that the log is committed so far: it has counted, and what it has counted is of its own term and
    /// was on the disks of a majority of the members, an entry that changes them by those before it.
    fn check_commit(&self, at: usize, term: Term, commit: LogIndex) -> Result<(), String> {
        let (me, seen) = (server_id(at), &self.servers[at]);
        let Some(directory) = self.directory(at) else {
            return Ok(());
        };
        let Some(&last) = directory.log.get(&commit) else {
            return Err(format!("{me} commits entry {commit}, which isn't in its log"));
        };
        if last != term {
            return Err(format!(
                "{me} leads term {term}, and commits entry {commit} of term {last} by counting"
            ));
        }
        let before = seen.commit.max(self.committed);
        let changes = directory.members.range(before.next()..commit).map(|(&index, _)| index);
        for index in changes.chain([commit]) {
            let of = directory.log.get(&index).copied().unwrap_or_default();
            let (electors, members) = directory.electorate(index.previous());
            let holds = |member: &&Member| {
                let other = self.directories.get(&member.directory);
                other.is_some_and(|other| other.has_held(index, of))
            };
            let holders: Vec<_> = electors.iter().filter(holds).map(|member| member.id).collect();
            if 2 * holders.len() <= members {
                return Err(format!(
                    "{me} commits entry {index}, and of the {members} members only {holders:?} have it on their disks"
                ));
            }
        }
        Ok(())
    }
}
