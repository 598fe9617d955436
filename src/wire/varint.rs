//! Numbers in bincode's variable form, by hand: for the few frames that are so many that a deserializer costs more than what they say.
//! One byte up to 250; else a byte that says how many follow, little-endian.

/// How many bytes a number takes.
pub fn bytes(n: u64) -> usize {
    match n {
        0..=250 => 1,
        251..=0xFFFF => 3,
        0x1_0000..=0xFFFF_FFFF => 5,
        _ => 9,
    }
}

/// Appends a number.
pub fn push(n: u64, out: &mut Vec<u8>) {
    let bytes = n.to_le_bytes();
    match n {
        0..=250 => out.push(bytes[0]),
        251..=0xFFFF => out.extend_from_slice(&[251, bytes[0], bytes[1]]),
        0x1_0000..=0xFFFF_FFFF => out.extend_from_slice(&[252, bytes[0], bytes[1], bytes[2], bytes[3]]),
        _ => {
            out.push(253);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Takes a number from the front; nothing if none stands there.
pub fn take(rest: &mut &[u8]) -> Option<u64> {
    let (&first, after) = rest.split_first()?;
    let bytes = match first {
        0..=250 => {
            *rest = after;
            return Some(u64::from(first));
        }
        251 => 2,
        252 => 4,
        253 => 8,
        _ => return None,
    };
    let (number, after) = after.split_at_checked(bytes)?;
    let mut wide = [0; 8];
    wide[..bytes].copy_from_slice(number);
    *rest = after;
    Some(u64::from_le_bytes(wide))
}

/// Takes bytes behind their number from the front.
pub fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take(rest)?).ok()?;
    rest.split_off(..length)
}

/// As [`take`], for a number of 32 bits.
pub fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    // The form of eight bytes is none of such a number, whatever stands in it.
    if rest.first() == Some(&253) {
        return None;
    }
    take(rest).and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{decode, encode};

    #[test]
    fn numbers_are_those_of_the_deserializer() {
        let edges = [0, 250, 251, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, 0x1_0000_0000, u64::MAX];
        for n in edges {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            push(n, &mut ours);
            encode(&n, &mut theirs);
            assert_eq!(ours, theirs);
            assert_eq!(bytes(n), ours.len());
        }
        // Whatever stands there: forms that are longer than they need be, numbers of 128 bits, cut ones.
        let mut rng = crate::rng::Rng::new(7);
        for _ in 0..20_000 {
            let mut some = [0; 10];
            some.iter_mut().for_each(|byte| *byte = rng.draw() as u8);
            some[0] = if rng.chance(80) {
                245 + rng.below(11) as u8
            } else {
                some[0]
            };
            let some = &some[..rng.below(11) as usize];
            let mut rest = some;
            if let Some(n) = take_u32(&mut rest) {
                let used = &some[..some.len() - rest.len()];
                assert_eq!(decode::<u32, 64>(used, "number").ok(), Some(n), "{some:?}");
            }
            rest = some;
            let taken = take(&mut rest);
            let used = &some[..some.len() - rest.len()];
            match taken {
                Some(n) => assert_eq!(decode::<u64, 64>(used, "number").ok(), Some(n), "{some:?}"),
                None => assert!(
                    (0..=some.len()).all(|end| decode::<u64, 64>(&some[..end], "number").is_err()),
                    "{some:?}"
                ),
            }
        }
    }
}
