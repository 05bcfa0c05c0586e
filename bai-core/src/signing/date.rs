//! The date header of a signed request.
//!
//! The header's text is signed as it is, so every common way to write an instant is read: ISO 8601 in extended and
//! basic form, with or without fraction and offset, the dates of RFC 7231 and RFC 5322, and those of `asctime`.
//! Without an offset it is UTC.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

use crate::clock::Timestamp;

/// How far the date of a request may be off: less than this, either way.
pub const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(15);

/// The text of the date header as the official clients write it.
pub fn format_date(now: Timestamp) -> String {
    now.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

/// Reads the text of a date header.
pub fn parse_date(text: &str) -> Option<DateTime<FixedOffset>> {
    let mut cursor = Cursor(text.trim().as_bytes());
    let is_basic = cursor.0.len() >= 8 && cursor.0[..8].iter().all(u8::is_ascii_digit);
    let (local, year_last) = if is_basic || cursor.0.get(4) == Some(&b'-') {
        (iso(&mut cursor)?, false)
    } else {
        textual(&mut cursor)?
    };
    let offset = if year_last { Some(0) } else { offset_minutes(&mut cursor) }?;
    cursor.0.is_empty().then_some(())?;
    local.and_local_timezone(FixedOffset::east_opt(offset * 60)?).single()
}

/// The calendar day in the date's own offset, written `yyyymmdd`.
pub(super) fn day_of(date: &DateTime<FixedOffset>) -> [u8; 8] {
    let local = date.date_naive();
    // Years have four digits: nothing else is read.
    let year = local.year().unsigned_abs();
    let mut rest = (year * 100 + local.month()) * 100 + local.day();
    let mut day = [b'0'; 8];
    for digit in day.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    day
}

/// What is still to be read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.0.first() == Some(&byte);
        if is_next {
            self.0 = &self.0[1..];
        }
        is_next
    }

    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    /// A number of exactly `digits` digits.
    fn number(&mut self, digits: usize) -> Option<u32> {
        let (head, rest) = self.0.split_at_checked(digits)?;
        let number = head.iter().try_fold(0, |number, byte| {
            byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
        })?;
        self.0 = rest;
        Some(number)
    }

    /// A number of one or two digits.
    fn short_number(&mut self) -> Option<u32> {
        if self.0.get(1).is_some_and(u8::is_ascii_digit) { self.number(2) } else { self.number(1) }
    }

    fn word(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
    }
}

/// `2016-09-30T01:23:45.678`, `20160930T012345`, and mixtures of both.
fn iso(cursor: &mut Cursor<'_>) -> Option<NaiveDateTime> {
    let year = cursor.number(4)?;
    let is_extended = cursor.skip(b'-');
    let month = cursor.number(2)?;
    if is_extended && !cursor.skip(b'-') {
        return None;
    }
    let date = date(year, month, cursor.number(2)?)?;
    if cursor.0.is_empty() {
        return Some(date.and_time(NaiveTime::MIN));
    }
    if !cursor.skip(b'T') && !cursor.skip(b't') && !cursor.skip(b' ') {
        return None;
    }
    cursor.skip_blanks();
    Some(date.and_time(time(cursor)?))
}

/// `Fri, 30 Sep 2016 01:23:45`, or `Fri Sep 30 01:23:45 2016`, which leaves no room for an offset.
fn textual(cursor: &mut Cursor<'_>) -> Option<(NaiveDateTime, bool)> {
    if !cursor.0.first()?.is_ascii_digit() {
        is_weekday(cursor.word()).then_some(())?;
        cursor.skip(b',');
        cursor.skip_blanks();
    }
    let year_last = !cursor.0.first()?.is_ascii_digit();
    let (day, month) = if year_last {
        let month = month(cursor)?;
        (cursor.short_number()?, month)
    } else {
        (cursor.short_number()?, month(cursor)?)
    };
    cursor.skip_blanks();
    if year_last {
        let time = time(cursor)?;
        cursor.skip_blanks();
        return Some((date(cursor.number(4)?, month, day)?.and_time(time), true));
    }
    let date = date(cursor.number(4)?, month, day)?;
    cursor.skip_blanks();
    Some((date.and_time(time(cursor)?), false))
}

fn date(year: u32, month: u32, day: u32) -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)
}

