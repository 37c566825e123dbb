//! Moments as arguments of actions give them: ASN.1 UTCTime (`260131235959Z`) or ISO 8601.

use time::{Date, Month, PrimitiveDateTime, Time, UtcOffset};

/// Seconds since 1970; `None` if the text is no such moment. A moment without a zone is UTC.
pub(crate) fn unix_seconds(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z').unwrap_or(text);
    if digits.len() == 12 && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        let part = |at: usize| number(digits.get(at..at + 2)?);
        // RFC 5280 section 4.1.2.5.1.
        let year = part(0)?;
        let year = if year >= 50 { 1_900 + year } else { 2_000 + year };
        return seconds(year, [part(2)?, part(4)?], [part(6)?, part(8)?, part(10)?], "");
    }
    let (date, rest) = text.split_at_checked(10)?;
    let mut date = date.split('-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let Some(rest) = rest.strip_prefix(['T', ' ']) else {
        return rest.is_empty().then(|| seconds(year, [month, day], [0; 3], "")).flatten();
    };
    let zone_at = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at_checked(zone_at)?;
    let (clock, _fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.split(':').map(number);
    let (hour, minute) = (clock.next()??, clock.next()??);
    let second = clock.next().unwrap_or(Some(0))?;
    seconds(year, [month, day], [hour, minute, second], zone.trim_start_matches('Z'))
}

fn seconds(year: u16, [month, day]: [u16; 2], clock: [u16; 3], zone: &str) -> Option<i64> {
    let small = |number: u16| u8::try_from(number).ok();
    let month = Month::try_from(small(month)?).ok()?;
    let date = Date::from_calendar_date(year.into(), month, small(day)?).ok()?;
    let [hour, minute, second] = clock;
    let time = Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
    let offset = match zone.split_at_checked(1) {
        None => UtcOffset::UTC,
        Some((sign, offset)) => {
            let (hours, minutes) = offset.split_once(':').or_else(|| offset.split_at_checked(2))?;
            let number = |text| number(text).and_then(|number| i8::try_from(number).ok());
            let sign = if sign == "-" { -1 } else { 1 };
            UtcOffset::from_hms(sign * number(hours)?, sign * number(minutes)?, 0).ok()?
        }
    };
    Some(PrimitiveDateTime::new(date, time).assume_offset(offset).unix_timestamp())
}

fn number(text: &str) -> Option<u16> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::unix_seconds;

    #[test]
    fn both_forms_are_read() {
        for (text, expected) in [
            ("260131235959Z", Some(1_769_903_999)),
            ("260131235959", Some(1_769_903_999)),
            ("2026-01-31T23:59:59Z", Some(1_769_903_999)),
            ("2026-01-31 23:59:59.123", Some(1_769_903_999)),
            ("2026-02-01T01:59:59+02:00", Some(1_769_903_999)),
            ("2026-01-31T18:59:59-0500", Some(1_769_903_999)),
            ("2026-01-31T23:59", Some(1_769_903_940)),
            ("2026-01-31", Some(1_769_817_600)),
            ("991231235959Z", Some(946_684_799)),
            ("2026-02-30", None),
            ("2026-01-31T", None),
            ("2026-01-31T24:00:00Z", None),
            ("soon", None),
            ("", None),
            ("2026-01-3é", None),
        ] {
            assert_eq!(unix_seconds(text), expected, "{text}");
        }
    }
}
