//! What is asked of the host's disk in one step: durable changes, whole files, files set aside.

use std::io;

use tokio::sync::oneshot;

use crate::host::{Area, DiskOp, FileEntry, Host};

/// Carries out operations and waits until they survive a power cut.
pub(crate) async fn submit(host: &dyn Host, area: Area, operations: Vec<DiskOp>) -> io::Result<()> {
    let (done, written) = oneshot::channel();
    let report = Box::new(move |result| {
        let _ = done.send(result);
    });
    host.disk().submit(area, operations, true, report);
    written.await.unwrap_or_else(|_| Err(io::Error::other("the disk gave no answer")))
}

/// A whole file; `None` if it is longer than `max_bytes`.
pub(crate) async fn read_file(
    host: &dyn Host,
    area: Area,
    name: &str,
    max_bytes: u64,
) -> io::Result<Option<Vec<u8>>> {
    let bytes = host.disk().read(area, name, 0, max_bytes.saturating_add(1)).await?;
    Ok((bytes.len() as u64 <= max_bytes).then_some(bytes))
}

/// What renames a file so that it is never read again, and never lost: `NAME.ignored`.
pub(crate) fn set_aside(name: &str, files: &[FileEntry]) -> DiskOp {
    let is_taken = |name: &str| files.iter().any(|file| file.name == name);
    let numbers =
        std::iter::once(String::new()).chain((2..).map(|number: u64| format!(".{number}")));
    let mut names = numbers.map(|number| format!("{name}{number}.ignored"));
    let to = names.find(|to| !is_taken(to)).unwrap_or_default();
    DiskOp::Rename { from: name.to_owned(), to }
}
