//! What the operator asks of the process.

use tokio::signal::unix::{self, SignalKind};

use crate::HostError;

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT: control-C.
    Interrupt,
    /// SIGHUP: the terminal is gone.
    Hangup,
}

/// The signals a node answers to; while this exists they no longer end the process by themselves.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP. Must be called on a tokio runtime.
    pub fn install() -> Result<Self, HostError> {
        let listen = |kind| {
            unix::signal(kind)
                .map_err(|source| HostError::System { what: "a signal handler", source })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.hangup.recv() => Signal::Hangup,
        }
    }
}
