//! The part of a file that a client asks for.

use std::ops::Range;

use coco_adapter::{ErrorCode, ErrorResponse, Request};
use http::header;

/// The one range that is asked for (RFC 9110 section 14.1.2), cut to the file.
pub(super) fn requested_range(
    request: &Request,
    total: u64,
) -> Result<Option<Range<u64>>, ErrorResponse> {
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
    use http::HeaderValue;

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
