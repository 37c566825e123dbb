//! How keys and values become bytes (CCF's conventions).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coco_crypto::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::EIGHT_ZEROS;

/// The key of a row.
pub trait TableKey: Sized {
    /// Its bytes on the ledger.
    fn to_bytes(&self) -> Vec<u8>;
    /// Reads it back; otherwise the reason why not.
    fn from_bytes(bytes: &[u8]) -> Result<Self, String>;
}

/// The value of a row.
pub trait TableValue: Sized {
    /// Its bytes on the ledger.
    fn to_bytes(&self) -> Vec<u8>;
    /// Reads it back; otherwise the reason why not.
    fn from_bytes(bytes: &[u8]) -> Result<Self, String>;
}

/// Ids of members, participants, nodes and proposals are 64 lower-case hex digits.
impl TableKey for Digest {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        text(bytes)?.parse().map_err(|error: coco_crypto::DigestSyntax| error.to_string())
    }
}

/// Names are their own bytes.
impl TableKey for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        text(bytes).map(str::to_owned)
    }
}

/// Bytes kept as they are.
impl TableValue for Vec<u8> {
    fn to_bytes(&self) -> Vec<u8> {
        self.clone()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        Ok(bytes.to_vec())
    }
}

/// PEM text, kept as it is. Ledgers older than CCF 2.0 end it with a NUL, which is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pem(pub String);

impl TableValue for Pem {
    fn to_bytes(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        Ok(Self(text(bytes)?.trim_end_matches('\0').to_owned()))
    }
}

/// Text, kept as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl TableValue for Text {
    fn to_bytes(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        text(bytes).map(|text| Self(text.to_owned()))
    }
}

/// The value of a row that only says that its key is in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present;

impl TableValue for Present {
    fn to_bytes(&self) -> Vec<u8> {
        EIGHT_ZEROS.to_vec()
    }

    fn from_bytes(_bytes: &[u8]) -> Result<Self, String> {
        Ok(Self)
    }
}

/// Bytes inside JSON: standard base64 with padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Compact JSON with the keys of every object sorted bytewise, as CCF writes it.
pub fn canonical_json<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Governed values are strings, numbers, lists and string-keyed maps: always representable.
    let value = serde_json::to_value(value).unwrap_or_default();
    serde_json::to_vec(&Sorted(&value)).unwrap_or_default()
}

/// Sorts explicitly, so that no dependency's `preserve_order` feature can change ledger bytes.
struct Sorted<'a>(&'a Json);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Json::Object(object) => {
                let sorted: BTreeMap<_, _> =
                    object.iter().map(|(key, value)| (key, Sorted(value))).collect();
                serializer.collect_map(sorted)
            }
            Json::Array(items) => serializer.collect_seq(items.iter().map(Sorted)),
            plain => plain.serialize(serializer),
        }
    }
}

pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// Stores types as canonical JSON.
macro_rules! json_values {
    ($($type:ty),+ $(,)?) => {$(
        impl $crate::tables::TableValue for $type {
            fn to_bytes(&self) -> Vec<u8> {
                $crate::tables::canonical_json(self)
            }

            fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
                $crate::tables::codec::from_json(bytes)
            }
        }
    )+};
}
pub(super) use json_values;

json_values!(String, bool, Json, Base64);

/// Whether a field is at its default, and so left out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let value = json!({"b": [{"z": 1, "a": 2}], "a": {"y": "é", "x": null}});
        let text = r#"{"a":{"x":null,"y":"é"},"b":[{"a":2,"z":1}]}"#;
        assert_eq!(canonical_json(&value), text.as_bytes());
    }

    #[test]
    fn an_old_certificate_loses_its_nul() {
        assert_eq!(Pem::from_bytes(b"x\n\0"), Ok(Pem("x\n".to_owned())));
        assert!(Pem::from_bytes(&[0xff]).is_err());
    }

    proptest! {
        #[test]
        fn base64_reads_back(bytes: Vec<u8>) {
            let value = Base64(bytes);
            prop_assert_eq!(Base64::from_bytes(&value.to_bytes()), Ok(value));
        }

        #[test]
        fn ids_read_back(raw: [u8; 32]) {
            let id = Digest(raw);
            prop_assert_eq!(<Digest as TableKey>::from_bytes(&TableKey::to_bytes(&id)), Ok(id));
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
            let _ = Base64::from_bytes(&bytes);
            let _ = Pem::from_bytes(&bytes);
            let _ = <Digest as TableKey>::from_bytes(&bytes);
        }
    }
}
