use serde_json::{Map, Value, json};

/// Extremes and sum of a value over time, and its last step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moving {
    min: f64,
    max: f64,
    sum: f64,
    count: f64,
    last: f64,
    /// Difference between the last two values.
    diff: f64,
    /// That difference per second.
    rate: f64,
}

impl Moving {
    /// The first value.
    pub(super) fn new(value: f64) -> Self {
        Self { min: value, max: value, sum: value, count: 1.0, last: value, diff: 0.0, rate: 0.0 }
    }

    /// The next value, `seconds` after the last.
    pub(super) fn push(&mut self, value: f64, seconds: f64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum += value;
        self.count += 1.0;
        self.diff = value - self.last;
        self.rate = if seconds > 0.0 { self.diff / seconds } else { 0.0 };
        self.last = value;
    }

    /// The value last pushed.
    pub(super) fn last(&self) -> f64 {
        self.last
    }

    /// Its change per second.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// The `stats.*` members.
    pub(super) fn write(&self, to: &mut Map<String, Value>) {
        let fields = [
            ("stats.min", self.min),
            ("stats.max", self.max),
            ("stats.sum", self.sum),
            ("stats.avg", self.sum / self.count),
            ("stats.diff", self.diff),
            ("stats.rate", self.rate),
            ("stats.version", 2.0),
        ];
        to.extend(fields.map(|(name, value)| (name.to_owned(), Value::String(decimal(value)))));
    }
}

/// `current`, `capacity`, `pct` and `unit_hint`.
pub(super) fn measured(current: f64, capacity: Option<f64>, unit: &str) -> Map<String, Value> {
    let pct = match capacity {
        Some(capacity) if capacity > 0.0 => trimmed(format!("{:.2}", current / capacity * 100.0)),
        _ => "0.00".to_owned(),
    };
    let value = json!({
        "current": decimal(current),
        "capacity": capacity.map(decimal),
        "pct": pct,
        "unit_hint": unit,
    });
    value.as_object().cloned().unwrap_or_default()
}

/// At most three digits after the point, none when they are zero.
pub(super) fn decimal(value: f64) -> String {
    trimmed(format!("{value:.3}"))
}

fn trimmed(text: String) -> String {
    if !text.contains('.') {
        return text;
    }
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.0, "0"), (5000.75, "5000.75"), (1.0 / 3.0, "0.333"), (-0.0001, "0"), (100.0, "100")]
        {
            assert_eq!(decimal(value), text);
        }
    }

    #[test]
    fn extremes_and_rates_follow_the_values() {
        let mut moving = Moving::new(10.0);
        moving.push(30.0, 5.0);
        moving.push(20.0, 2.0);
        let mut map = Map::new();
        moving.write(&mut map);
        let expected = json!({"stats.min": "10", "stats.max": "30", "stats.sum": "60", "stats.avg": "20",
            "stats.diff": "-10", "stats.rate": "-5", "stats.version": "2"});
        assert_eq!(Value::Object(map), expected);
    }

    #[test]
    fn shares_need_a_capacity() {
        assert_eq!(measured(1.0, Some(8.0), "bytes")["pct"], "12.5");
        assert_eq!(measured(1.0, None, "bps")["pct"], "0.00");
        assert_eq!(measured(1.0, None, "bps")["capacity"], Value::Null);
    }
}
