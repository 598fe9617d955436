//! Frames on a stream: a length of four bytes, little-endian, and so many bytes of body.

/// Bytes of the length in front of a body.
pub const LENGTH_BYTES: usize = 4;

/// What the beginning of a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole frame.
    Complete {
        /// The body.
        body: &'a [u8],
        /// Bytes of the frame, its length included.
        consumed: usize,
    },
    /// More bytes are needed.
    Incomplete,
    /// The frame announces more bytes than allowed: the stream can't be read on.
    TooLong(u32),
}

/// Looks for a frame at the beginning of `bytes`; a body has at most `max` bytes.
#[must_use]
pub fn split(bytes: &[u8], max: usize) -> Split<'_> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Split::Incomplete;
    };
    let length = u32::from_le_bytes(*length);
    if length as usize > max {
        return Split::TooLong(length);
    }
    match rest.get(..length as usize) {
        Some(body) => Split::Complete {
            body,
            consumed: LENGTH_BYTES + length as usize,
        },
        None => Split::Incomplete,
    }
}

/// Appends a frame whose body `write` appends.
pub fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    write(out);
    let length = (out.len() - start - LENGTH_BYTES) as u32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        frame(&mut bytes, |out| out.extend_from_slice(b"hello"));
        assert_eq!(bytes, b"\x05\0\0\0hello");
        for end in 0..bytes.len() {
            assert_eq!(split(&bytes[..end], 5), Split::Incomplete);
        }
        bytes.extend_from_slice(b"next");
        assert_eq!(
            split(&bytes, 5),
            Split::Complete {
                body: b"hello",
                consumed: 9
            }
        );
    }

    #[test]
    fn an_announced_length_is_checked_before_its_bytes_come() {
        assert_eq!(split(&[6, 0, 0, 0], 5), Split::TooLong(6));
        assert_eq!(split(&[255; 4], 5), Split::TooLong(u32::MAX));
        assert_eq!(split(&[0, 0, 0, 0], 5), Split::Complete { body: b"", consumed: 4 });
    }
}
