//! Why a script did not do its work.

use rquickjs::{Ctx, Value};

/// Why a script did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// It threw.
    #[error("{0}")]
    Thrown(Thrown),
    /// It ran for longer than it may.
    #[error("execution took longer than {limit_ms} ms")]
    Timeout {
        /// The limit, milliseconds.
        limit_ms: u64,
    },
    /// It used more heap than it may.
    #[error("out of memory: the heap is limited to {limit_bytes} bytes")]
    OutOfMemory {
        /// The limit, bytes.
        limit_bytes: u64,
    },
    /// It awaits something that nobody will ever do.
    #[error("the promise returned by {function} will never settle: nothing is left to run")]
    NeverSettles {
        /// The function that returned the promise.
        function: String,
    },
    /// The module has no such export, or it is no function.
    #[error("module {module} does not export a function named {function}")]
    NoSuchFunction {
        /// Module name.
        module: String,
        /// What was looked for.
        function: String,
    },
    /// A function returned something else than it must.
    #[error("{function} must return {expected}")]
    BadReturn {
        /// The function.
        function: String,
        /// What it must return.
        expected: &'static str,
    },
    /// A handler returned something that is no response.
    #[error("Invalid endpoint function return value ({what}).")]
    InvalidReply {
        /// What is wrong with it.
        what: &'static str,
        /// The exception behind it.
        thrown: Option<Thrown>,
    },
    /// A function of a constitution takes another number of arguments.
    #[error("{function} must have {expected} parameters, not {found}")]
    BadParameters {
        /// The function.
        function: String,
        /// How many it must have.
        expected: i32,
        /// How many it has.
        found: i32,
    },
    /// The engine itself could not be set up.
    #[error("script engine: {0}")]
    Engine(String),
}

impl ScriptError {
    /// The stack trace, if the script threw.
    pub fn trace(&self) -> Option<&str> {
        match self {
            Self::Thrown(thrown) | Self::InvalidReply { thrown: Some(thrown), .. } => {
                Some(&thrown.stack)
            }
            _ => None,
        }
    }
}

/// What a script threw.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Thrown {
    /// `name: message` of an `Error`, or the text of any other value.
    pub message: String,
    /// Where the error was made.
    pub position: Option<Position>,
    /// One line per frame, innermost first; empty when something else than an `Error` was thrown.
    pub stack: String,
}

/// A place in a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Module name.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
}

impl Thrown {
    /// Describes a thrown value.
    pub(crate) fn of(value: &Value<'_>) -> Self {
        let Some(exception) = value.as_exception() else {
            return Self { message: text_of(value), ..Self::default() };
        };
        let object = exception.as_object();
        let name = object.get::<_, String>("name").unwrap_or_else(|_| {
            forget_exception(value.ctx());
            "Error".to_owned()
        });
        let message = exception.message().unwrap_or_default();
        forget_exception(value.ctx());
        let stack = exception.stack().unwrap_or_default().trim_end().to_owned();
        forget_exception(value.ctx());
        let message = if message.is_empty() { name } else { format!("{name}: {message}") };
        Self { message, position: first_position(&stack), stack }
    }
}

/// A thrown value that is no `Error`, as text.
fn text_of(value: &Value<'_>) -> String {
    let text = match value.as_string() {
        Some(text) => text.to_string().ok(),
        None => value
            .ctx()
            .json_stringify(value.clone())
            .ok()
            .flatten()
            .and_then(|text| text.to_string().ok()),
    };
    text.unwrap_or_else(|| {
        forget_exception(value.ctx());
        format!("a value of type {}", value.type_name())
    })
}

/// The innermost frame that names a module: `at function (/file.js:3:7)`.
fn first_position(stack: &str) -> Option<Position> {
    stack.lines().find_map(|line| {
        let place = line.trim().strip_prefix("at ")?;
        let place = place.rsplit_once('(').map_or(place, |(_, place)| place.trim_end_matches(')'));
        let (rest, last) = place.rsplit_once(':')?;
        let last = last.parse().ok()?;
        match rest.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse().ok()?))) {
            Some((file, line)) => Some(Position { file: file.to_owned(), line }),
            None => Some(Position { file: rest.to_owned(), line: last }),
        }
    })
}

/// A look at a hostile value may throw; that is nobody's concern.
fn forget_exception(ctx: &Ctx<'_>) {
    drop(ctx.catch());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_from_stacks() {
        let position = |stack| first_position(stack).map(|p| (p.file, p.line));
        let found = Some(("/src/a.js".to_owned(), 3));
        assert_eq!(position("    at f (/src/a.js:3:7)\n    at g (/b.js:1:1)"), found);
        assert_eq!(position("    at parse (native)\n    at /src/a.js:3:7"), found);
        assert_eq!(position("    at f (/src/a.js:3)"), found);
        assert_eq!(position(""), None);
        assert_eq!(position("at at at ((:::"), None);
    }
}
