//! Download of snapshots and ledger chunks, on interfaces where an operator opened it. What is
//! served is on the untrusted disk anyway: encrypted, and verified by whoever fetches it.

use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::str::FromStr;

use bytes::Bytes;
use coco_adapter::{ErrorCode, ErrorResponse, Request, Response};
use coco_kv::Seqno;
use coco_ledger::{ChunkName, SnapshotName};
use http::{HeaderValue, Method, StatusCode, header};

use super::{not_found, status};
use crate::dispatch::wrong_verb;
use crate::host::{Area, FileEntry};
use crate::interface::{Interface, OperatorFeature};
use crate::node::Node;
use crate::session::Reply;

/// A larger file is sent only in ranges: a reply is held in memory.
const MAX_REPLY_BYTES: u64 = 256 << 20;

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
    pub(crate) fn answer(self, node: &Node, request: Request, rest: &str) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Reply::Now(wrong_verb(&request, &[Method::GET, Method::HEAD]));
        }
        let name = rest.strip_prefix('/').map(str::to_owned);
        let node = node.clone();
        Reply::Later(Box::pin(async move {
            let answer = match name {
                Some(name) => self.download(&node, &request, &name).await,
                None => self.locate(&node, &request).await,
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

    /// Redirects to the newest snapshot of `since` or later, or to the chunk that holds `since`.
    async fn locate(self, node: &Node, request: &Request) -> Result<Response, ErrorResponse> {
        let since = since(request)?;
        let files = self.list(node).await?;
        let covered = files.iter().filter_map(|file| Some((self.covers(&file.name)?, &file.name)));
        let found = match self {
            Self::Snapshots => covered
                .filter(|(range, _)| range.start >= since)
                .max_by_key(|(range, _)| range.start),
            Self::Chunks => {
                covered.filter(|(range, _)| range.end > since).min_by_key(|(range, _)| range.start)
            }
        };
        let Some((_, name)) = found else {
            return Err(not_found(format!("There is no file since {since}.")));
        };
        let mut response = status(StatusCode::PERMANENT_REDIRECT);
        let path = match self {
            Self::Snapshots => "snapshot",
            Self::Chunks => "ledger_chunk",
        };
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
        let mut response = if request.method() == Method::HEAD {
            Response::default()
        } else {
            Response::new(self.read(node, name, &wanted).await?)
        };
        if let Some(Range { start, end }) = range {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let last = end.saturating_sub(1);
            let content = format!("bytes {start}-{last}/{total}");
            set(&mut response, header::CONTENT_RANGE.as_str(), content);
        }
        if request.method() == Method::HEAD {
            let len = wanted.end - wanted.start;
            set(&mut response, header::CONTENT_LENGTH.as_str(), len);
        }
        set(&mut response, header::CONTENT_TYPE.as_str(), "application/octet-stream");
        set(&mut response, header::ACCEPT_RANGES.as_str(), "bytes");
        set(&mut response, self.name_header(), name);
        Ok(response)
    }

    async fn list(self, node: &Node) -> Result<Vec<FileEntry>, ErrorResponse> {
        node.host().disk().list(self.area()).await.map_err(|error| unavailable(&error))
    }

    async fn read(
        self,
        node: &Node,
        name: &str,
        range: &Range<u64>,
    ) -> Result<Bytes, ErrorResponse> {
        let len = range.end - range.start;
        if len > MAX_REPLY_BYTES {
            let message = format!("At most {MAX_REPLY_BYTES} bytes are sent at once: use a range.");
            return Err(ErrorResponse::bad_request(ErrorCode::InvalidHeaderValue, message));
        }
        let bytes = node.host().disk().read(self.area(), name, range.start, len).await;
        let bytes = bytes.map_err(|error| unavailable(&error))?;
        if bytes.len() as u64 != len {
            return Err(not_found(format!("{name} has changed meanwhile.")));
        }
        Ok(bytes.into())
    }
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

fn since(request: &Request) -> Result<u64, ErrorResponse> {
    let query = request.uri().query().unwrap_or_default();
    let Some(text) = query.split('&').find_map(|pair| pair.strip_prefix("since=")) else {
        return Ok(0);
    };
    text.parse().map_err(|_| {
        let message = "Query parameter 'since' is not a position.";
        ErrorResponse::bad_request(ErrorCode::InvalidQueryParameterValue, message)
    })
}

/// The one range that is asked for (RFC 9110 section 14.1.2), cut to the file.
fn requested_range(request: &Request, total: u64) -> Result<Option<Range<u64>>, ErrorResponse> {
    let Some(value) = request.headers().get(header::RANGE) else { return Ok(None) };
    let range = value.to_str().ok().and_then(|text| parse_range(text, total));
    match range {
        Some(range) if range.start < range.end => Ok(Some(range)),
        _ => {
            let message = format!("The range does not fit a file of {total} bytes.");
            Err(ErrorResponse::bad_request(ErrorCode::InvalidHeaderValue, message))
        }
    }
}

fn parse_range(text: &str, total: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let suffix: u64 = last.parse().ok()?;
        return Some(total.saturating_sub(suffix)..total);
    }
    let first: u64 = first.parse().ok()?;
    if last.is_empty() {
        return Some(first..total);
    }
    let last: u64 = last.parse().ok()?;
    Some(first..last.saturating_add(1).min(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_inclusive_and_cut_to_the_file() {
        for (text, expected) in [
            ("bytes=0-0", Some(0..1)),
            ("bytes=5-9", Some(5..10)),
            ("bytes=5-", Some(5..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=-30", Some(0..10)),
            ("bytes=8-99", Some(8..10)),
            ("bytes=8-18446744073709551615", Some(8..10)),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=1-2,4-5", None),
            ("items=1-2", None),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
        let request = |range: &str| {
            let mut request = Request::default();
            request.headers_mut().insert(header::RANGE, HeaderValue::from_str(range).unwrap());
            request
        };
        assert!(requested_range(&request("bytes=10-"), 10).is_err());
        assert!(requested_range(&request("bytes=4-3"), 10).is_err());
        assert!(requested_range(&request("bytes=1-2"), 10).is_ok_and(|range| range == Some(1..3)));
    }
}
