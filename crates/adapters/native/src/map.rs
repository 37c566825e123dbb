//! Maps with typed keys and values.

use std::marker::PhantomData;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::OnceLock;

use coco_adapter::ErrorResponse;
use coco_kv::{Key, MapName, Seqno, Tx, Value};

use crate::{Codec, CodecError};

/// A map of the store whose keys are of codec `K` and whose values are of codec `V`. It is only a
/// name, fit for a `static`; the entries are reached through a transaction.
#[derive(Debug)]
pub struct TypedMap<K, V> {
    text: &'static str,
    // Made of the text at first use: a name is shared, and nothing is shared at compile time.
    name: OnceLock<MapName>,
    types: PhantomData<fn() -> (K, V)>,
}

/// An entry of a map is not what the application takes it for, or cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("map {map:?}: {reason}")]
pub struct MapError {
    /// The map.
    pub map: MapName,
    /// What is wrong with the entry.
    #[source]
    pub reason: CodecError,
}

impl From<MapError> for ErrorResponse {
    fn from(error: MapError) -> Self {
        // What the entry holds is nobody's business, hence not the whole chain of sources.
        Self::internal(format!("An entry of {error}."))
    }
}

impl<K: Codec, V: Codec> TypedMap<K, V> {
    /// The map of this name. A map whose name starts with `public:` is plaintext on the ledger.
    pub const fn new(name: &'static str) -> Self {
        Self { text: name, name: OnceLock::new(), types: PhantomData }
    }

    /// The map of a name that is known only when the application runs.
    pub fn named(name: MapName) -> Self {
        Self { text: "", name: OnceLock::from(name), types: PhantomData }
    }

    /// The map's name.
    pub fn name(&self) -> &MapName {
        self.name.get_or_init(|| MapName::new(self.text))
    }

    /// The value of a key.
    pub fn get(&self, tx: &mut Tx, key: &K::Ref) -> Result<Option<V::Owned>, MapError> {
        let value = tx.get(self.name(), &self.key(key)?);
        value.map(|value| self.checked(V::decode(value))).transpose()
    }

    /// Whether a key is present.
    pub fn has(&self, tx: &mut Tx, key: &K::Ref) -> Result<bool, MapError> {
        Ok(tx.has(self.name(), &self.key(key)?))
    }

    /// The position of the last transaction before this one that put the key.
    pub fn version_of_previous_write(
        &self,
        tx: &mut Tx,
        key: &K::Ref,
    ) -> Result<Option<Seqno>, MapError> {
        Ok(tx.version_of_previous_write(self.name(), &self.key(key)?))
    }

    /// Puts a value.
    pub fn put(&self, tx: &mut Tx, key: &K::Ref, value: &V::Ref) -> Result<(), MapError> {
        let value: Value = self.checked(V::encode(value))?;
        tx.put(self.name(), self.key(key)?, value);
        Ok(())
    }

    /// Removes a key, present or not.
    pub fn remove(&self, tx: &mut Tx, key: &K::Ref) -> Result<(), MapError> {
        tx.remove(self.name(), self.key(key)?);
        Ok(())
    }

    /// Removes every key.
    pub fn clear(&self, tx: &mut Tx) {
        tx.clear(self.name());
    }

    /// The number of entries.
    pub fn len(&self, tx: &mut Tx) -> usize {
        tx.len(self.name())
    }

    /// Whether there is no entry.
    pub fn is_empty(&self, tx: &mut Tx) -> bool {
        self.len(tx) == 0
    }

    /// Calls `visit` for every entry in the order of the keys' bytes, until it breaks.
    pub fn for_each(
        &self,
        tx: &mut Tx,
        visit: impl FnMut(K::Owned, V::Owned) -> ControlFlow<()>,
    ) -> Result<(), MapError> {
        self.visit(tx, (Bound::Unbounded, Bound::Unbounded), visit)
    }

    /// Calls `visit` for the entries between `from`, inclusive, and `to`, exclusive, in the order
    /// of the keys' bytes, until it breaks.
    pub fn between(
        &self,
        tx: &mut Tx,
        from: &K::Ref,
        to: &K::Ref,
        visit: impl FnMut(K::Owned, V::Owned) -> ControlFlow<()>,
    ) -> Result<(), MapError> {
        let (from, to) = (self.key(from)?, self.key(to)?);
        self.visit(tx, (Bound::Included(&*from), Bound::Excluded(&*to)), visit)
    }

