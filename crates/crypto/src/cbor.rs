//! The CBOR (RFC 8949) of COSE messages: one value type, a bounded parser and an encoder that keeps
//! the order of map entries.

use minicbor::data::{Int, Tag, Type};
use minicbor::{Decoder, Encoder};

/// How deep arrays, maps and tags may nest.
pub const CBOR_MAX_DEPTH: usize = 16;
/// How many values one message may hold in total.
pub const CBOR_MAX_VALUES: usize = 65_536;

/// A CBOR value. Floats and indefinite lengths are not in it: no message of CCF uses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An integer in `-2^64 .. 2^64`; one beyond is written as the nearest of these.
    Int(i128),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A text string.
    Text(String),
    /// An array.
    Array(Vec<Value>),
    /// A map, in the order of its encoding; keys are integers, texts or byte strings.
    Map(Vec<(Value, Value)>),
    /// A tagged value.
    Tag(u64, Box<Value>),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// Why bytes are not the CBOR that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// Cut short, or not CBOR at all.
    #[error("malformed or truncated CBOR at byte {at}")]
    Malformed {
        /// Offset of the value at fault.
        at: usize,
    },
    /// An indefinite length, a float, an undefined or another simple value.
    #[error("CBOR of an unsupported type at byte {at}")]
    Unsupported {
        /// Offset of the value.
        at: usize,
    },
    /// A map with the same key twice.
    #[error("duplicate key in the CBOR map at byte {at}")]
    DuplicateKey {
        /// Offset of the map.
        at: usize,
    },
    /// Nested deeper than [`CBOR_MAX_DEPTH`].
    #[error("CBOR nests deeper than {CBOR_MAX_DEPTH}")]
    TooDeep,
    /// More values than [`CBOR_MAX_VALUES`].
    #[error("more than {CBOR_MAX_VALUES} CBOR values")]
    TooMany,
    /// Bytes after the value.
    #[error("{len_bytes} bytes after the CBOR value")]
    Trailing {
        /// How many.
        len_bytes: usize,
    },
}

impl Value {
    /// Reads exactly one value.
    pub fn parse(bytes: &[u8]) -> Result<Self, CborError> {
        let mut parser = Parser::new(bytes);
        let value = parser.value(0)?;
        parser.finish()?;
        Ok(value)
    }

