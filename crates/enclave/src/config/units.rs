//! Sizes and durations as the configuration writes them: `"5MB"`, `"100ms"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written with `B`, `KB`, `MB`, `GB` or `TB` (powers of 1024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A duration, written with `us`, `ms`, `s`, `min` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

/// The text is not a number with a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a whole number followed by one of {units}")]
pub struct UnitSyntax {
    text: String,
    units: &'static str,
}

const SIZES: [(&str, u64); 5] =
    [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10), ("B", 1)];

/// In microseconds; `min`, `ms` and `us` stand before the suffix `s`.
const TIMES: [(&str, u64); 5] =
    [("min", 60_000_000), ("ms", 1_000), ("us", 1), ("h", 3_600_000_000), ("s", 1_000_000)];

fn parse(text: &str, units: &[(&str, u64)], names: &'static str) -> Result<u64, UnitSyntax> {
    let number = |(suffix, factor): &(&str, u64)| {
        let digits = text.strip_suffix(suffix)?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u64>().ok()?.checked_mul(*factor)).flatten()
    };
    let refused = || UnitSyntax { text: text.to_owned(), units: names };
    units.iter().find_map(number).ok_or_else(refused)
}

fn write(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)]) -> fmt::Result {
    let mut fitting: Vec<_> =
        units.iter().filter(|(_, factor)| number != 0 && number.is_multiple_of(*factor)).collect();
    fitting.sort_by_key(|(_, factor)| *factor);
    // Nothing is written in the last unit: `0B`, `0s`.
    let Some((suffix, factor)) = fitting.last().copied().or(units.last()) else { return Ok(()) };
    write!(f, "{}{suffix}", number / factor)
}

impl FromStr for Size {
    type Err = UnitSyntax;

    fn from_str(text: &str) -> Result<Self, UnitSyntax> {
        parse(text, &SIZES, "B, KB, MB, GB, TB").map(Self)
    }
}

impl FromStr for Time {
    type Err = UnitSyntax;

    fn from_str(text: &str) -> Result<Self, UnitSyntax> {
        parse(text, &TIMES, "us, ms, s, min, h").map(|micros| Self(Duration::from_micros(micros)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("0B") } else { write(f, self.0, &SIZES) }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX), &TIMES)
    }
}

macro_rules! as_text {
    ($($name:ident),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

as_text!(Size, Time);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_those_of_ccf() {
        let size = |text: &str| text.parse::<Size>().unwrap().0;
        assert_eq!([size("7B"), size("5MB"), size("1TB")], [7, 5 << 20, 1 << 40]);
        let time = |text: &str| text.parse::<Time>().unwrap().0;
        assert_eq!(time("100ms"), Duration::from_millis(100));
        assert_eq!(time("30min"), Duration::from_secs(1800));
        assert_eq!([time("2h"), time("0s")], [Duration::from_secs(7200), Duration::ZERO]);
    }

    #[test]
    fn nothing_reads_back() {
        assert_eq!(Size(0).to_string().parse(), Ok(Size(0)));
        assert_eq!(Time(Duration::ZERO).to_string().parse(), Ok(Time(Duration::ZERO)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "5", "MB", "5 MB", "-1s", "1.5s", "5mb", "99999999999999TB", "+1s"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(number in 0u64..1 << 50) {
            prop_assert_eq!(Size(number).to_string().parse(), Ok(Size(number)));
            let time = Time(Duration::from_micros(number));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
