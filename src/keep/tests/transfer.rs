//! Checkpoints on their way between servers, and ends in the middle of it.

use super::*;

/// Hands a checkpoint of one over to another, in pieces of so many bytes. What the other said last.
fn hand_over(from: &mut House, to: &mut House, piece_bytes: usize, wanted: Option<CheckpointId>) -> Kept {
    let (mut id, mut offset) = (wanted, 0);
    for token in 0..10_000 {
        let said = from.job(KeepJob::Read { token, id, offset });
        let piece = said.into_iter().find_map(|kept| match kept {
            Kept::Piece { token: of, piece } if of == token => Some(piece),
            _ => None,
        });
        let (of, at, bytes) = piece.flatten().expect("a piece");
        assert!(id.is_none_or(|id| id == of) && at == offset);
        id = Some(of);
        let bytes = Blob::new(&bytes[..bytes.len().min(piece_bytes)]);
        let said = to.job(KeepJob::Store { id: of, offset, bytes });
        let last = said
            .into_iter()
            .find(|kept| matches!(kept, Kept::Stored { .. } | Kept::Installed { .. }));
        match last.expect("an answer") {
            Kept::Stored { id, next } if id == of && next > offset => offset = next,
            other => return other,
        }
    }
    panic!("it has no end");
}

#[test]
fn a_checkpoint_that_is_handed_over_in_pieces_is_the_same_state_elsewhere() {
    let mut from = House::with_checkpoints(3);
    let mut to = House::new(THERE);
    // The oldest, if none is named.
    let oldest = from.marks()[0];
    let Kept::Installed { id, members, state } = hand_over(&mut from, &mut to, 100, None) else {
        panic!("it isn't there");
    };
    assert_eq!((id.at.index.0, &*members.payload), (oldest, &b"members"[..]));
    assert_eq!((state.digest(), *state), (from.digests[&id.at.index], from.stored(&id)));
    // The log begins behind it.
    to.append(vec![Record::Base {
        group: ROOT,
        at: id.at,
        chain: id.chain,
        members,
    }]);
    to.job(KeepJob::Begun {
        index: id.at.index,
        taken: true,
    });
    assert_eq!(to.marks(), [oldest]);
    (to.live, to.chain) = (from.stored(&id), id.chain);
    let ends: Vec<_> = to.live.room_ends().collect();
    to.reader.seed(ends, &[]);
    let after = from.entries(id.at.index.next());
    for entry in &after {
        to.enter(entry.kind, entry.payload.clone());
    }
    assert_eq!(to.live, from.live);
    assert_eq!(to.chain, from.chain);
    to.make();
    let mut to = to.again();
    assert_eq!((to.live.clone(), to.recovered.base), (from.live.clone(), id.at));
    let held: Vec<_> = from
        .history()
        .into_iter()
        .filter(|(_, _, entry)| entry.index > id.at.index)
        .collect();
    assert_eq!(to.history(), held);
    // And what was made elsewhere is the same, byte for byte.
    let Kept::Installed { state, .. } = hand_over(&mut to, &mut House::new(HERE), usize::MAX, None) else {
        panic!("it isn't there");
    };
    assert_eq!(state.digest(), id.digest);
}

#[test]
fn a_piece_that_came_garbled_is_asked_for_again_and_nothing_is_installed() {
    let mut from = House::with_checkpoints(1);
    let mut to = House::new(THERE);
    let id = from.make();
    let said = from.job(KeepJob::Read {
        token: 1,
        id: Some(id),
        offset: 0,
    });
    let mut bytes = said
        .into_iter()
        .find_map(|kept| match kept {
            Kept::Piece { piece, .. } => piece.map(|(_, _, bytes)| bytes.to_vec()),
            _ => None,
        })
        .unwrap();
    bytes[90] ^= 4;
    let said = to.job(KeepJob::Store {
        id,
        offset: 0,
        bytes: Blob::new(&bytes),
    });
    assert!(said.contains(&Kept::Stored { id, next: 0 }), "{said:?}");
    assert!(to.marks().is_empty());
    assert!(matches!(
        hand_over(&mut from, &mut to, 1 << 20, Some(id)),
        Kept::Installed { .. }
    ));
}

