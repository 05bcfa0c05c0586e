//! Replies of a server in words for people.

use bai_core::slots::{Amount, SlotType};
use bai_core::units::format_bytes_long;
use serde_json::{Map, Value};

/// The session as lines of name and value; what it does not have is left out.
pub(crate) fn session(name: &str, info: &Value) -> Vec<(&'static str, String)> {
    let text = |key: &str| info[key].as_str().unwrap_or_default();
    let image =
        [text("registry"), text("image")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let allocated = slots(text("occupyingSlots"));
    let fields = [
        ("session", name.to_owned()),
        ("status", text("status").to_owned()),
        ("reason", reason(info["statusInfo"].as_str(), &info["statusData"])),
        ("image", format!("{} ({})", image.join("/"), text("architecture"))),
        ("tag", text("tag").to_owned()),
        ("resources", if allocated.is_empty() { slots(text("requestedSlots")) } else { allocated }),
        ("cpu time", metric(info, "cpu_used").map(seconds).unwrap_or_default()),
        ("memory", memory(info)),
        ("created", text("creationTime").get(..19).map(|time| format!("{time} UTC")).unwrap_or_default()),
        ("age", info["age"].as_f64().map(seconds).unwrap_or_default()),
        ("runs", info["numQueriesExecuted"].to_string()),
        ("container", text("containerId").to_owned()),
    ];
    let gaps = info["statusData"]["isolation_gaps"].as_array().into_iter().flatten();
    let notes = gaps.filter_map(Value::as_str).map(|gap| ("note", gap.to_owned()));
    fields.into_iter().chain(notes).filter(|(_, value)| !value.is_empty()).collect()
}

/// Why a session is in its status, with what the scheduler says of one that waits, or the agent of one that did not start.
pub(crate) fn reason(info: Option<&str>, data: &Value) -> String {
    let info = info.unwrap_or_default();
    let failed = data["scheduler"]["failed_predicates"].as_array().into_iter().flatten();
    let failed = failed.filter_map(|predicate| predicate["msg"].as_str());
    let said = data["scheduler"]["msg"].as_str().into_iter().chain(failed).find(|text| !text.is_empty());
    let said = match info {
        "no-available-instances" | "predicate-checks-failed" => said,
        "failed-to-start" => data["error"]["repr"].as_str(),
        _ => None,
    };
    said.map_or_else(|| info.to_owned(), |said| format!("{info}: {said}"))
}

/// The value of a field that holds JSON as text.
pub(crate) fn parsed(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Amounts of resources, `cpu 1, mem 128 MiB`, from JSON or from the text form of the session details:
/// `{'cpu': Decimal('1')}`.
pub(crate) fn slots(text: &str) -> String {
    let plain = text.replace("Decimal('", "'").replace("')", "'").replace('\'', "\"");
    let amounts: Map<String, Value> = serde_json::from_str(&plain).unwrap_or_default();
    let words = amounts.iter().filter_map(|(name, amount)| {
        let amount: Amount = amount.as_str()?.parse().ok()?;
        Some(format!("{name} {}", SlotType::guess(name).describe(amount)))
    });
    words.collect::<Vec<_>>().join(", ")
}

fn metric(info: &Value, name: &str) -> Option<f64> {
    info["lastStat"][name]["current"].as_str()?.parse().ok()
}

fn memory(info: &Value) -> String {
    let size = |field: &str| {
        let bytes: Amount = info["lastStat"]["mem"][field].as_str()?.parse().ok()?;
        bytes.finite().map(format_bytes_long)
    };
    match (size("current"), size("capacity")) {
        (Some(used), Some(limit)) => format!("{used} of {limit}"),
        (used, _) => used.unwrap_or_default(),
    }
}

/// Milliseconds as seconds.
fn seconds(millis: f64) -> String {
    format!("{:.1} s", millis / 1000.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_read_from_both_forms() {
        let words = "cpu 1.5, mem 128 MiB";
        assert_eq!(slots("{'cpu': Decimal('1.5'), 'mem': Decimal('134217728')}"), words);
        assert_eq!(slots(r#"{"cpu":"1.5","mem":"134217728"}"#), words);
        assert_eq!(slots("{}"), "");
    }

    #[test]
    fn a_waiting_session_says_what_it_waits_for() {
        let data = json!({ "scheduler": { "msg": "needs cpu 9", "failed_predicates": [] } });
        assert_eq!(reason(Some("no-available-instances"), &data), "no-available-instances: needs cpu 9");
        assert_eq!(reason(Some("user-requested"), &data), "user-requested");
        let data =
            json!({ "scheduler": { "msg": "", "failed_predicates": [{ "name": "x", "msg": "too many" }] } });
        assert_eq!(reason(Some("predicate-checks-failed"), &data), "predicate-checks-failed: too many");
        let data = json!({ "error": { "repr": "the disk is full" } });
        assert_eq!(reason(Some("failed-to-start"), &data), "failed-to-start: the disk is full");
        assert_eq!(reason(None, &Value::Null), "");
    }
}
