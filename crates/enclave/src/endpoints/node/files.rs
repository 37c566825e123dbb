//! Download of snapshots and ledger chunks, and asking for a snapshot, on interfaces where an
//! operator opened it. What is served is on the untrusted disk anyway: encrypted, and verified by
//! whoever fetches it.

mod digests;
mod range;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::str::FromStr;

use coco_adapter::{ErrorCode, ErrorResponse, Mode, Request, Response, RouteSyntax};
use coco_crypto::{Digest, HashAlgorithm};
use coco_governance::tables::{NODES, NodeStatus};
use coco_kv::{Seqno, Tx};
use coco_ledger::{ChunkName, SnapshotName};
use http::{HeaderValue, Method, StatusCode, header};

use self::digests::{Known, notation, wanted_repr_digest};
use self::range::requested_range;
use super::{Endpoints, location, not_found, redirect, status, unreadable};
use crate::dispatch::wrong_verb;
use crate::host::{Area, FileEntry};
use crate::interface::{Interface, OperatorFeature};
use crate::node::Node;
use crate::session::Reply;
use crate::snapshots;

/// A larger file is sent only in ranges: a reply is held in memory.
const MAX_REPLY_BYTES: u64 = 256 << 20;
/// Bytes asked of the host at once.
const READ_BYTES: u64 = 4 << 20;

/// The path that asks for a snapshot.
const CREATE: &str = "/snapshot:create";

pub(super) fn add(to: &mut Endpoints) -> Result<(), RouteSyntax> {
    let summary = "Have a snapshot written at the next signature";
    to.add(Method::POST, CREATE, Mode::ReadWrite, summary, |_, call| {
        call.outcome.force_snapshot |= snapshots::ask(call.tx).force_snapshot;
        Ok(status(StatusCode::OK))
    })
}

/// Whether an operator has not opened this `/node` path on an interface, where it is as good as
/// unknown.
pub(crate) fn is_closed(path: &str, interface: &Interface) -> bool {
    path == CREATE && !interface.offers(OperatorFeature::SnapshotCreate)
}

/// Which files a path is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    Snapshots,
    Chunks,
}

