//! The file with the cluster's secret: who may read it, and what stands in it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Secret;
use crate::limits;

/// How to make one: said wherever one is missing or can't be used.
pub const HOW_TO_MAKE: &str = "make one with: (umask 077; head -c 32 /dev/urandom | base64 > cluster.secret), \
     and copy it to every server";

/// Reads the file, if nobody but its owner can.
pub fn read(path: &Path) -> Result<String, String> {
    let mut file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("the secret file isn't there; {HOW_TO_MAKE}"),
        _ => format!("can't read the secret file: {e}"),
    })?;
    let metadata = file
        .metadata()
        .map_err(|e| format!("can't read the secret file: {e}"))?;
    if !metadata.is_file() {
        return Err(format!("the secret file isn't a file; {HOW_TO_MAKE}"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "others than its owner may open the secret file (mode {:03o}); forbid it with: chmod 600 {}",
            metadata.mode() & 0o777,
            path.display()
        ));
    }
    if metadata.len() > limits::SECRET_FILE_BYTES_MAX {
        return Err(format!("the secret file is too long to be one; {HOW_TO_MAKE}"));
    }
    let mut text = String::new();
    file.by_ref()
        .take(limits::SECRET_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|_| format!("the secret file isn't text; {HOW_TO_MAKE}"))?;
    Ok(text)
}

/// Reads hex or base64. What could be both is hex.
pub fn decode(text: &str) -> Result<Secret, String> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let bytes = hex(&digits)
        .or_else(|| base64(&digits))
        .ok_or_else(|| format!("the secret is neither hex nor base64; {HOW_TO_MAKE}"))?;
    if bytes.len() < limits::SECRET_BYTES_MIN {
        return Err(format!(
            "the secret has {} bytes, and must have {} at least; {HOW_TO_MAKE}",
            bytes.len(),
            limits::SECRET_BYTES_MIN
        ));
    }
    Ok(Secret(bytes))
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16).map(|v| v as u8);
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(value(*high)? << 4 | value(*low)?),
            _ => None,
        })
        .collect()
}

/// The standard or the URL alphabet (RFC 4648), with or without padding.
fn base64(digits: &[u8]) -> Option<Vec<u8>> {
    let unpadded = digits
        .strip_suffix(b"==")
        .or_else(|| digits.strip_suffix(b"="))
        .unwrap_or(digits);
    let mut bytes = Vec::new();
    let mut bits = 0_u32;
    let mut held = 0;
    for digit in unpadded {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xFFFF;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    (unpadded.len() % 4 != 1).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn both_forms_are_read() {
        let bytes: Vec<u8> = (0..32).map(|n| n * 7).collect();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(decode(&format!("{hex}\n")), Ok(Secret(bytes.clone())));
        // As `base64` prints it.
        let base64 = "AAcOFRwjKjE4P0ZNVFtiaXB3foWMk5qhqK+2vcTL0tk=\n";
        assert_eq!(decode(base64), Ok(Secret(bytes.clone())));
        assert_eq!(
            decode(&base64.replace(['=', '\n'], "").replace('+', "-")),
            Ok(Secret(bytes))
        );
    }

    #[test]
    fn weak_and_broken_secrets_are_refused_with_the_remedy() {
        for bad in ["", "secret", "c2hvcnQ=", "not base64 at all!", &"ab".repeat(31)] {
            let error = decode(bad).unwrap_err();
            assert!(error.contains("/dev/urandom"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.secret");
        assert!(read(&path).unwrap_err().contains("/dev/urandom"));
        std::fs::write(&path, "00").unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o601, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), good, "{mode:o}");
        }
        assert!(read(&path).unwrap_err().contains("chmod 600"));
    }
}
