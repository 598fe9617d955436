//! The handshake of a link between servers, without its socket: frames in, frames out, and at the end who the other is.
//!
//! 1. The caller sends its hello, which names whom it believes to call.
//! 2. The called answers with its own hello and its proof.
//! 3. The caller, having both hellos, sends its proof.
//!
//! A proof is a MAC by the cluster's secret over a label of the side and both hellos, each with a fresh nonce: it can neither be
//! sent back nor be used on another link. Without a secret it is empty, and both sides must agree on that.

use crate::cluster::message::Sender;
use crate::config::Secret;
use crate::types::ServerId;
use crate::wire::auth::{Side, link_proof, verify_link};
use crate::wire::frame::LENGTH_BYTES;
use crate::wire::peer::{Handshake, MAGIC, VERSIONS, decode_handshake, encode_handshake};
use crate::wire::{Error, common_version};

/// What this server says of itself and expects of others.
#[derive(Clone, Debug)]
pub struct Identity<'a> {
    /// The cluster's name.
    pub cluster_name: &'a str,
    /// The cluster's secret.
    pub secret: Option<&'a Secret>,
    /// Who this server is.
    pub sender: Sender,
    /// All servers that may call.
    pub servers: &'a [ServerId],
}

/// A handshake that isn't done.
#[derive(Clone, Debug)]
pub struct Shake {
    side: Side,
    /// Whom this side has called.
    called: Option<ServerId>,
    nonce: [u8; 16],
    /// The body of our hello.
    ours: Vec<u8>,
    /// The body of theirs, and what it says.
    theirs: Option<(Vec<u8>, Sender)>,
}

/// Why a link can't be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In words.
    pub text: String,
    /// Whether the other should be told; not if it was the other that refused.
    pub tell: bool,
}

impl Shake {
    /// The caller's side; its hello goes to `out`.
    #[must_use]
    pub fn call(identity: &Identity<'_>, called: ServerId, nonce: [u8; 16], out: &mut Vec<u8>) -> Shake {
        let mut shake = Shake {
            side: Side::Caller,
            called: Some(called),
            nonce,
            ours: Vec::new(),
            theirs: None,
        };
        shake.say_hello(identity, out);
        shake
    }

    /// The side that was called: it waits for the caller's hello.
    #[must_use]
    pub fn answer(nonce: [u8; 16]) -> Shake {
        Shake {
            side: Side::Called,
            called: None,
            nonce,
            ours: Vec::new(),
            theirs: None,
        }
    }

    /// A frame of the other side. Gives who it is when the link works; until then nothing.
    ///
    /// # Errors
    /// Why the link can't be.
    pub fn take(&mut self, identity: &Identity<'_>, body: &[u8], out: &mut Vec<u8>) -> Result<Option<Sender>, Refusal> {
        match (decode_handshake(body), &self.theirs) {
            (Ok(Handshake::Refused { text }), _) => Err(Refusal {
                text: clean(&text),
                tell: false,
            }),
            (Ok(hello @ Handshake::Hello { .. }), None) => {
                let sender = self.check_hello(identity, hello)?;
                self.theirs = Some((body.to_vec(), sender));
                if self.side == Side::Called {
                    self.say_hello(identity, out);
                }
                self.prove(identity, out);
                Ok(None)
            }
            (Ok(Handshake::Proof { mac }), Some((theirs, sender))) => {
                let right = match identity.secret {
                    None => mac.is_empty(),
                    Some(secret) => {
                        let (side, caller, called) = match self.side {
                            Side::Caller => (Side::Called, &self.ours, theirs),
                            Side::Called => (Side::Caller, theirs, &self.ours),
                        };
                        verify_link(secret, side, caller, called, &mac)
                    }
                };
                if right {
                    Ok(Some(*sender))
                } else {
                    Err(refuse(Error::NotAuthentic.to_string()))
                }
            }
            (Ok(_), _) => Err(refuse("a frame of the handshake came out of turn".to_owned())),
            (Err(error), _) => Err(refuse(error.to_string())),
        }
    }

    /// Who the other says it is; not to be believed before the handshake is done.
    #[must_use]
    pub fn theirs(&self) -> Option<Sender> {
        self.theirs.as_ref().map(|(_, sender)| *sender)
    }

