//! Moments as people and proposals read them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Seconds since 1970 as RFC 3339 has it: `2026-01-31T23:59:59Z`.
pub(crate) fn rfc3339(unix_s: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(unix_s).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| unix_s.to_string())
}

/// The day of a moment in that form.
pub(crate) fn day(rfc3339: &str) -> &str {
    rfc3339.split_once('T').map_or(rfc3339, |(day, _)| day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_the_form_that_proposals_take() {
        assert_eq!(rfc3339(1_769_903_999), "2026-01-31T23:59:59Z");
        assert_eq!(day(&rfc3339(0)), "1970-01-01");
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
    }
}
