//! Spans of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Months, TimeDelta, TimeZone};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};

/// A non-negative span of time. Months and years are calendar units: how long they are depends on when they
/// start.
///
/// In JSON it is a number of seconds or a text such as `"30s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TimeSpan {
    months: u32,
    duration: Duration,
}

impl TimeSpan {
    /// The empty span.
    pub const ZERO: Self = Self { months: 0, duration: Duration::ZERO };

    /// Seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self { months: 0, duration: Duration::from_secs(seconds) }
    }

    /// Calendar months.
    pub const fn months(months: u32) -> Self {
        Self { months, duration: Duration::ZERO }
    }

    /// Whether the span is empty.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// Whether the span counts calendar months or years.
    pub fn is_calendar(self) -> bool {
        self.months > 0
    }

    /// The length, with 30 days for a month and 365 for a year.
    pub fn to_duration(self) -> Duration {
        let days = u64::from(self.months / 12) * 365 + u64::from(self.months % 12) * 30;
        self.duration.saturating_add(Duration::from_secs(days * 86_400))
    }

    /// The instant this span after `start`, or `None` beyond the calendar.
    pub fn after<Tz: TimeZone>(self, start: DateTime<Tz>) -> Option<DateTime<Tz>> {
        let delta = TimeDelta::from_std(self.duration).ok()?;
        start.checked_add_months(Months::new(self.months))?.checked_add_signed(delta)
    }

    /// The instant this span before `end`, or `None` beyond the calendar.
    pub fn before<Tz: TimeZone>(self, end: DateTime<Tz>) -> Option<DateTime<Tz>> {
        let delta = TimeDelta::from_std(self.duration).ok()?;
        end.checked_sub_months(Months::new(self.months))?.checked_sub_signed(delta)
    }
}

impl From<Duration> for TimeSpan {
    fn from(duration: Duration) -> Self {
        Self { months: 0, duration }
    }
}

impl FromStr for TimeSpan {
    type Err = Error;

    /// Reads `30s`, `5m`, `1.5h`, `1d`, `2w`, `6mo`, `1yr`, or a bare number of seconds.
    fn from_str(text: &str) -> Result<Self> {
        let invalid =
            || Error::new(ErrorKind::Invalid, "not a time span").with("value", format_args!("{text:?}"));
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, suffix) = trimmed.split_at(end);
        if number.is_empty() {
            let negative = trimmed.starts_with('-');
            let message = if negative { "a time span must not be negative" } else { "not a time span" };
            return Err(Error::new(ErrorKind::Invalid, message).with("value", format_args!("{text:?}")));
        }
        let span = match suffix.trim_start() {
            "" | "s" => fixed(number, 1.0),
            "m" => fixed(number, 60.0),
            "h" => fixed(number, 3_600.0),
            "d" => fixed(number, 86_400.0),
            "w" => fixed(number, 604_800.0),
            "mo" => calendar(number, 1),
            "yr" => calendar(number, 12),
            _ => None,
        };
        span.ok_or_else(invalid)
    }
}

fn fixed(number: &str, unit_seconds: f64) -> Option<TimeSpan> {
    if let Ok(whole) = number.parse::<u32>() {
        return Duration::try_from_secs_f64(f64::from(whole) * unit_seconds).ok().map(TimeSpan::from);
    }
    let seconds = number.parse::<f64>().ok()? * unit_seconds;
    Duration::try_from_secs_f64(seconds).ok().map(TimeSpan::from)
}

fn calendar(number: &str, months: u32) -> Option<TimeSpan> {
    number.parse::<u32>().ok()?.checked_mul(months).map(TimeSpan::months)
}

impl fmt::Display for TimeSpan {
    /// In the greatest exact unit; reads back as the same span.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.months > 0 {
            let (count, unit) =
                if self.months.is_multiple_of(12) { (self.months / 12, "yr") } else { (self.months, "mo") };
            return write!(f, "{count}{unit}");
        }
        if self.duration.subsec_nanos() > 0 {
            return write!(f, "{}s", self.duration.as_secs_f64());
        }
        let seconds = self.duration.as_secs();
        let units = [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60)];
        match units.into_iter().find(|(_, length)| seconds > 0 && seconds.is_multiple_of(*length)) {
            Some((unit, length)) => write!(f, "{}{unit}", seconds / length),
            None => write!(f, "{seconds}s"),
        }
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = TimeSpan;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of seconds, or a time span such as \"30s\"")
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<TimeSpan, E> {
        Ok(TimeSpan::seconds(seconds))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<TimeSpan, E> {
        u64::try_from(seconds)
            .map(TimeSpan::seconds)
            .map_err(|_| E::custom("a time span must not be negative"))
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<TimeSpan, E> {
        Duration::try_from_secs_f64(seconds).map(TimeSpan::from).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TimeSpan, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_spans() {
        for (text, seconds) in [
            ("0", 0.0),
            ("30", 30.0),
            ("30s", 30.0),
            (" 5m ", 300.0),
            ("1.5h", 5_400.0),
            ("0.25", 0.25),
            ("1d", 86_400.0),
            ("2w", 1_209_600.0),
            ("1mo", 2_592_000.0),
            ("14mo", 36_720_000.0),
            ("1yr", 31_536_000.0),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert!((span.to_duration().as_secs_f64() - seconds).abs() < 1e-9, "{text}");
        }
        for text in
            ["", "-1", "-5m", "m", "1x", "1 2", "nan", "inf", "1e3", "1.5mo", "1.2.3", "99999999999mo"]
        {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
        assert!("-1".parse::<TimeSpan>().unwrap_err().message().contains("negative"));
    }

    #[test]
    fn months_follow_the_calendar() {
        let start = Utc.with_ymd_and_hms(2024, 1, 31, 0, 0, 0).unwrap();
        let end = "1mo".parse::<TimeSpan>().unwrap().after(start).unwrap();
        assert_eq!(end, Utc.with_ymd_and_hms(2024, 2, 29, 0, 0, 0).unwrap());
        let year = "1yr".parse::<TimeSpan>().unwrap();
        assert_eq!(year.before(end).unwrap(), Utc.with_ymd_and_hms(2023, 2, 28, 0, 0, 0).unwrap());
        assert_eq!(TimeSpan::months(u32::MAX).after(start), None);
        assert_eq!(TimeSpan::seconds(u64::MAX).after(start), None);
    }

    #[test]
    fn text_and_json() {
        for text in ["30s", "5m", "36h", "3d", "2w", "5mo", "2yr", "0s", "0.5s"] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!(span.to_string(), text);
            assert_eq!(serde_json::from_value::<TimeSpan>(text.into()).unwrap(), span);
        }
        assert_eq!(serde_json::from_str::<TimeSpan>("90").unwrap(), TimeSpan::seconds(90));
        assert_eq!(serde_json::from_str::<TimeSpan>("0.5").unwrap(), Duration::from_millis(500).into());
        assert!(serde_json::from_str::<TimeSpan>("-1").is_err());
        assert!(serde_json::from_str::<TimeSpan>("-0.5").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,30}") {
            let _ = text.parse::<TimeSpan>();
        }

        #[test]
        fn number_with_suffix_never_panics(text in "[0-9.]{1,400}[smhdwyo]{0,2}") {
            let _ = text.parse::<TimeSpan>().map(|span| (span.to_duration(), span.to_string()));
        }
    }
}
