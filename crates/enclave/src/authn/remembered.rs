//! What is kept between requests, bounded.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use coco_adapter::Caller;
use coco_kv::Value;
use parking_lot::Mutex;

/// The callers that a session's certificate stands for, with the rows they were read from. A
/// request reads the rows again; while they are the same, so is the caller.
#[derive(Default)]
pub struct Remembered {
    pub(super) user: Option<KnownCaller>,
    pub(super) member: Option<KnownCaller>,
}

pub(super) struct KnownCaller {
    pub(super) certificate: Value,
    pub(super) info: Option<Value>,
    pub(super) caller: Arc<Caller>,
}

impl KnownCaller {
    pub(super) fn still(&self, certificate: &Value, info: Option<&Value>) -> bool {
        self.certificate == *certificate && self.info.as_ref() == info
    }
}

/// A map that forgets what has not been used for a while: when the younger generation is full, the
/// older one is dropped and the younger becomes the older.
pub(super) struct TwoGenerations<K, V> {
    generations: Mutex<(HashMap<K, V>, HashMap<K, V>)>,
    generation_len: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> TwoGenerations<K, V> {
    /// Holds up to `capacity` entries.
    pub(super) fn new(capacity: usize) -> Self {
        Self { generations: Mutex::default(), generation_len: capacity / 2 }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut generations = self.generations.lock();
        if let Some(value) = generations.0.get(key) {
            return Some(value.clone());
        }
        let (key, value) = generations.1.remove_entry(key)?;
        self.add(&mut generations, key, value.clone());
        Some(value)
    }

    pub(super) fn insert(&self, key: K, value: V) {
        self.add(&mut self.generations.lock(), key, value);
    }

    fn add(&self, generations: &mut (HashMap<K, V>, HashMap<K, V>), key: K, value: V) {
        if generations.0.len() >= self.generation_len {
            generations.1 = std::mem::take(&mut generations.0);
        }
        generations.0.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let map = TwoGenerations::new(8);
        for key in 0..100 {
            map.insert(key, key * 2);
            assert_eq!(map.get(&0), Some(0), "after {key}");
        }
        assert_eq!(map.get(&99), Some(198));
        assert_eq!(map.get(&50), None);
        let generations = map.generations.lock();
        assert!(generations.0.len() + generations.1.len() <= 8);
    }
}
