//! Names and times in certificates.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use time::OffsetDateTime;

use super::CertificateError;
use crate::der;

const MAX_NAME_LEN_BYTES: usize = 1024;
const MAX_DNS_LEN_BYTES: usize = 253;

/// Why a text is not a usable name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `TYPE=value` with a known type, separated by commas.
    #[error("not a distinguished name at {at:?}: expected CN=, O=, OU=, C=, ST= or L= and a value")]
    Distinguished {
        /// The part at fault.
        at: String,
    },
    /// Not `iPAddress:` or `dNSName:` with a valid value.
    #[error("not an alternative name: {text:?}, expected iPAddress:<address> or dNSName:<name>")]
    Alternative {
        /// The text.
        text: String,
    },
    /// Longer than is accepted.
    #[error("a name of {len_bytes} bytes is too long")]
    TooLong {
        /// Its length.
        len_bytes: usize,
    },
}

/// A subject to be written into a certificate, e.g. `CN=CCF Service,O=Contoso`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistinguishedName(Vec<(&'static [u8], String)>);

/// Attribute types of X.520 with their object identifiers below 2.5.4.
const ATTRIBUTES: [(&str, &[u8]); 6] = [
    ("CN", b"\x55\x04\x03"),
    ("C", b"\x55\x04\x06"),
    ("L", b"\x55\x04\x07"),
    ("ST", b"\x55\x04\x08"),
    ("O", b"\x55\x04\x0a"),
    ("OU", b"\x55\x04\x0b"),
];

impl DistinguishedName {
    /// The name with just this common name.
    pub fn common_name(name: &str) -> Self {
        Self(vec![(b"\x55\x04\x03", name.to_owned())])
    }

    pub(super) fn der(&self) -> Vec<u8> {
        let sets: Vec<Vec<u8>> = self
            .0
            .iter()
            .map(|(oid, value)| {
                let value = der::element(der::UTF8_STRING, &[value.as_bytes()]);
                let attribute =
                    der::sequence(&[&der::element(der::OBJECT_IDENTIFIER, &[oid]), &value]);
                der::element(der::SET, &[&attribute])
            })
            .collect();
        der::sequence(&sets.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }
}

impl FromStr for DistinguishedName {
    type Err = NameError;

    /// Reads `CN=name,O=other`; a comma or backslash in a value is written after a backslash.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME_LEN_BYTES {
            return Err(NameError::TooLong { len_bytes: text.len() });
        }
        let mut parts = vec![String::new()];
        let mut chars = text.chars();
        while let Some(next) = chars.next() {
            match (next, parts.last_mut()) {
                (',', _) => parts.push(String::new()),
                ('\\', Some(part)) => part.extend(chars.next()),
                (_, Some(part)) => part.push(next),
                (_, None) => {}
            }
        }
        let attribute = |part: String| {
            let (name, value) = part.trim_start().split_once('=')?;
            let (_, oid) = ATTRIBUTES.iter().find(|(known, _)| *known == name)?;
            (!value.is_empty()).then(|| (*oid, value.to_owned()))
        };
        parts
            .into_iter()
            .map(|part| attribute(part.clone()).ok_or(NameError::Distinguished { at: part }))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A name under which a node is reached, as in CCF's `subject_alt_names`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AlternativeName {
    /// `dNSName:example.com`
    Dns(String),
    /// `iPAddress:127.0.0.1`
    Ip(IpAddr),
}

impl AlternativeName {
    /// A host as it stands in an address: an IP address or else a DNS name.
    pub fn of_host(host: &str) -> Result<Self, NameError> {
        match host.parse() {
            Ok(address) => Ok(Self::Ip(address)),
            Err(_) => Self::dns(host).ok_or(NameError::Alternative { text: host.to_owned() }),
        }
    }

    pub(super) fn dns(name: &str) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
        let usable = !name.is_empty() && name.len() <= MAX_DNS_LEN_BYTES && name.bytes().all(good);
        usable.then(|| Self::Dns(name.to_owned()))
    }

    pub(super) fn ip(octets: &[u8]) -> Option<Self> {
        let v4 = <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
        v4.or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)).map(Self::Ip)
    }

    pub(super) fn der(&self) -> Vec<u8> {
        match self {
            Self::Dns(name) => der::element(0x82, &[name.as_bytes()]),
            Self::Ip(IpAddr::V4(address)) => der::element(0x87, &[&address.octets()]),
            Self::Ip(IpAddr::V6(address)) => der::element(0x87, &[&address.octets()]),
        }
    }
}

impl fmt::Display for AlternativeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dNSName:{name}"),
            Self::Ip(address) => write!(f, "iPAddress:{address}"),
        }
    }
}

