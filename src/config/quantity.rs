//! Durations and sizes as people write them: a whole number and a unit.

use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;

use crate::types::Span;

/// A duration such as `"100ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub Span);

/// A size such as `"16MiB"`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

const DURATION_UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE_UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];
const DURATION_FORM: &str =
    "a duration with its unit in quotes, such as \"100ms\", \"3s\", \"10m\", \"24h\" or \"90d\"";
const SIZE_FORM: &str = "a size with its unit in quotes, such as \"64KiB\", \"16MiB\" or \"20GiB\"";

/// Reads a duration.
pub fn duration(text: &str) -> Result<Span, String> {
    let ms = quantity(text, &DURATION_UNITS).ok_or_else(|| format!("{text:?} isn't {DURATION_FORM}"))?;
    // A `Span` counts microseconds.
    match ms.checked_mul(1000) {
        Some(us) => Ok(Span(us)),
        None => Err(format!("{text:?} is longer than this program can count")),
    }
}

/// Reads a size.
pub fn size(text: &str) -> Result<u64, String> {
    quantity(text, &SIZE_UNITS).ok_or_else(|| format!("{text:?} isn't {SIZE_FORM}"))
}

/// Writes a duration as [`duration`] reads it, in the largest unit that fits.
pub fn show_duration(span: Span) -> String {
    let ms = span.as_ms();
    let (unit, factor) = DURATION_UNITS
        .into_iter()
        .rev()
        .filter(|(unit, _)| *unit != "min")
        .find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor))
        .unwrap_or(("ms", 1));
    format!("{}{unit}", ms / factor)
}

/// Writes a size as [`size`] reads it, in the largest binary unit that fits.
pub fn show_size(bytes: u64) -> String {
    let (unit, factor) = SIZE_UNITS
        .into_iter()
        .take(5)
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

struct Form<T> {
    form: &'static str,
    read: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Form<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.form)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(Form {
            form: DURATION_FORM,
            read: |text| duration(text).map(Duration),
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        deserializer.deserialize_str(Form {
            form: SIZE_FORM,
            read: |text| size(text).map(Size),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_mean_what_they_say() {
        assert_eq!(duration("100ms"), Ok(Span::from_ms(100)));
        assert_eq!(duration("3 s"), Ok(Span::from_ms(3_000)));
        assert_eq!(duration("90d"), Ok(Span::from_ms(90 * 86_400_000)));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("20GiB"), Ok(20 << 30));
        for bad in [
            "",
            "100",
            "ms",
            "-1s",
            "1.5s",
            "1 week",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        assert!(duration("18446744073709551615ms").is_err());
        for bad in ["64", "64kib", "1PiB", "KiB", "99999999999999TiB"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in ["100ms", "3s", "10m", "24h", "90d", "1500ms", "0ms"] {
            assert_eq!(
                duration(&show_duration(duration(text).unwrap())),
                duration(text),
                "{text}"
            );
        }
        assert_eq!(show_duration(Span::from_ms(1500)), "1500ms");
        assert_eq!(show_size(16 << 20), "16MiB");
        assert_eq!(show_size(1025), "1025B");
    }
}
