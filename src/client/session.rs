//! The client's session at the cluster: opened once, attached to again on every new connection.

use sha2::{Digest, Sha256};

use crate::limits;
use crate::types::{Lamport, SessionId, Tick};
use crate::wire::client::Request;

/// How far the session is on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Not asked for, and not to be before this.
    Unasked(Tick),
    /// Asked for.
    Asked,
    /// Open: commands may be sent.
    Open,
    /// Refused: nothing happens until the program chooses another name.
    Refused,
}

/// The session.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Session {
    name: String,
    key: [u8; 32],
    secret: [u8; 16],
    wanted: bool,
    id: Option<SessionId>,
    stage: Stage,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} as {}", self.id, self.stage, self.name)
    }
}

impl Session {
    /// A session that isn't wanted yet.
    #[must_use]
    pub fn new(name: String, key: [u8; 32], secret: [u8; 16]) -> Session {
        Session {
            name,
            key,
            secret,
            wanted: false,
            id: None,
            stage: Stage::Unasked(Tick(0)),
        }
    }

    /// It is to be opened.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// It is to be opened under this name, if it isn't open yet.
    pub fn want_as(&mut self, name: String) {
        self.wanted = true;
        if self.id.is_none() {
            self.name = name;
            if self.stage == Stage::Refused {
                self.stage = Stage::Unasked(Tick(0));
            }
        }
    }

    /// Whether it is wanted, and could be had: a refused one can't.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.wanted && matches!(self.stage, Stage::Unasked(_) | Stage::Asked)
    }

    /// Whether the server owes an answer.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.stage == Stage::Asked
    }

    /// When it is to be asked for.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        match self.stage {
            Stage::Unasked(at) if self.wanted => Some(at),
            _ => None,
        }
    }

    /// The session, if it was ever opened and hasn't expired.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.id
    }

    /// The session, if commands may be sent on this connection.
    #[must_use]
    pub fn attached(&self) -> Option<SessionId> {
        self.id.filter(|_| self.stage == Stage::Open)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// It has another name.
    pub fn renamed(&mut self, name: String) {
        self.name = name;
    }

    /// The connection is another one.
    pub fn rewind(&mut self) {
        if self.stage != Stage::Refused {
            self.stage = Stage::Unasked(Tick(0));
        }
    }

    /// The request that opens it or attaches to it, if one is due. The same secret again finds what an earlier `Open`, whose
    /// answer was lost, has opened.
    pub fn ask(&mut self, now: Tick, lamport: Lamport) -> Option<Request> {
        if self.deadline()? > now {
            return None;
        }
        self.stage = Stage::Asked;
        let secret = self.secret;
        Some(match self.id {
            Some(session) => Request::Attach { session, secret },
            None => Request::Open {
                name: self.name.clone(),
                key: self.key,
                secret,
                lamport,
            },
        })
    }

    /// It is open. Whether it is another than before, or the first.
    pub fn opened(&mut self, id: SessionId) -> bool {
        let new = self.id != Some(id);
        self.id = Some(id);
        self.stage = Stage::Open;
        new
    }

    /// The server had no room: once more, a little later.
    pub fn busy(&mut self, now: Tick) {
        self.stage = Stage::Unasked(now.after(limits::CLIENT_BUSY_REST));
    }

    /// It can't be opened.
    pub fn refuse(&mut self) {
        self.stage = Stage::Refused;
    }

    /// The cluster has forgotten it. The next one has another secret, so that it can't be taken for this one; whoever knows
    /// one secret learns nothing of those before it.
    pub fn forget(&mut self) {
        self.id = None;
        self.stage = Stage::Unasked(Tick(0));
        let digest = Sha256::new()
            .chain_update(b"next session")
            .chain_update(self.secret)
            .finalize();
        for (byte, new) in self.secret.iter_mut().zip(digest) {
            *byte = new;
        }
    }
}