impl Files {
    /// The kind of a `/node` path, with the rest of the path, on an interface that serves it.
    pub(crate) fn of<'a>(path: &'a str, interface: &Interface) -> Option<(Self, &'a str)> {
        let (files, feature, rest) = if let Some(rest) = path.strip_prefix("/snapshot") {
            (Self::Snapshots, OperatorFeature::SnapshotRead, rest)
        } else {
            let rest = path.strip_prefix("/ledger_chunk")?;
            (Self::Chunks, OperatorFeature::LedgerChunkRead, rest)
        };
        let ours = rest.is_empty() || rest.starts_with('/');
        (ours && interface.offers(feature)).then_some((files, rest))
    }

    /// Answers a request for the newest file, or for one by name.
    pub(crate) fn answer(
        self,
        node: &Node,
        interface: &Interface,
        request: Request,
        rest: &str,
    ) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Reply::Now(wrong_verb(&request, &[Method::GET, Method::HEAD]));
        }
        let name = rest.strip_prefix('/').map(str::to_owned);
        let (node, interface) = (node.clone(), interface.name.clone());
        Reply::Later(Box::pin(async move {
            let answer = match name {
                Some(name) => self.download(&node, &request, &name).await,
                None => self.locate(&node, &interface, &request).await,
            };
            answer.unwrap_or_else(|error| error.to_response())
        }))
    }

    fn area(self) -> Area {
        match self {
            Self::Snapshots => Area::Snapshots,
            Self::Chunks => Area::Ledger,
        }
    }

    fn name_header(self) -> &'static str {
        match self {
            Self::Snapshots => "x-ms-ccf-snapshot-name",
            Self::Chunks => "x-ms-ccf-ledger-chunk-name",
        }
    }

    /// What a committed file covers; `None` for every other file.
    fn covers(self, name: &str) -> Option<Range<u64>> {
        match self {
            Self::Snapshots => {
                let snapshot = parse::<SnapshotName>(name)?;
                snapshot.is_committed.then(|| at(snapshot.seqno))
            }
            Self::Chunks => {
                let chunk = parse::<ChunkName>(name)?;
                let end = chunk.end().filter(|_| chunk.is_committed())?;
                Some(chunk.start.0..end.0.saturating_add(1))
            }
        }
    }

    /// Redirects to the newest snapshot of `since` or later, or to the chunk that holds `since`, which
    /// may be on another node.
    async fn locate(
        self,
        node: &Node,
        interface: &str,
        request: &Request,
    ) -> Result<Response, ErrorResponse> {
        let since = self.since(request)?;
        let files = self.list(node).await?;
        let covered = files.iter().filter_map(|file| Some((self.covers(&file.name)?, &file.name)));
        let (path, found) = match self {
            Self::Snapshots => {
                let newer = covered.filter(|(range, _)| range.start >= since);
                ("snapshot", newer.max_by_key(|(range, _)| range.start))
            }
            Self::Chunks => {
                let holding = covered.clone().find(|(range, _)| range.contains(&since));
                let first = covered.map(|(range, _)| range.start).min();
                if holding.is_none()
                    && let Some(location) = elsewhere(node, interface, request, since, first)?
                {
                    return Ok(redirect(StatusCode::PERMANENT_REDIRECT, location));
                }
                ("ledger_chunk", holding)
            }
        };
        let Some((_, name)) = found else {
            return Err(not_found(format!("There is no file since {since}.")));
        };
        let mut response = status(StatusCode::PERMANENT_REDIRECT);
        set(&mut response, header::LOCATION.as_str(), format!("/node/{path}/{name}"));
        Ok(response)
    }

    async fn download(
        self,
        node: &Node,
        request: &Request,
        name: &str,
    ) -> Result<Response, ErrorResponse> {
        let unknown = || not_found(format!("There is no file {name}."));
        self.covers(name).ok_or_else(unknown)?;
        let files = self.list(node).await?;
        let file = files.iter().find(|file| file.name == name).ok_or_else(unknown)?;
        let total = file.len_bytes;
        let range = requested_range(request, total)?;
        let wanted = range.clone().unwrap_or(0..total);
        let known = Known::of(request)?;
        let is_head = request.method() == Method::HEAD;
        let len = wanted.end - wanted.start;
        if !is_head && len > MAX_REPLY_BYTES {
            let message = format!("At most {MAX_REPLY_BYTES} bytes are sent at once: use a range.");
            return Err(ErrorResponse::bad_request(ErrorCode::InvalidHeaderValue, message));
        }
        let mut response = Response::default();
        set(&mut response, header::ACCEPT_RANGES.as_str(), "bytes");
        set(&mut response, self.name_header(), name);
        if let Some(algorithm) = wanted_repr_digest(request) {
            let mut hasher = algorithm.begin();
            self.read(node, name, &(0..total), |piece| hasher.update(piece)).await?;
            set(&mut response, "repr-digest", notation(algorithm, &hasher.finish()));
        }

        // The tag is of what is sent, which may be a part.
        let mut body = Vec::new();
        let mut tag = HashAlgorithm::Sha256.begin();
        let mut other_tags: Vec<_> =
            known.algorithms().map(|other| (other, other.begin())).collect();
        let take = |piece: &[u8]| {
            tag.update(piece);
            other_tags.iter_mut().for_each(|(_, tag)| tag.update(piece));
            if !is_head {
                body.extend_from_slice(piece);
            }
        };
        self.read(node, name, &wanted, take).await?;
        let tag = notation(HashAlgorithm::Sha256, &tag.finish());
        set(&mut response, header::ETAG.as_str(), format!("\"{tag}\""));
        let mut tags = other_tags.into_iter().map(|(other, tag)| notation(other, &tag.finish()));
        if known.contains(&tag) || tags.any(|tag| known.contains(&tag)) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }

        if let Some(Range { start, end }) = range {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let last = end.saturating_sub(1);
            let content = format!("bytes {start}-{last}/{total}");
            set(&mut response, header::CONTENT_RANGE.as_str(), content);
        }
        if is_head {
            set(&mut response, header::CONTENT_LENGTH.as_str(), len);
        }
        set(&mut response, header::CONTENT_TYPE.as_str(), "application/octet-stream");
        *response.body_mut() = body.into();
        Ok(response)
    }

    /// From where on; a chunk is only ever asked for by a position.
    fn since(self, request: &Request) -> Result<u64, ErrorResponse> {
        let refused =
            |message| ErrorResponse::bad_request(ErrorCode::InvalidQueryParameterValue, message);
        let query = request.uri().query().unwrap_or_default();
        match query.split('&').find_map(|pair| pair.strip_prefix("since=")) {
            Some(text) => {
                text.parse().map_err(|_| refused("Query parameter 'since' is not a position."))
            }
            None if self == Self::Snapshots => Ok(0),
            None => Err(refused("Missing required query parameter 'since'.")),
        }
    }

    async fn list(self, node: &Node) -> Result<Vec<FileEntry>, ErrorResponse> {
        node.host().disk().list(self.area()).await.map_err(|error| unavailable(&error))
    }

    /// Shows a part of a file piece by piece.
    async fn read(
        self,
        node: &Node,
        name: &str,
        range: &Range<u64>,
        mut show: impl FnMut(&[u8]),
    ) -> Result<(), ErrorResponse> {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(READ_BYTES);
            let piece = node.host().disk().read(self.area(), name, at, len).await;
            let piece = piece.map_err(|error| unavailable(&error))?;
            if piece.len() as u64 != len {
                return Err(not_found(format!("{name} has changed meanwhile.")));
            }
            show(&piece);
            at += len;
        }
        Ok(())
    }
}