    fn visit(
        &self,
        tx: &mut Tx,
        bounds: impl RangeBounds<[u8]>,
        mut visit: impl FnMut(K::Owned, V::Owned) -> ControlFlow<()>,
    ) -> Result<(), MapError> {
        let mut failed = None;
        tx.range(self.name(), bounds, |key, value| {
            let entry = K::decode(key.into()).and_then(|key| Ok((key, V::decode(value.clone())?)));
            match entry {
                Ok((key, value)) => visit(key, value),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        self.checked(failed.map_or(Ok(()), Err))
    }

    fn key(&self, key: &K::Ref) -> Result<Key, MapError> {
        self.checked(K::encode(key))
    }

    fn checked<T>(&self, result: Result<T, CodecError>) -> Result<T, MapError> {
        result.map_err(|reason| MapError { map: self.name().clone(), reason })
    }
}

/// A single value of codec `V`, kept as CCF keeps one: under a key of eight zero bytes.
#[derive(Debug)]
pub struct TypedValue<V>(TypedMap<u64, V>);

impl<V: Codec> TypedValue<V> {
    const KEY: u64 = 0;

    /// The value in the map of this name.
    pub const fn new(name: &'static str) -> Self {
        Self(TypedMap::new(name))
    }

    /// The value, if there is one.
    pub fn get(&self, tx: &mut Tx) -> Result<Option<V::Owned>, MapError> {
        self.0.get(tx, &Self::KEY)
    }

    /// Puts the value.
    pub fn put(&self, tx: &mut Tx, value: &V::Ref) -> Result<(), MapError> {
        self.0.put(tx, &Self::KEY, value)
    }

    /// Removes the value, present or not.
    pub fn remove(&self, tx: &mut Tx) -> Result<(), MapError> {
        self.0.remove(tx, &Self::KEY)
    }
}

/// A set of keys of codec `K`, kept as CCF keeps one: each key holds eight zero bytes.
#[derive(Debug)]
pub struct TypedSet<K>(TypedMap<K, u64>);

impl<K: Codec> TypedSet<K> {
    /// The set in the map of this name.
    pub const fn new(name: &'static str) -> Self {
        Self(TypedMap::new(name))
    }

    /// Whether a key is in the set.
    pub fn has(&self, tx: &mut Tx, key: &K::Ref) -> Result<bool, MapError> {
        self.0.has(tx, key)
    }

    /// Adds a key.
    pub fn insert(&self, tx: &mut Tx, key: &K::Ref) -> Result<(), MapError> {
        self.0.put(tx, key, &0)
    }

    /// Removes a key, present or not.
    pub fn remove(&self, tx: &mut Tx, key: &K::Ref) -> Result<(), MapError> {
        self.0.remove(tx, key)
    }

    /// The number of keys.
    pub fn len(&self, tx: &mut Tx) -> usize {
        self.0.len(tx)
    }

    /// Whether there is no key.
    pub fn is_empty(&self, tx: &mut Tx) -> bool {
        self.0.is_empty(tx)
    }

    /// Calls `visit` for every key in the order of their bytes, until it breaks.
    pub fn for_each(
        &self,
        tx: &mut Tx,
        mut visit: impl FnMut(K::Owned) -> ControlFlow<()>,
    ) -> Result<(), MapError> {
        self.0.for_each(tx, |key, _| visit(key))
    }
}

#[cfg(test)]
mod tests {
    use coco_kv::{Store, View};

    use super::*;
    use crate::{Json, Raw, Text};

    #[test]
    fn entries_come_in_the_order_of_their_keys() {
        let (store, temperatures) = (Store::new(View(2)), TypedMap::<i16, Text>::new("t"));
        let mut tx = store.begin();
        for (key, value) in [(30, "hot"), (-5, "frost"), (0, "ice"), (-40, "arctic")] {
            temperatures.put(&mut tx, &key, value).unwrap();
        }
        let mut all = Vec::new();
        let result = temperatures.for_each(&mut tx, |key, value| {
            all.push((key, value));
            if key < 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(result.is_ok());
        assert_eq!(all, [(-40, "arctic".into()), (-5, "frost".into()), (0, "ice".into())]);
        let mut some = Vec::new();
        let result = temperatures.between(&mut tx, &-5, &30, |key, _| {
            some.push(key);
            ControlFlow::Continue(())
        });
        assert!(result.is_ok());
        assert_eq!(some, [-5, 0]);
        assert_eq!(temperatures.len(&mut tx), 4);
        temperatures.clear(&mut tx);
        assert!(temperatures.is_empty(&mut tx));
    }

    #[test]
    fn an_entry_of_another_type_is_an_error_that_names_the_map_and_not_the_entry() {
        let store = Store::new(View(2));
        let mut tx = store.begin();
        TypedMap::<Text, Raw>::new("m").put(&mut tx, "key", br#"{"secret":1}"#).unwrap();
        let numbers = TypedMap::<Text, Json<u32>>::new("m");
        let visited = numbers.for_each(&mut tx, |_, _| panic!("nothing to visit"));
        for error in [numbers.get(&mut tx, "key").unwrap_err(), visited.unwrap_err()] {
            let refusal = ErrorResponse::from(error);
            assert_eq!(refusal.status, 500);
            assert_eq!(refusal.message, "An entry of map \"m\": not JSON of the expected type.");
        }
    }

    #[test]
    fn a_value_and_a_set_are_kept_as_ccf_keeps_them() {
        let store = Store::new(View(2));
        let mut tx = store.begin();
        let (limit, names) = (TypedValue::<Json<u8>>::new("v"), TypedSet::<Text>::new("s"));
        assert_eq!(limit.get(&mut tx).unwrap(), None);
        limit.put(&mut tx, &7).unwrap();
        names.insert(&mut tx, "ada").unwrap();
        assert_eq!(limit.get(&mut tx).unwrap(), Some(7));
        assert!(names.has(&mut tx, "ada").unwrap() && names.len(&mut tx) == 1);
        let (value, zeros) = (tx.get(&MapName::new("v"), &[0; 8]), [0; 8]);
        assert_eq!(value.as_deref(), Some(b"7".as_slice()));
        assert_eq!(tx.get(&MapName::new("s"), b"ada").as_deref(), Some(zeros.as_slice()));
        limit.remove(&mut tx).unwrap();
        names.remove(&mut tx, "ada").unwrap();
        assert!(limit.get(&mut tx).unwrap().is_none() && names.is_empty(&mut tx));
    }
}