/// `01:23:45.678`, `01:23`, `012345`, `0123`, with a fraction after a point or comma.
fn time(cursor: &mut Cursor<'_>) -> Option<NaiveTime> {
    let hour = cursor.number(2)?;
    let is_extended = cursor.skip(b':');
    let minute = cursor.number(2)?;
    let has_seconds =
        if is_extended { cursor.skip(b':') } else { cursor.0.first().is_some_and(u8::is_ascii_digit) };
    let second = if has_seconds { cursor.number(2)? } else { 0 };
    let has_fraction = has_seconds && (cursor.skip(b'.') || cursor.skip(b','));
    let nanos = if has_fraction { fraction(cursor)? } else { 0 };
    NaiveTime::from_hms_nano_opt(hour, minute, second, nanos)
}

/// The digits after a decimal point as nanoseconds; finer ones are cut.
fn fraction(cursor: &mut Cursor<'_>) -> Option<u32> {
    let end = cursor.0.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(cursor.0.len());
    let (digits, rest) = cursor.0.split_at(end);
    cursor.0 = rest;
    let padded = digits.iter().chain(std::iter::repeat(&b'0')).take(9);
    (!digits.is_empty()).then(|| padded.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0')))
}

fn is_weekday(word: &[u8]) -> bool {
    const NAMES: [&[u8]; 7] =
        [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];
    word.len() >= 3 && NAMES.iter().any(|name| starts_with_ignoring_case(name, word))
}

fn month(cursor: &mut Cursor<'_>) -> Option<u32> {
    const NAMES: [&[u8]; 12] = [
        b"january",
        b"february",
        b"march",
        b"april",
        b"may",
        b"june",
        b"july",
        b"august",
        b"september",
        b"october",
        b"november",
        b"december",
    ];
    let _ = cursor.skip(b'-');
    cursor.skip_blanks();
    let word = cursor.word();
    let _ = cursor.skip(b'-');
    cursor.skip_blanks();
    let index = NAMES.iter().position(|name| word.len() >= 3 && starts_with_ignoring_case(name, word))?;
    u32::try_from(index + 1).ok()
}

fn starts_with_ignoring_case(name: &[u8], start: &[u8]) -> bool {
    name.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

/// `Z`, `+09:00`, `-0330`, `+9`, `KST`, or nothing.
fn offset_minutes(cursor: &mut Cursor<'_>) -> Option<i32> {
    cursor.skip_blanks();
    let sign = match cursor.0.first() {
        None => return Some(0),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return zone_minutes(cursor.word()),
    };
    cursor.0 = &cursor.0[1..];
    let hours = cursor.short_number()?;
    let has_minutes = cursor.skip(b':') || !cursor.0.is_empty();
    let minutes = if has_minutes { cursor.number(2)? } else { 0 };
    (hours < 24 && minutes < 60).then_some(())?;
    Some(sign * i32::try_from(hours * 60 + minutes).ok()?)
}

/// The offset of a zone known by its abbreviation. Ambiguous ones mean the best known zone.
fn zone_minutes(name: &[u8]) -> Option<i32> {
    const ZONES: &[(&str, i32)] = &[
        ("UTC", 0),
        ("GMT", 0),
        ("UT", 0),
        ("WET", 0),
        ("WEST", 60),
        ("BST", 60),
        ("CET", 60),
        ("CEST", 120),
        ("MET", 60),
        ("MEST", 120),
        ("EET", 120),
        ("EEST", 180),
        ("SAST", 120),
        ("MSK", 180),
        ("TRT", 180),
        ("AST", -240),
        ("ADT", -180),
        ("IRST", 210),
        ("GST", 240),
        ("PKT", 300),
        ("IST", 330),
        ("NPT", 345),
        ("ICT", 420),
        ("WIB", 420),
        ("SGT", 480),
        ("HKT", 480),
        ("PHT", 480),
        ("MYT", 480),
        ("AWST", 480),
        ("KST", 540),
        ("JST", 540),
        ("KDT", 600),
        ("ACST", 570),
        ("ACDT", 630),
        ("AEST", 600),
        ("AEDT", 660),
        ("NZST", 720),
        ("NZDT", 780),
        ("BRT", -180),
        ("ART", -180),
        ("NST", -210),
        ("NDT", -150),
        ("EST", -300),
        ("EDT", -240),
        ("CST", -360),
        ("CDT", -300),
        ("MST", -420),
        ("MDT", -360),
        ("PST", -480),
        ("PDT", -420),
        ("AKST", -540),
        ("AKDT", -480),
        ("HST", -600),
    ];
    if let [letter] = name {
        return military_minutes(letter.to_ascii_uppercase());
    }
    ZONES.iter().find(|(zone, _)| name.eq_ignore_ascii_case(zone.as_bytes())).map(|(_, minutes)| *minutes)
}

fn military_minutes(letter: u8) -> Option<i32> {
    let hours = match letter {
        b'A'..=b'I' => i32::from(letter - b'A') + 1,
        b'K'..=b'M' => i32::from(letter - b'K') + 10,
        b'N'..=b'Y' => -i32::from(letter - b'N') - 1,
        b'Z' => 0,
        _ => return None,
    };
    Some(hours * 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_form() {
        for text in [
            "2016-09-30T01:23:45Z",
            "2016-09-30T01:23:45.000000+00:00",
            "2016-09-30 01:23:45",
            "2016-09-30 01:23:45 UTC",
            "2016-09-30T01:23:45,000Z",
            "20160930T01:23:45Z",
            "20160930T012345Z",
            "20160930T012345",
            "20160930T012345+0000",
            "2016-09-30T10:23:45+09:00",
            "2016-09-30T10:23:45 KST",
            "2016-09-29T20:23:45-05",
            "2016-09-29T20:23:45 EST",
            "2016-09-30T02:23:45A",
            "Fri, 30 Sep 2016 01:23:45 GMT",
            "fri, 30 sep 2016 01:23:45 gmt",
            "Friday, 30 September 2016 03:23:45 +0200",
            "30 Sep 2016 01:23:45 +0000",
            "30-Sep-2016 01:23:45 GMT",
            "Fri Sep 30 01:23:45 2016",
        ] {
            let date = parse_date(text).unwrap_or_else(|| panic!("{text} was not read"));
            assert_eq!(date.to_utc().to_rfc3339(), "2016-09-30T01:23:45+00:00", "{text}");
        }
        assert_eq!(parse_date("2016-09-30").unwrap().to_rfc3339(), "2016-09-30T00:00:00+00:00");
        assert_eq!(parse_date("2016-09-30T01:23").unwrap().to_rfc3339(), "2016-09-30T01:23:00+00:00");
        assert_eq!(
            parse_date("2016-09-30T01:23:45.1234567891Z").unwrap().timestamp_subsec_nanos(),
            123_456_789
        );
    }

    #[test]
    fn refuses_what_is_no_instant() {
        for text in [
            "",
            "now",
            "2016",
            "2016-09",
            "2016-9-30T01:23:45Z",
            "2016-13-01T00:00:00Z",
            "2016-02-30T00:00:00Z",
            "2016-09-30T24:23:45Z",
            "2016-09-30T01:23:45+25:00",
            "2016-09-30T01:23:45+09:61",
            "2016-09-30T01:23:45 XYZ",
            "2016-09-30T01:23:45Zjunk",
            "2016-09-30T01:23:45J",
            "2016-09-30T01:23:45.Z",
            "Foo, 30 Sep 2016 01:23:45 GMT",
            "Fri, 30 Sex 2016 01:23:45 GMT",
            "Fri, 30 Sep 16 01:23:45 GMT",
            "1475198625",
            "2016-09-30T01:23:45+",
            "2016-0930T01:23:45Z",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn day_is_the_one_of_the_offset() {
        for (text, day) in [
            ("2024-02-29T23:30:00+00:00", b"20240229"),
            ("2024-03-01T08:30:00+09:00", b"20240301"),
            ("0001-01-01T00:00:00Z", b"00010101"),
        ] {
            assert_eq!(day_of(&parse_date(text).unwrap()), *day, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,50}") {
            let _ = parse_date(&text);
        }

        #[test]
        fn date_like_text_never_panics(text in "[0-9]{4}-?[0-9]{0,3}-?[0-9]{0,3}[T ]?[0-9:.,]{0,16} ?[-+A-Z]{0,4}[0-9:]{0,6}") {
            let _ = parse_date(&text).map(|date| day_of(&date));
        }

        #[test]
        fn reads_back_what_clients_write(micros in 0_i64..4_102_444_800_000_000) {
            let now = crate::clock::from_micros(micros);
            prop_assert_eq!(parse_date(&format_date(now)).unwrap(), now);
        }
    }
}