#[test]
fn no_piece_is_handed_out_of_a_checkpoint_that_is_not_there_or_damaged() {
    let mut house = House::with_checkpoints(2);
    let id = house.make();
    let other = CheckpointId {
        digest: id.digest ^ 1,
        ..id
    };
    let none = Kept::Piece { token: 7, piece: None };
    assert!(
        house
            .job(KeepJob::Read {
                token: 7,
                id: Some(other),
                offset: 0
            })
            .contains(&none)
    );
    assert!(house.disk.flip_bit(&file_name(id.at.index), 150, 1));
    let said = house.job(KeepJob::Read {
        token: 7,
        id: Some(id),
        offset: 0,
    });
    assert!(said.contains(&none) && said_error(&said, "ckpt"), "{said:?}");
    assert!(!house.marks().contains(&id.at.index.0));
}

#[test]
fn an_end_anywhere_while_a_checkpoint_is_taken_over_leaves_the_old_log_or_the_new_beginning() {
    let mut from = House::with_checkpoints(2);
    let id = from.make();
    let said = from.job(KeepJob::Read {
        token: 1,
        id: Some(id),
        offset: 0,
    });
    let piece = said.into_iter().find_map(|kept| match kept {
        Kept::Piece { piece, .. } => piece.map(|(_, _, bytes)| bytes),
        _ => None,
    });
    let bytes = piece.unwrap();
    assert_eq!(bytes.len() as u64, id.bytes, "one piece is enough here");
    let mut to = House::new(THERE);
    to.say("what the old log has");
    to.make();
    to.log.close().unwrap();
    let old = to.live.clone();
    let (mut olds, mut news, mut done) = (0, 0, false);
    for changes in 0.. {
        if done {
            break;
        }
        for power in [false, true] {
            let disk = to.disk.copy();
            let mut house = House::open(&disk, THERE);
            disk.stop_after(changes);
            done = take_over(&mut house, id, &bytes);
            if power {
                disk.power_cut(&mut Rng::new(changes));
            }
            disk.kill();
            let after = House::open(&disk, THERE);
            if after.recovered.base.index == id.at.index {
                assert_eq!(after.live, from.live, "{changes}");
                assert_eq!((after.recovered.last, after.recovered.last_chain), (id.at, id.chain));
                assert_eq!(after.marks(), [id.at.index.0], "{changes}");
                news += 1;
            } else {
                assert_eq!(
                    (after.recovered.base, &after.live),
                    (LogPosition::default(), &old),
                    "{changes}"
                );
                olds += 1;
            }
            // Both can go on, and open once more.
            let mut after = after;
            after.say("more");
            let live = after.live.clone();
            after.make();
            assert_eq!(after.again().live, live);
        }
    }
    assert!(olds > 5 && news > 5, "{olds} {news}");
}

/// Stores a checkpoint and begins the log behind it, as far as the disk lets it. Whether it came to the end.
fn take_over(house: &mut House, id: CheckpointId, bytes: &Blob) -> bool {
    house.keeper.take(KeepJob::Store {
        id,
        offset: 0,
        bytes: bytes.clone(),
    });
    let mut members = None;
    while let Ok(Step::More) = house.keeper.step() {
        while let Some(kept) = house.keeper.answer() {
            if let Kept::Installed { members: found, .. } = kept {
                members = Some(found);
            }
        }
    }
    let Some(members) = members else { return false };
    let records = vec![Record::Base {
        group: ROOT,
        at: id.at,
        chain: id.chain,
        members,
    }];
    let append = Append {
        id: AppendId(1),
        records,
        commits: Vec::new(),
        sync: true,
    };
    if house.log.append(&append).is_err() || house.log.flush().is_err() || house.log.sync().is_err() {
        return false;
    }
    house.keeper.take(KeepJob::Begun {
        index: id.at.index,
        taken: true,
    });
    house.keeper.step().is_ok()
}