    fn say_hello(&mut self, identity: &Identity<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        let hello = Handshake::Hello {
            magic: MAGIC,
            versions: VERSIONS,
            cluster_name: identity.cluster_name.to_owned(),
            sender: identity.sender,
            to: self.called,
            nonce: self.nonce,
        };
        encode_handshake(&hello, out);
        self.ours = out.get(start + LENGTH_BYTES..).unwrap_or_default().to_vec();
    }

    fn prove(&self, identity: &Identity<'_>, out: &mut Vec<u8>) {
        let Some((theirs, _)) = &self.theirs else { return };
        let mac = identity.secret.map_or(Vec::new(), |secret| {
            let (caller, called) = match self.side {
                Side::Caller => (&self.ours, theirs),
                Side::Called => (theirs, &self.ours),
            };
            link_proof(secret, self.side, caller, called).to_vec()
        });
        encode_handshake(&Handshake::Proof { mac }, out);
    }

    fn check_hello(&self, identity: &Identity<'_>, hello: Handshake) -> Result<Sender, Refusal> {
        let Handshake::Hello {
            magic,
            versions,
            cluster_name,
            sender,
            to,
            ..
        } = hello
        else {
            return Err(refuse("not a hello".to_owned()));
        };
        let ours = identity.sender.server;
        if magic != MAGIC {
            return Err(refuse(Error::NotOurs.to_string()));
        }
        common_version(VERSIONS, versions).map_err(|error| refuse(error.to_string()))?;
        if cluster_name != identity.cluster_name {
            let theirs = clean(&cluster_name);
            return Err(refuse(format!(
                "the cluster of {ours} is named \"{}\", that of {} \"{theirs}\"",
                identity.cluster_name, sender.server
            )));
        }
        if let Some(to) = to
            && to != ours
        {
            return Err(refuse(format!(
                "this is {ours}, but {to} was called: check hosts and peer ports in the configuration"
            )));
        }
        if sender.server == ours {
            return Err(refuse(format!("this is {ours}: another process has the same id")));
        }
        if !identity.servers.contains(&sender.server) {
            return Err(refuse(format!(
                "{} is not among the servers in the configuration of {ours}",
                sender.server
            )));
        }
        if let Some(called) = self.called
            && sender.server != called
        {
            return Err(refuse(format!(
                "{called} was called and {} has answered",
                sender.server
            )));
        }
        agree(&identity.sender, &sender).map_err(refuse)?;
        Ok(sender)
    }
}

/// Whether two servers may talk at all.
///
/// # Errors
/// Why not.
pub fn agree(ours: &Sender, theirs: &Sender) -> Result<(), String> {
    let (us, them) = (ours.server, theirs.server);
    if ours.cluster.0 != 0 && theirs.cluster.0 != 0 && ours.cluster != theirs.cluster {
        return Err(format!(
            "{us} belongs to cluster {:016x} and {them} to {:016x}: one of them has a data directory of another cluster",
            ours.cluster.0, theirs.cluster.0
        ));
    }
    if ours.members != theirs.members {
        return Err(format!(
            "{us} and {them} have different sets of servers: their configurations must name the same"
        ));
    }
    Ok(())
}

fn refuse(text: String) -> Refusal {
    Refusal { text, tell: true }
}

