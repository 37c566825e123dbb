//! The governed options of the JS runtime.

use coco_kv::{MapName, Tx};
use coco_script::Limits;
use serde::{Deserialize, Serialize};

use crate::tables::{RUNTIME_OPTIONS, SINGLE};

/// What `set_js_runtime_options` sets. What is absent has its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeOptions {
    /// Bytes of JS heap that a request may use.
    pub max_heap_bytes: u64,
    /// Bytes of stack that a request may use.
    pub max_stack_bytes: u64,
    /// Milliseconds that a request may run.
    pub max_execution_time_ms: u64,
    /// Whether exceptions go to the node's log, with their stack.
    pub log_exception_details: bool,
    /// Whether exceptions go to the client, with their stack.
    pub return_exception_details: bool,
    /// How many interpreters are kept for reuse.
    pub max_cached_interpreters: usize,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            max_heap_bytes: limits.heap_bytes,
            max_stack_bytes: limits.stack_bytes,
            max_execution_time_ms: limits.execution_ms,
            log_exception_details: true,
            return_exception_details: false,
            max_cached_interpreters: 10,
        }
    }
}

impl RuntimeOptions {
    /// The options in force. Ones that cannot be read count as absent: an application must not stop
    /// because of them.
    pub fn load(tx: &mut Tx) -> Self {
        Self::load_from(tx, &MapName::new(RUNTIME_OPTIONS))
    }

    pub(crate) fn load_from(tx: &mut Tx, map: &MapName) -> Self {
        let Some(stored) = tx.get(map, &SINGLE) else { return Self::default() };
        serde_json::from_slice(&stored).unwrap_or_else(|error| {
            tracing::error!(%error, "the JS runtime options cannot be read: defaults apply");
            Self::default()
        })
    }

    /// The limits of a request.
    pub fn limits(&self) -> Limits {
        Limits {
            heap_bytes: self.max_heap_bytes,
            stack_bytes: self.max_stack_bytes,
            execution_ms: self.max_execution_time_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use coco_kv::{Store, View};

    use super::*;

    #[test]
    fn absent_fields_have_their_defaults() {
        let map = MapName::new(RUNTIME_OPTIONS);
        let mut tx = Store::new(View(2)).begin();
        assert_eq!(RuntimeOptions::load(&mut tx), RuntimeOptions::default());
        tx.put(&map, SINGLE, br#"{"max_heap_bytes": 5}"#.to_vec());
        let expected = RuntimeOptions { max_heap_bytes: 5, ..RuntimeOptions::default() };
        assert_eq!(RuntimeOptions::load(&mut tx), expected);
        tx.put(&map, SINGLE, b"nonsense".to_vec());
        assert_eq!(RuntimeOptions::load(&mut tx), RuntimeOptions::default());
    }
}
