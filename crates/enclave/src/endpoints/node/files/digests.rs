//! Digests of what is served, written `sha-256=:base64:` (RFC 9530): as entity tags, which a client
//! shows again in `if-none-match`, and as `repr-digest`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coco_adapter::{ErrorCode, ErrorResponse, Request};
use coco_crypto::HashAlgorithm;
use http::HeaderName;
use http::header::IF_NONE_MATCH;

const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");

/// The algorithms with their names, the default first.
const ALGORITHMS: [(&str, HashAlgorithm); 3] = [
    ("sha-256", HashAlgorithm::Sha256),
    ("sha-384", HashAlgorithm::Sha384),
    ("sha-512", HashAlgorithm::Sha512),
];

/// A digest in words.
pub(super) fn notation(algorithm: HashAlgorithm, digest: &[u8]) -> String {
    let name = ALGORITHMS.iter().find(|(_, known)| *known == algorithm);
    format!("{}=:{}:", name.map_or("sha-256", |(name, _)| name), STANDARD.encode(digest))
}

/// What a client has already (RFC 9110 section 13.1.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Whatever it is.
    Anything,
    /// What has one of these tags.
    Tags(Vec<String>),
}

impl Known {
    pub(super) fn of(request: &Request) -> Result<Self, ErrorResponse> {
        let mut tags = Vec::new();
        for value in request.headers().get_all(IF_NONE_MATCH) {
            let text = value.to_str().unwrap_or_default().trim();
            if text == "*" {
                return Ok(Self::Anything);
            }
            tags.extend(parse_tags(text).ok_or_else(|| {
                let message = "If-None-Match is neither * nor a list of entity tags.";
                ErrorResponse::bad_request(ErrorCode::InvalidHeaderValue, message)
            })?);
        }
        Ok(Self::Tags(tags))
    }

    /// The algorithms of which a digest may match.
    pub(super) fn algorithms(&self) -> impl Iterator<Item = HashAlgorithm> {
        let named = |name: &str| match self {
            Self::Anything => false,
            Self::Tags(tags) => tags.iter().any(|tag| tag.starts_with(name)),
        };
        let named = ALGORITHMS.into_iter().filter(move |(name, _)| named(name));
        named.map(|(_, algorithm)| algorithm)
    }

    pub(super) fn contains(&self, tag: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Tags(tags) => tags.iter().any(|known| known == tag),
        }
    }
}

/// A list of entity tags; the comparison is weak, so whether one is does not matter.
fn parse_tags(text: &str) -> Option<Vec<String>> {
    let mut tags = Vec::new();
    let mut rest = text;
    loop {
        let tag = rest.trim_start();
        let (tag, after) =
            tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.split_once('"')?;
        tags.push(tag.to_owned());
        match after.trim_start() {
            "" => return Some(tags),
            after => rest = after.strip_prefix(',')?,
        }
    }
}

/// The algorithm of which a client wants a digest of the whole file (RFC 9530 section 4): the one
/// it prefers, or the default if it names none that is known.
pub(super) fn wanted_repr_digest(request: &Request) -> Option<HashAlgorithm> {
    let values = request.headers().get_all(WANT_REPR_DIGEST);
    let mut preferred = None;
    for value in values {
        for item in value.to_str().unwrap_or_default().split(',') {
            let (name, preference) = item.split_once('=').unwrap_or((item, "1"));
            let preference: u8 = preference.trim().parse().unwrap_or(0);
            let known = ALGORITHMS.iter().find(|(known, _)| *known == name.trim());
            let Some((_, algorithm)) = known.filter(|_| (1..=10).contains(&preference)) else {
                continue;
            };
            if preferred.is_none_or(|(most, _)| preference > most) {
                preferred = Some((preference, *algorithm));
            }
        }
        preferred = preferred.or(Some((0, HashAlgorithm::Sha256)));
    }
    preferred.map(|(_, algorithm)| algorithm)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn request(name: HeaderName, values: &[&str]) -> Request {
        let mut request = Request::default();
        for value in values {
            request.headers_mut().append(&name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    #[test]
    fn tags_are_read() {
        let tags =
            |tags: &[&str]| Some(Known::Tags(tags.iter().map(|&tag| tag.to_owned()).collect()));
        for (values, expected) in [
            (&[] as &[&str], tags(&[])),
            (&["*"], Some(Known::Anything)),
            (&["\"a\""], tags(&["a"])),
            (&["W/\"a\" , \"b,c\"", "\"\""], tags(&["a", "b,c", ""])),
            (&["a"], None),
            (&[""], None),
            (&["\"a\","], None),
            (&["\"a\" \"b\""], None),
            (&["\"a"], None),
        ] {
            assert_eq!(Known::of(&request(IF_NONE_MATCH, values)).ok(), expected, "{values:?}");
        }
        let known = Known::Tags(vec!["sha-512=:AA==:".to_owned(), "x".to_owned()]);
        assert_eq!(known.algorithms().collect::<Vec<_>>(), [HashAlgorithm::Sha512]);
        assert!(known.contains("x") && !known.contains("y"));
    }

    #[test]
    fn the_preferred_digest_is_chosen() {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        for (values, expected) in [
            (&[] as &[&str], None),
            (&["sha-256=1"], Some(Sha256)),
            (&["sha-256=1, sha-512=10"], Some(Sha512)),
            (&["sha-512=3, sha-256=7, sha-384=5"], Some(Sha256)),
            (&["sha-384=2", "sha-512=3"], Some(Sha512)),
            (&["sha-384"], Some(Sha384)),
            (&["md5=9, sha-384=2"], Some(Sha384)),
            (&["sha-512=0"], Some(Sha256)),
            (&["sha-512=11, nonsense"], Some(Sha256)),
            (&[""], Some(Sha256)),
        ] {
            assert_eq!(
                wanted_repr_digest(&request(WANT_REPR_DIGEST, values)),
                expected,
                "{values:?}"
            );
        }
    }

    #[test]
    fn digests_are_written_as_in_rfc_9530() {
        // Of `{"hello": "world"}` and a line feed: appendix B.1.
        let digest = HashAlgorithm::Sha256.digest(b"{\"hello\": \"world\"}\n");
        let expected = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        assert_eq!(notation(HashAlgorithm::Sha256, &digest), expected);
    }
}