/// Where a chunk may be that is not here, as in CCF: what is newer is with the primary, what is older
/// than the `first` position here with the node whose id is next.
fn elsewhere(
    node: &Node,
    interface: &str,
    request: &Request,
    since: u64,
    first: Option<u64>,
) -> Result<Option<HeaderValue>, ErrorResponse> {
    let mut tx = node.pipeline().store().begin();
    let is_newer = since > node.pipeline().last_committed().seqno.0;
    let is_older = first.is_some_and(|first| since < first);
    let holder = match (is_newer, is_older) {
        (true, _) => node.primary().filter(|id| *id != node.id()),
        (false, true) => next_by_id(&mut tx, node.id())?,
        (false, false) => None,
    };
    location(&mut tx, holder, Some(interface), request)
}

/// The trusted node whose id follows this one's; after the last comes the first.
fn next_by_id(tx: &mut Tx, id: Digest) -> Result<Option<Digest>, ErrorResponse> {
    let rows = NODES.rows(tx).map_err(unreadable)?.into_iter();
    let trusted = rows.filter(|(_, info)| info.status == NodeStatus::Trusted).map(|(id, _)| id);
    let others: BTreeSet<Digest> = trusted.filter(|other| *other != id).collect();
    Ok(others.range(id..).next().or_else(|| others.first()).copied())
}

fn parse<T: FromStr>(name: &str) -> Option<T> {
    name.parse().ok()
}

fn at(seqno: Seqno) -> Range<u64> {
    seqno.0..seqno.0 + 1
}

fn set(response: &mut Response, name: &str, value: impl Display) {
    let name = http::HeaderName::try_from(name);
    if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value.to_string())) {
        response.headers_mut().insert(name, value);
    }
}

fn unavailable(error: &io::Error) -> ErrorResponse {
    tracing::error!(%error, "a file cannot be served");
    ErrorResponse::internal("The file cannot be read.")
}
