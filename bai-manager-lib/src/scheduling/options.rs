//! How a resource group wants to be scheduled (spec scheduler.md, section 11).

use std::sync::Arc;

use bai_core::identity::ResourceGroup;
use bai_core::status::SessionType;
use bai_core::units::TimeSpan;
use bai_scheduler::{
    Backfill, Drf, FairShare, Options, Preemption, Sequencer, SlotOrder, VictimOrder, VictimScope,
};
use chrono::TimeDelta;
use serde_json::{Map, Value};

use super::settings::Settings;
use super::weights::thousandths;

/// The scheduler that looks at past usage.
const FAIR_SHARE: &str = "fair-share";

/// Sessions looked at for reservations by conservative backfill, unless the group says how many.
const LOOK_AHEAD: u32 = 32;

/// How far back past usage counts, unless the group says.
const LOOKBACK: TimeDelta = TimeDelta::days(28);

/// The options of a group: those in its row, over what the cluster's settings say for its scheduler. What is missing or cannot be
/// read has its default.
pub(super) fn options(group: Option<&ResourceGroup>, settings: &Settings) -> Options {
    let defaults = Options {
        slot_order: SlotOrder::new(settings.slot_order.iter().cloned()),
        max_kernels_per_agent: settings.max_kernels_per_agent,
        ..Options::default()
    };
    let Some(group) = group else { return defaults };
    let option = |name: &str| group.scheduler_opts.get(name);
    let text = |name: &str| option(name).and_then(Value::as_str);
    let config = |name: &str| config(group, settings, name);
    let round_robin = option("roundrobin").and_then(Value::as_bool).unwrap_or(false);
    let strategy = if round_robin { Some("roundrobin") } else { text("agent_selection_strategy") };
    let allowed = option("allowed_session_types").and_then(Value::as_array).map(|types| {
        let names = types.iter().filter_map(Value::as_str);
        names.filter_map(|name| name.parse::<SessionType>().ok()).collect()
    });
    Options {
        sequencer: sequencer(&group.scheduler, config("slot_weights")),
        selector: strategy.and_then(Options::selector_named).unwrap_or_else(|| defaults.selector.clone()),
        backfill: backfill(config("backfill")).unwrap_or(defaults.backfill),
        preemption: option("preemption").and_then(preemption),
        allowed_types: allowed.unwrap_or_else(|| defaults.allowed_types.clone()),
        half_life: span(config("half_life")).or(defaults.half_life),
        ..defaults
    }
}

/// An option of the scheduler: the group rules over the cluster.
fn config<'a>(group: &'a ResourceGroup, settings: &'a Settings, name: &str) -> Option<&'a Value> {
    let own = group.scheduler_opts.get("config").and_then(|config| config.get(name));
    own.or_else(|| settings.schedulers.get(&group.scheduler)?.get(name))
}

/// A name that nobody knows means DRF.
fn sequencer(name: &str, slot_weights: Option<&Value>) -> Arc<dyn Sequencer> {
    if name != FAIR_SHARE {
        return Options::sequencer_named(name).unwrap_or_else(|| Arc::new(Drf));
    }
    let mut fair = FairShare::default();
    for (slot, weight) in slot_weights.and_then(Value::as_object).into_iter().flatten() {
        let Some(weight) = thousandths(weight) else { continue };
        fair.slot_weights.retain(|(known, _)| known != slot);
        fair.slot_weights.push((slot.clone(), weight));
    }
    Arc::new(fair)
}

/// How far back past usage counts; `None` when it does not matter to the group.
pub(crate) fn lookback(group: Option<&ResourceGroup>, settings: &Settings) -> Option<TimeDelta> {
    let group = group.filter(|group| group.scheduler == FAIR_SHARE)?;
    Some(span(config(group, settings, "lookback")).unwrap_or(LOOKBACK))
}

/// The weights of owners, as the group and the settings give them.
pub(super) fn weights(group: Option<&ResourceGroup>, settings: &Settings) -> Map<String, Value> {
    let Some(group) = group else { return Map::new() };
    let of = |options: Option<&Value>| options.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut weights =
        of(settings.schedulers.get(&group.scheduler).and_then(|options| options.get("weights")));
    weights.extend(of(group.scheduler_opts.get("config").and_then(|config| config.get("weights"))));
    weights
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