impl FromStr for AlternativeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let read = || match text.split_once(':')? {
            ("iPAddress", address) => address.parse().ok().map(Self::Ip),
            ("dNSName", name) => Self::dns(name),
            _ => None,
        };
        read().ok_or_else(|| NameError::Alternative { text: text.to_owned() })
    }
}

/// When a certificate is valid: Unix seconds, both ends inclusive, whole years 1950 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before_unix_s: i64,
    /// The last second.
    pub not_after_unix_s: i64,
}

impl Validity {
    /// So many days from a start, less one second, as CCF has it.
    pub fn days(not_before_unix_s: i64, days: u32) -> Self {
        let seconds = i64::from(days) * 86_400 - 1;
        Self { not_before_unix_s, not_after_unix_s: not_before_unix_s.saturating_add(seconds) }
    }

    /// As long, from another start.
    pub fn moved_to(self, not_before_unix_s: i64) -> Self {
        let seconds = self.not_after_unix_s.saturating_sub(self.not_before_unix_s);
        Self { not_before_unix_s, not_after_unix_s: not_before_unix_s.saturating_add(seconds) }
    }

    /// Whether this second lies within.
    pub fn contains(&self, unix_s: i64) -> bool {
        (self.not_before_unix_s..=self.not_after_unix_s).contains(&unix_s)
    }

    pub(super) fn der(&self) -> Result<Vec<u8>, CertificateError> {
        let Self { not_before_unix_s, not_after_unix_s } = *self;
        let refused = CertificateError::Validity { not_before_unix_s, not_after_unix_s };
        if not_before_unix_s > not_after_unix_s {
            return Err(refused);
        }
        match (time(not_before_unix_s), time(not_after_unix_s)) {
            (Some(from), Some(to)) => Ok(der::sequence(&[&from, &to])),
            _ => Err(refused),
        }
    }
}

/// UTCTime until 2049, GeneralizedTime from 2050 (RFC 5280 section 4.1.2.5).
fn time(unix_s: i64) -> Option<Vec<u8>> {
    let at = OffsetDateTime::from_unix_timestamp(unix_s).ok()?;
    let rest = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    match at.year() {
        year @ 1950..=2049 => {
            let text = format!("{:02}{rest}", year % 100);
            Some(der::element(der::UTC_TIME, &[text.as_bytes()]))
        }
        year @ 2050..=9999 => {
            let text = format!("{year}{rest}");
            Some(der::element(der::GENERALIZED_TIME, &[text.as_bytes()]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn distinguished_names() {
        let name: DistinguishedName = "CN=CCF Service, O=A\\, B".parse().unwrap();
        assert_eq!(
            name.0,
            [
                (&b"\x55\x04\x03"[..], "CCF Service".to_owned()),
                (b"\x55\x04\x0a", "A, B".to_owned())
            ]
        );
        for bad in ["", "CN", "CN=", "X=1", "CN=a,", "CN=a,,O=b", "cn=a"] {
            assert!(
                matches!(bad.parse::<DistinguishedName>(), Err(NameError::Distinguished { .. })),
                "{bad}"
            );
        }
        let long = format!("CN={}", "a".repeat(1022));
        assert_eq!(long.parse::<DistinguishedName>(), Err(NameError::TooLong { len_bytes: 1025 }));
    }

    #[test]
    fn alternative_names() {
        for good in ["iPAddress:127.0.0.1", "iPAddress:::1", "dNSName:a.example", "dNSName:*.b"] {
            assert_eq!(good.parse::<AlternativeName>().unwrap().to_string(), good);
        }
        for bad in ["", "dNSName:", "dNSName:a b", "iPAddress:1.2.3", "URI:x", "127.0.0.1"] {
            assert!(bad.parse::<AlternativeName>().is_err(), "{bad}");
        }
        let long = "a".repeat(254);
        assert!(AlternativeName::of_host(&long).is_err());
        assert_eq!(AlternativeName::of_host("::1").unwrap().to_string(), "iPAddress:::1");
        assert_eq!(AlternativeName::of_host("localhost").unwrap().to_string(), "dNSName:localhost");
    }

    #[test]
    fn validity_has_bounds() {
        assert_eq!(
            Validity::days(0, 1),
            Validity { not_before_unix_s: 0, not_after_unix_s: 86_399 }
        );
        for (from, to) in
            [(1, 0), (i64::MIN, 0), (0, i64::MAX), (-631_152_001, 0), (0, 253_402_300_800)]
        {
            let validity = Validity { not_before_unix_s: from, not_after_unix_s: to };
            assert!(validity.der().is_err(), "{validity:?}");
        }
        assert!(Validity::days(i64::MAX, 1).der().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC*") {
            let _ = text.parse::<DistinguishedName>();
            let _ = text.parse::<AlternativeName>();
        }
    }
}
