//! Path templates: `/records/{key}`, `/proposals/{id}:withdraw`.

/// The values that a template took from a path, percent-decoded, in template order.
pub type Params = Vec<(String, String)>;

/// A path with named holes. A hole takes one or more characters other than `/`; a hole that is
/// followed by `:` in its segment does not take `:` either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// `prefix{name}suffix`
    Hole {
        prefix: String,
        name: String,
        suffix: String,
    },
}

/// The text is not a path template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteSyntax {
    /// A template starts with `/`.
    #[error("path {0:?} does not start with '/'")]
    NoLeadingSlash(String),
    /// A segment has an unclosed, empty, nested or second hole.
    #[error("path {0:?} has a malformed parameter in segment {1:?}")]
    MalformedHole(String, String),
    /// Two holes share a name.
    #[error("path {0:?} names the parameter {1:?} twice")]
    DuplicateName(String, String),
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, RouteSyntax> {
        let rest =
            text.strip_prefix('/').ok_or_else(|| RouteSyntax::NoLeadingSlash(text.to_owned()))?;
        let mut segments = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for part in rest.split('/') {
            let segment = Segment::parse(part)
                .ok_or_else(|| RouteSyntax::MalformedHole(text.to_owned(), part.to_owned()))?;
            if let Segment::Hole { name, .. } = &segment {
                if names.contains(name) {
                    return Err(RouteSyntax::DuplicateName(text.to_owned(), name.clone()));
                }
                names.push(name.clone());
            }
            segments.push(segment);
        }
        Ok(Self { text: text.to_owned(), segments })
    }

    /// The template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of the holes, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Hole { name, .. } => Some(name.as_str()),
        })
    }

    /// Whether the template has no hole.
    pub fn is_literal(&self) -> bool {
        self.names().next().is_none()
    }

    /// What the holes take from `path`, or `None` if it does not fit.
    pub fn match_path(&self, path: &str) -> Option<Params> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let mut params = Params::new();
        for segment in &self.segments {
            segment.take(parts.next()?, &mut params)?;
        }
        parts.next().is_none().then_some(params)
    }
}

impl Segment {
    fn parse(part: &str) -> Option<Self> {
        let Some(open) = part.find('{') else {
            return (!part.contains('}')).then(|| Self::Literal(part.to_owned()));
        };
        let (prefix, rest) = part.split_at(open);
        let (name, suffix) = rest.strip_prefix('{')?.split_once('}')?;
        let plain = |text: &str| !text.contains(['{', '}']);
        let well_formed = plain(prefix) && plain(name) && plain(suffix) && !name.is_empty();
        well_formed.then(|| Self::Hole {
            prefix: prefix.to_owned(),
            name: name.to_owned(),
            suffix: suffix.to_owned(),
        })
    }

    fn take(&self, part: &str, params: &mut Params) -> Option<()> {
        match self {
            Self::Literal(literal) => (literal == part).then_some(()),
            Self::Hole { prefix, name, suffix } => {
                let value = part.strip_prefix(prefix.as_str())?.strip_suffix(suffix.as_str())?;
                let fits = !(value.is_empty() || suffix.starts_with(':') && value.contains(':'));
                fits.then(|| params.push((name.clone(), percent_decode(value))))
            }
        }
    }
}

/// Percent-decoding of one path segment; malformed escapes stay as they are.
fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        match (escaped, tail) {
            (Some((high, low)), [_, _, after @ ..]) => {
                bytes.push(high << 4 | low);
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(template: &str, path: &str) -> Option<Params> {
        Template::parse(template).unwrap().match_path(path)
    }

    fn one(name: &str, value: &str) -> Option<Params> {
        Some(vec![(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn holes_take_one_segment() {
        assert_eq!(params("/records/{key}", "/records/a%20b"), one("key", "a b"));
        assert_eq!(params("/records/{key}", "/records/"), None);
        assert_eq!(params("/records/{key}", "/records/a/b"), None);
        assert_eq!(params("/records/{key}", "/records/%zz%"), one("key", "%zz%"));
        assert_eq!(params("/commit", "/commit"), Some(vec![]));
    }

    #[test]
    fn a_verb_suffix_excludes_the_colon() {
        assert_eq!(params("/p/{id}:withdraw", "/p/7:withdraw"), one("id", "7"));
        assert_eq!(params("/p/{id}:withdraw", "/p/7:8:withdraw"), None);
        assert_eq!(params("/p/{id}", "/p/7:8"), one("id", "7:8"));
    }

    #[test]
    fn malformed_templates_are_refused() {
        for text in ["records", "/{", "/{}", "/}", "/{a}{b}", "/{{a}}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert!(matches!(Template::parse("/{a}/{a}"), Err(RouteSyntax::DuplicateName(..))));
    }
}
