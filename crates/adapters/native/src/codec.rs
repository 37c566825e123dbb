//! How typed keys and values become bytes.

use std::marker::PhantomData;

use bytes::Bytes;
use coco_kv::{SmallBytes, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A way to write items as bytes and to read them back. Implemented by names such as [`Text`] or
/// [`Json`], which then stand for it in [`TypedMap`](crate::TypedMap)`<Text, Json<Account>>`.
pub trait Codec {
    /// What is read back.
    type Owned;
    /// What is written.
    type Ref: ?Sized;

    /// The bytes of an item.
    fn encode<const INLINE: usize>(item: &Self::Ref) -> Result<SmallBytes<INLINE>, CodecError>;

    /// The item of some bytes.
    fn decode(bytes: Value) -> Result<Self::Owned, CodecError>;
}

/// An item cannot be written, or bytes are not those of an item.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// An integer has another width.
    #[error("{found} bytes are no integer of {expected} bytes")]
    Length {
        /// The integer's width in bytes.
        expected: usize,
        /// The bytes there are.
        found: usize,
    },
    /// The bytes are not UTF-8.
    #[error("the bytes are not UTF-8")]
    Utf8(#[from] std::string::FromUtf8Error),
    /// The bytes are not JSON of this type, or the item has no JSON form.
    #[error("not JSON of the expected type")]
    Json(#[from] serde_json::Error),
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl Codec for Raw {
    type Owned = Bytes;
    type Ref = [u8];

    fn encode<const INLINE: usize>(item: &[u8]) -> Result<SmallBytes<INLINE>, CodecError> {
        Ok(item.into())
    }

    fn decode(bytes: Value) -> Result<Bytes, CodecError> {
        Ok(Bytes::from_owner(bytes))
    }
}

/// UTF-8 text.
#[derive(Clone, Copy, Debug)]
pub struct Text;

impl Codec for Text {
    type Owned = String;
    type Ref = str;

    fn encode<const INLINE: usize>(item: &str) -> Result<SmallBytes<INLINE>, CodecError> {
        Ok(item.into())
    }

    fn decode(bytes: Value) -> Result<String, CodecError> {
        Ok(String::from_utf8(bytes.to_vec())?)
    }
}

/// JSON, by serde. As a codec it stands for `T`; as the input or reply of a handler it wraps one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned> Codec for Json<T> {
    type Owned = T;
    type Ref = T;

    fn encode<const INLINE: usize>(item: &T) -> Result<SmallBytes<INLINE>, CodecError> {
        Ok(serde_json::to_vec(item)?.into())
    }

    fn decode(bytes: Value) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// An integer in the byte order of the JS library `@microsoft/ccf-app`, to share a map with an
/// application written in JS. As keys, such integers are not iterated in the order of numbers.
#[derive(Clone, Copy, Debug)]
pub struct LittleEndian<T>(PhantomData<T>);

fn exactly<const LEN: usize>(bytes: &[u8]) -> Result<[u8; LEN], CodecError> {
    bytes.try_into().map_err(|_| CodecError::Length { expected: LEN, found: bytes.len() })
}

/// Integers stand for themselves: big-endian with the sign flipped, so that the order of the bytes
/// is the order of the numbers.
macro_rules! integers {
    ($($integer:ty, $sign:expr);+ $(;)?) => { $(
        impl Codec for $integer {
            type Owned = $integer;
            type Ref = $integer;

            fn encode<const INLINE: usize>(
                item: &$integer,
            ) -> Result<SmallBytes<INLINE>, CodecError> {
                Ok((*item ^ $sign).to_be_bytes().into())
            }

            fn decode(bytes: Value) -> Result<$integer, CodecError> {
                Ok(<$integer>::from_be_bytes(exactly(&bytes)?) ^ $sign)
            }
        }

        impl Codec for LittleEndian<$integer> {
            type Owned = $integer;
            type Ref = $integer;

            fn encode<const INLINE: usize>(
                item: &$integer,
            ) -> Result<SmallBytes<INLINE>, CodecError> {
                Ok(item.to_le_bytes().into())
            }

            fn decode(bytes: Value) -> Result<$integer, CodecError> {
                Ok(<$integer>::from_le_bytes(exactly(&bytes)?))
            }
        }
    )+ };
}

integers! {
    u8, 0; u16, 0; u32, 0; u64, 0; u128, 0;
    i8, i8::MIN; i16, i16::MIN; i32, i32::MIN; i64, i64::MIN; i128, i128::MIN;
}

#[cfg(test)]
mod tests {
    use coco_kv::Key;
    use proptest::prelude::*;

    use super::*;

    fn there_and_back<C: Codec>(item: &C::Ref) -> C::Owned {
        C::decode(C::encode(item).unwrap()).unwrap()
    }

    #[test]
    fn bytes_of_another_type_are_refused() {
        let three = || Value::from("abc");
        let length = u64::decode(three());
        assert!(matches!(length, Err(CodecError::Length { expected: 8, found: 3 })));
        assert!(matches!(Json::<u64>::decode(three()), Err(CodecError::Json(_))));
        assert!(matches!(Text::decode(Value::from(&[0xff])), Err(CodecError::Utf8(_))));
    }

    proptest! {
        #[test]
        fn items_read_back(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            text in ".{0,40}",
            number: i64,
            list: Vec<(u16, Option<String>)>,
        ) {
            prop_assert_eq!(&there_and_back::<Raw>(&bytes), &bytes);
            prop_assert_eq!(&there_and_back::<Text>(&text), &text);
            prop_assert_eq!(there_and_back::<i64>(&number), number);
            prop_assert_eq!(there_and_back::<LittleEndian<i64>>(&number), number);
            prop_assert_eq!(there_and_back::<Json<Vec<(u16, Option<String>)>>>(&list), list);
        }

        #[test]
        fn the_order_of_the_bytes_is_the_order_of_the_numbers(
            a: i32, b: i32, c: u64, d: u64,
        ) {
            let (key_a, key_b): (Key, Key) =
                (i32::encode(&a).unwrap(), i32::encode(&b).unwrap());
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            let (key_c, key_d): (Key, Key) =
                (u64::encode(&c).unwrap(), u64::encode(&d).unwrap());
            prop_assert_eq!(key_c.cmp(&key_d), c.cmp(&d));
        }
    }
}