    /// The shortest encoding, map entries in their order here.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_to(&mut out);
        out
    }

    pub(crate) fn encode_to(&self, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail; integers beyond 64 bits saturate.
        let mut encoder = Encoder::new(&mut *out);
        let _ = match self {
            Self::Int(number) => encoder.int(saturate(*number)).map(|_| ()),
            Self::Bytes(bytes) => encoder.bytes(bytes).map(|_| ()),
            Self::Text(text) => encoder.str(text).map(|_| ()),
            Self::Bool(truth) => encoder.bool(*truth).map(|_| ()),
            Self::Null => encoder.null().map(|_| ()),
            Self::Array(items) => {
                let _ = encoder.array(items.len() as u64);
                items.iter().for_each(|item| item.encode_to(out));
                Ok(())
            }
            Self::Map(entries) => {
                let _ = encoder.map(entries.len() as u64);
                for (key, value) in entries {
                    key.encode_to(out);
                    value.encode_to(out);
                }
                Ok(())
            }
            Self::Tag(tag, value) => {
                let _ = encoder.tag(Tag::new(*tag));
                value.encode_to(out);
                Ok(())
            }
        };
    }

    /// The integer, if it is one that fits.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The integer, if it is one that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(number) => i64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The byte string, if it is one.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The items, if it is an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The value of a key, if this is a map that has it.
    pub fn entry(&self, key: impl Into<Self>) -> Option<&Self> {
        let key = key.into();
        match self {
            Self::Map(entries) => entries.iter().find(|entry| entry.0 == key).map(|entry| &entry.1),
            _ => None,
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(number.into())
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Int(number.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

fn saturate(number: i128) -> Int {
    let bounded = number.clamp(-(1 << 64), (1 << 64) - 1);
    Int::try_from(bounded).unwrap_or_else(|_| Int::from(0_u8))
}

pub(crate) struct Parser<'a> {
    decoder: Decoder<'a>,
    values_left: usize,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(bytes), values_left: CBOR_MAX_VALUES }
    }

    /// The next value; `depth` containers are open around it.
    pub(crate) fn value(&mut self, depth: usize) -> Result<Value, CborError> {
        if depth > CBOR_MAX_DEPTH {
            return Err(CborError::TooDeep);
        }
        self.values_left = self.values_left.checked_sub(1).ok_or(CborError::TooMany)?;
        let at = self.decoder.position();
        let malformed = CborError::Malformed { at };
        let decoder = &mut self.decoder;
        match decoder.datatype().map_err(|_| malformed)? {
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
                decoder.u64().map(Value::from).map_err(|_| malformed)
            }
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
                decoder.int().map(|int| Value::Int(int.into())).map_err(|_| malformed)
            }
            Type::Bytes => decoder.bytes().map(Value::from).map_err(|_| malformed),
            Type::String => decoder.str().map(Value::from).map_err(|_| malformed),
            Type::Bool => decoder.bool().map(Value::Bool).map_err(|_| malformed),
            Type::Null => decoder.null().map(|()| Value::Null).map_err(|_| malformed),
            Type::Tag => {
                let tag = decoder.tag().map_err(|_| malformed)?;
                Ok(Value::Tag(tag.as_u64(), Box::new(self.value(depth + 1)?)))
            }
            Type::Array => {
                let count = decoder.array().ok().flatten().ok_or(malformed)?;
                // No capacity is reserved: the count is the sender's claim.
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(self.value(depth + 1)?);
                }
                Ok(Value::Array(items))
            }
            Type::Map => self.map(depth).map(Value::Map),
            _ => Err(CborError::Unsupported { at }),
        }
    }

    /// The entries of the next value, which must be a map.
    pub(crate) fn map(&mut self, depth: usize) -> Result<Vec<(Value, Value)>, CborError> {
        let at = self.decoder.position();
        let count = self.decoder.map().ok().flatten().ok_or(CborError::Malformed { at })?;
        let mut entries = Vec::new();
        let mut keys = std::collections::HashSet::new();
        for _ in 0..count {
            let key_at = self.decoder.position();
            let key = self.value(depth + 1)?;
            if !matches!(key, Value::Int(_) | Value::Text(_) | Value::Bytes(_)) {
                return Err(CborError::Unsupported { at: key_at });
            }
            // The canonical encoding, so that two spellings of one number are one key.
            if !keys.insert(key.encode()) {
                return Err(CborError::DuplicateKey { at });
            }
            entries.push((key, self.value(depth + 1)?));
        }
        Ok(entries)
    }

    /// Nothing may follow.
    pub(crate) fn finish(&self) -> Result<(), CborError> {
        match self.decoder.input().len() - self.decoder.position() {
            0 => Ok(()),
            len_bytes => Err(CborError::Trailing { len_bytes }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (-(1_i128 << 64)..1 << 64).prop_map(Value::Int),
            any::<Vec<u8>>().prop_map(Value::Bytes),
            any::<String>().prop_map(Value::Text),
            any::<bool>().prop_map(Value::Bool),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            let key = prop_oneof![
                any::<i64>().prop_map(Value::from),
                "[a-z]{0,6}".prop_map(Value::Text),
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                (any::<u64>(), inner.clone()).prop_map(|(tag, v)| Value::Tag(tag, Box::new(v))),
                prop::collection::vec((key, inner), 0..6).prop_map(|mut entries| {
                    let mut seen = std::collections::HashSet::new();
                    entries.retain(|entry| seen.insert(entry.0.encode()));
                    Value::Map(entries)
                }),
            ]
        })
    }

    #[test]
    fn faults_are_named() {
        let deep = [vec![0x81; CBOR_MAX_DEPTH + 1], vec![0]].concat();
        let many = [vec![0x9a, 0, 1, 0, 0], vec![0; 65_536]].concat();
        let cases: &[(&[u8], CborError)] = &[
            (&[], CborError::Malformed { at: 0 }),
            (&[0x18], CborError::Malformed { at: 0 }),
            (&[0x1c], CborError::Unsupported { at: 0 }),
            (&[0x42, 1], CborError::Malformed { at: 0 }),
            (&[0x62, 0xff, 0xff], CborError::Malformed { at: 0 }),
            (&[0x5b, 255, 255, 255, 255, 255, 255, 255, 255], CborError::Malformed { at: 0 }),
            (&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255], CborError::Malformed { at: 9 }),
            (&[0x82, 0], CborError::Malformed { at: 2 }),
            (&[0x9f, 0xff], CborError::Unsupported { at: 0 }),
            (&[0xbf, 0xff], CborError::Unsupported { at: 0 }),
            (&[0x5f, 0xff], CborError::Unsupported { at: 0 }),
            (&[0xff], CborError::Unsupported { at: 0 }),
            (&[0xfb, 0, 0, 0, 0, 0, 0, 0, 0], CborError::Unsupported { at: 0 }),
            (&[0xf7], CborError::Unsupported { at: 0 }),
            (&[0xa1, 0x80, 0], CborError::Unsupported { at: 1 }),
            (&[0xa2, 1, 0, 1, 0], CborError::DuplicateKey { at: 0 }),
            (&[0xa2, 1, 0, 0x18, 1, 0], CborError::DuplicateKey { at: 0 }),
            (&[0, 0], CborError::Trailing { len_bytes: 1 }),
            (&deep, CborError::TooDeep),
            (&many, CborError::TooMany),
        ];
        for (bytes, error) in cases {
            let shown = bytes.get(..12).unwrap_or(bytes);
            assert_eq!(Value::parse(bytes), Err(*error), "{shown:02x?}");
        }
    }

    #[test]
    fn integers_at_the_edges() {
        for (bytes, number) in [
            ("1bffffffffffffffff", (1 << 64) - 1),
            ("3bffffffffffffffff", -(1 << 64)),
            ("20", -1),
            ("17", 23),
            ("1818", 24),
        ] {
            let bytes = hex::decode(bytes).unwrap();
            assert_eq!(Value::parse(&bytes), Ok(Value::Int(number)));
            assert_eq!(Value::Int(number).encode(), bytes);
        }
    }

    proptest! {
        #[test]
        fn values_come_back(value in any_value()) {
            prop_assert_eq!(Value::parse(&value.encode()), Ok(value));
        }

        #[test]
        fn truncated_values_are_refused(value in any_value(), cut in any::<prop::sample::Index>()) {
            let bytes = value.encode();
            prop_assert!(Value::parse(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            if let Ok(value) = Value::parse(&bytes) {
                prop_assert_eq!(Value::parse(&value.encode()), Ok(value));
            }
        }
    }
}