/// A stranger's text, fit for a line of the log.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Boot, ClusterId, DirectoryId};
    use crate::wire::frame::{Split, split};

    fn id(n: u64) -> ServerId {
        ServerId::new(&format!("server{n}")).unwrap()
    }

    fn sender(n: u64) -> Sender {
        Sender {
            cluster: ClusterId(0),
            members: 9,
            server: id(n),
            directory: DirectoryId(n),
            boot: Boot(1),
        }
    }

    struct House {
        servers: Vec<ServerId>,
        secret: Option<Secret>,
        sender: Sender,
        name: String,
    }

    impl House {
        fn new(n: u64) -> House {
            House {
                servers: (1..=3).map(id).collect(),
                secret: Some(Secret(vec![7; 32])),
                sender: sender(n),
                name: "syncnet".to_owned(),
            }
        }
        fn identity(&self) -> Identity<'_> {
            Identity {
                cluster_name: &self.name,
                secret: self.secret.as_ref(),
                sender: self.sender,
                servers: &self.servers,
            }
        }
    }

    type Ends = (Option<Sender>, Option<Sender>);

    /// Walks both sides until both are done or one refuses.
    fn shake(a: &House, b: &House, called: ServerId) -> Result<Ends, Refusal> {
        let (mut to_b, mut to_a) = (Vec::new(), Vec::new());
        let mut caller = Shake::call(&a.identity(), called, [1; 16], &mut to_b);
        let mut callee = Shake::answer([2; 16]);
        let mut ends = (None, None);
        while !to_a.is_empty() || !to_b.is_empty() {
            if let Split::Complete { body, consumed } = split(&to_b.clone(), 4096) {
                to_b.drain(..consumed);
                ends.1 = ends.1.or(callee.take(&b.identity(), body, &mut to_a)?);
            }
            if let Split::Complete { body, consumed } = split(&to_a.clone(), 4096) {
                to_a.drain(..consumed);
                ends.0 = ends.0.or(caller.take(&a.identity(), body, &mut to_b)?);
            }
        }
        Ok(ends)
    }

    #[test]
    fn two_servers_learn_who_the_other_is() {
        assert_eq!(
            shake(&House::new(1), &House::new(2), id(2)),
            Ok((Some(sender(2)), Some(sender(1))))
        );
        let (mut a, mut b) = (House::new(1), House::new(2));
        (a.secret, b.secret) = (None, None);
        assert_eq!(shake(&a, &b, id(2)), Ok((Some(sender(2)), Some(sender(1)))));
    }

    #[test]
    fn a_wrong_or_missing_secret_is_refused_by_both_sides() {
        for secret in [None, Some(Secret(vec![8; 32]))] {
            let mut stranger = House::new(1);
            stranger.secret = secret.clone();
            assert!(shake(&stranger, &House::new(2), id(2)).is_err());
            stranger.sender = sender(2);
            assert!(shake(&House::new(1), &stranger, id(2)).is_err());
        }
    }

    #[test]
    fn a_proof_cannot_be_sent_back() {
        let (a, b) = (House::new(1), House::new(2));
        let (mut hello, mut answer) = (Vec::new(), Vec::new());
        let _ = Shake::call(&a.identity(), id(2), [1; 16], &mut hello);
        let mut callee = Shake::answer([2; 16]);
        callee.take(&b.identity(), &hello[4..], &mut answer).unwrap();
        let Split::Complete { consumed, .. } = split(&answer, 4096) else {
            panic!("a hello")
        };
        let echoed = answer[consumed + 4..].to_vec();
        assert!(callee.take(&b.identity(), &echoed, &mut Vec::new()).is_err());
    }

    #[test]
    fn what_does_not_belong_together_is_told_so() {
        let refusal = |change: &dyn Fn(&mut House)| {
            let mut b = House::new(2);
            change(&mut b);
            shake(&House::new(1), &b, id(2)).unwrap_err().text
        };
        assert!(refusal(&|b| b.name = "other".to_owned()).contains("\"other\""));
        assert!(refusal(&|b| b.sender.members = 8).contains("different sets of servers"));
        assert!(refusal(&|b| b.sender.server = id(3)).contains("server2 was called"));
        assert!(refusal(&|b| b.sender.server = id(1)).contains("was called"));
        assert!(refusal(&|b| b.servers = vec![id(2), id(3)]).contains("not among the servers"));
        let mut a = House::new(1);
        a.sender.cluster = ClusterId(5);
        let mut b = House::new(2);
        b.sender.cluster = ClusterId(6);
        assert!(shake(&a, &b, id(2)).unwrap_err().text.contains("another cluster"));
        b.sender.cluster = ClusterId(0);
        assert!(
            shake(&a, &b, id(2)).is_ok(),
            "one that has not heard of the formation may talk"
        );
    }

    #[test]
    fn a_second_process_of_our_id_is_refused() {
        let mut twin = House::new(2);
        twin.sender.directory = DirectoryId(99);
        let refusal = shake(&twin, &House::new(2), id(2)).unwrap_err();
        assert!(refusal.text.contains("same id"), "{}", refusal.text);
    }

    #[test]
    fn frames_out_of_turn_and_garbage_are_refused() {
        let house = House::new(2);
        let mut callee = Shake::answer([2; 16]);
        let mut proof = Vec::new();
        encode_handshake(&Handshake::Proof { mac: Vec::new() }, &mut proof);
        assert!(callee.take(&house.identity(), &proof[4..], &mut Vec::new()).is_err());
        assert!(callee.take(&house.identity(), b"\xff\xff", &mut Vec::new()).is_err());
    }
}
