//! TCP listeners, one per interface.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use coco_enclave::host::Accepted;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::HostError;
use crate::descriptors::Descriptors;

/// Connections the kernel holds for us before we accept them.
const BACKLOG: i32 = 1024;

/// How long to wait when the process has no file descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// An interface to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name in the configuration.
    pub name: String,
    /// `host:port`; port 0 asks for any free one.
    pub bind_address: String,
}

/// All listeners of a node.
pub(crate) struct Listeners {
    by_name: HashMap<String, (TcpListener, SocketAddr)>,
    descriptors: Descriptors,
    closed: watch::Sender<bool>,
}

impl Listeners {
    pub(crate) fn bind(
        interfaces: &[Interface],
        descriptors: Descriptors,
    ) -> Result<Self, HostError> {
        let mut by_name = HashMap::new();
        for interface in interfaces {
            let bound = bind(&interface.bind_address).map_err(|source| HostError::Listen {
                interface: interface.name.clone(),
                address: interface.bind_address.clone(),
                source,
            })?;
            if by_name.insert(interface.name.clone(), bound).is_some() {
                return Err(HostError::DuplicateInterface(interface.name.clone()));
            }
        }
        Ok(Self { by_name, descriptors, closed: watch::Sender::new(false) })
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.by_name.iter().map(|(name, (_, address))| (name.as_str(), *address))
    }

    /// From now on nothing is accepted.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// The next connection; waits for ever on an interface that is unknown or closed.
    pub(crate) async fn accept(&self, interface: &str) -> io::Result<Accepted> {
        let Some((listener, _)) = self.by_name.get(interface) else { return pending().await };
        let mut state = self.closed.subscribe();
        let closed = async { drop(state.wait_for(|closed| *closed).await) };
        tokio::select! {
            biased;
            () = closed => pending().await,
            accepted = self.accept_from(interface, listener) => accepted,
        }
    }

    /// Accepts, sitting out what is no fault of the listener: a peer that left already, or a process
    /// that has no file descriptor left. Who would take one of the last is let go.
    async fn accept_from(&self, interface: &str, listener: &TcpListener) -> io::Result<Accepted> {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if !self.descriptors.suffice_for(interface, &stream) => {}
                Ok((stream, peer)) => {
                    if stream.set_nodelay(true).is_err() {
                        continue; // reset before we looked at it
                    }
                    return Ok(Accepted { stream: Box::new(stream), peer: peer.to_string() });
                }
                Err(error) if left_already(&error) => {}
                Err(error) if exhausted(&error) => {
                    tracing::warn!(%error, "Cannot accept a connection now, trying again");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn left_already(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM on Linux.
fn exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

/// Binds the first of the addresses a name stands for that can be bound.
fn bind(address: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let nothing = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    let mut last = Err(nothing);
    for address in address.to_socket_addrs()? {
        last = bind_to(address);
        if last.is_ok() {
            break;
        }
    }
    last
}

fn bind_to(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    fn interface(name: &str, bind_address: &str) -> Interface {
        Interface { name: name.to_owned(), bind_address: bind_address.to_owned() }
    }

    fn bind(interfaces: &[Interface]) -> Result<Listeners, HostError> {
        Listeners::bind(interfaces, Descriptors::of(100_000))
    }

    #[tokio::test]
    async fn who_would_take_one_of_the_last_descriptors_is_let_go() {
        let none = Descriptors::of(0);
        let listeners = Listeners::bind(&[interface("app", "127.0.0.1:0")], none).unwrap();
        let (_, address) = listeners.addresses().next().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        tokio::select! {
            _ = listeners.accept("app") => panic!("accepted"),
            ended = client.read(&mut byte) => assert_eq!(ended.unwrap(), 0),
        }
    }

    #[tokio::test]
    async fn bytes_pass_both_ways() {
        let listeners = bind(&[interface("app", "127.0.0.1:0")]).unwrap();
        let (_, address) = listeners.addresses().next().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut accepted = listeners.accept("app").await.unwrap();
        assert_eq!(accepted.peer, client.local_addr().unwrap().to_string());
        client.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        accepted.stream.read_exact(&mut bytes).await.unwrap();
        accepted.stream.write_all(b"pong").await.unwrap();
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"pong");
    }

    #[tokio::test]
    async fn faults_name_the_interface() {
        let first = bind(&[interface("first", "127.0.0.1:0")]).unwrap();
        let (_, taken) = first.addresses().next().unwrap();
        for address in [taken.to_string().as_str(), "127.0.0.1", "no.such.host.invalid:1"] {
            let refused = bind(&[interface("second", address)]);
            assert!(
                matches!(refused, Err(HostError::Listen { interface, .. }) if interface == "second")
            );
        }
        let twice = [interface("app", "127.0.0.1:0"), interface("app", "127.0.0.1:0")];
        assert!(matches!(bind(&twice), Err(HostError::DuplicateInterface(_))));
    }

    #[tokio::test]
    async fn a_closed_interface_accepts_nothing() {
        let listeners = bind(&[interface("app", "127.0.0.1:0")]).unwrap();
        let (_, address) = listeners.addresses().next().unwrap();
        listeners.close();
        let _client = TcpStream::connect(address).await.unwrap();
        for name in ["app", "unknown"] {
            let waited =
                tokio::time::timeout(Duration::from_millis(20), listeners.accept(name)).await;
            assert!(waited.is_err(), "{name}");
        }
    }
}
