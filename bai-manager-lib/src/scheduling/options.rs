//! How a resource group wants to be scheduled (spec scheduler.md, section 11).

use bai_core::identity::ResourceGroup;
use bai_core::status::SessionType;
use bai_core::units::TimeSpan;
use bai_scheduler::{Backfill, Options, Preemption, VictimOrder, VictimScope};
use chrono::TimeDelta;
use serde_json::Value;

/// Sessions looked at for reservations by conservative backfill, unless the group says how many.
const LOOK_AHEAD: u32 = 32;

/// The options in the row of a resource group. What is missing or cannot be read has its default.
pub(super) fn options(group: &ResourceGroup) -> Options {
    let defaults = Options::default();
    let drf = Options::sequencer_named("drf");
    let option = |name: &str| group.scheduler_opts.get(name);
    let text = |name: &str| option(name).and_then(Value::as_str);
    let round_robin = option("roundrobin").and_then(Value::as_bool).unwrap_or(false);
    let strategy = if round_robin { Some("roundrobin") } else { text("agent_selection_strategy") };
    let allowed = option("allowed_session_types").and_then(Value::as_array).map(|types| {
        let names = types.iter().filter_map(Value::as_str);
        names.filter_map(|name| name.parse::<SessionType>().ok()).collect()
    });
    Options {
        // A name that nobody knows means DRF.
        sequencer: Options::sequencer_named(&group.scheduler).or(drf).unwrap_or(defaults.sequencer),
        selector: strategy.and_then(Options::selector_named).unwrap_or(defaults.selector),
        backfill: backfill(option("config").and_then(|config| config.get("backfill")))
            .unwrap_or(defaults.backfill),
        preemption: option("preemption").and_then(preemption),
        allowed_types: allowed.unwrap_or(defaults.allowed_types),
        half_life: option("config").and_then(|config| span(config.get("half_life"))).or(defaults.half_life),
        ..Options::default()
    }
}

/// `strict`, `easy`, `conservative`, or the number of reservations.
fn backfill(value: Option<&Value>) -> Option<Backfill> {
    match value? {
        Value::String(name) if name == "strict" => Some(Backfill::Strict),
        Value::String(name) if name == "easy" => Some(Backfill::Easy),
        Value::String(name) if name == "conservative" => Some(Backfill::Conservative(LOOK_AHEAD)),
        Value::Number(count) => Some(Backfill::Conservative(count.as_u64()?.try_into().unwrap_or(u32::MAX))),
        _ => None,
    }
}

fn preemption(value: &Value) -> Option<Preemption> {
    if value.get("enabled").and_then(Value::as_bool) != Some(true) {
        return None;
    }
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let defaults = Preemption::default();
    Some(Preemption {
        scope: match text("victim_scope") {
            Some("project") => VictimScope::Project,
            Some("domain") => VictimScope::Domain,
            Some("resource-group" | "resource_group") => VictimScope::ResourceGroup,
            _ => VictimScope::User,
        },
        order: match text("order") {
            Some("newest") => VictimOrder::Newest,
            Some("fewest-sessions") => VictimOrder::FewestSessions,
            Some("smallest-resources") => VictimOrder::SmallestResources,
            Some("oldest") => VictimOrder::Oldest,
            _ => defaults.order,
        },
        min_runtime: span(value.get("preemption_min_runtime")).unwrap_or(defaults.min_runtime),
        ..defaults
    })
}

/// A span of time: seconds, or a text such as `5m`.
fn span(value: Option<&Value>) -> Option<TimeDelta> {
    let span = match value? {
        Value::String(text) => text.parse::<TimeSpan>().ok()?,
        Value::Number(seconds) => TimeSpan::seconds(seconds.as_u64()?),
        _ => return None,
    };
    TimeDelta::from_std(span.to_duration()).ok()
}
