//! What runs on the node.

use std::sync::Arc;

use coco_adapter::Endpoints;
use coco_apps::JsApps;
use coco_script::ScriptEngine;

/// The application of the nodes that this program starts.
pub(crate) enum Application {
    /// JavaScript, loaded by proposal.
    Scripts,
    /// Compiled in.
    Native(Arc<dyn Endpoints>),
}

impl Application {
    /// The adapter for a node.
    pub(crate) fn adapter(&self) -> Arc<dyn Endpoints> {
        match self {
            Self::Scripts => Arc::new(JsApps::new(Arc::new(ScriptEngine::new()))),
            Self::Native(adapter) => adapter.clone(),
        }
    }
}
