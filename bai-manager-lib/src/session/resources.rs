//! What a kernel asks for: the request completed and checked by the limits of its image (spec scheduler.md, section 7).

use bai_core::error::code;
use bai_core::image::Image;
use bai_core::slots::{Amount, InputRules, ResourceSlots, SlotType, SlotTypes};
use bai_core::units::parse_bytes;
use bai_core::{Error, Result};
use serde_json::{Map, Value};

/// Shared memory when neither request nor image say anything.
const DEFAULT_SHMEM: &str = "64m";
/// Minima of images that do not say.
const DEFAULT_MINIMA: [(&str, &str); 2] = [("cpu", "1"), ("mem", "1g")];

/// Amounts and options of each kernel.
#[derive(Debug)]
pub(super) struct Resources {
    pub(super) slots: ResourceSlots,
    /// The options of the request with `shmem` in bytes.
    pub(super) options: Map<String, Value>,
}

/// Completes and checks a request.
///
/// # Errors
/// `Invalid` for unknown slots, amounts that are none, below the image's minimum or above its maximum, slots that exclude
/// each other, and shared memory that does not fit into the memory.
pub(super) fn resolve(
    image: &Image,
    types: &SlotTypes,
    asked: Option<&Map<String, Value>>,
    options: &Map<String, Value>,
) -> Result<Resources> {
    let shmem = shmem(image, options)?;
    let minima = minima(image, types, shmem)?;
    let mut slots = types.parse_input(asked.unwrap_or(&Map::new()), InputRules::REQUEST)?;
    for (name, minimum) in &minima {
        let intrinsic = matches!(name.as_str(), "cpu" | "mem");
        if slots.get(name.as_str()).is_zero() && (intrinsic || asked.is_none()) {
            slots.insert(name.clone(), *minimum);
        }
    }
    slots.check_exclusive()?;
    check_bounds(image, types, &slots, &minima)?;
    let memory = slots.get("mem");
    if shmem >= memory {
        return Err(Error::of(code::INVALID_SLOTS, "Shared memory should be less than the main memory.")
            .with("shmem", SlotType::Bytes.describe(shmem))
            .with("mem", SlotType::Bytes.describe(memory)));
    }
    let mut options = options.clone();
    options.insert("shmem".into(), shmem.to_string().into());
    Ok(Resources { slots, options })
}

fn shmem(image: &Image, options: &Map<String, Value>) -> Result<Amount> {
    let text = match options.get("shmem") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        None | Some(Value::Null) => {
            image.label("resource.preferred.shmem").unwrap_or(DEFAULT_SHMEM).to_owned()
        }
        Some(_) => return Err(Error::of(code::INVALID_SLOTS, "shmem is a size such as 64m")),
    };
    let amount = parse_bytes(&text).map_err(|error| error.with("option", "shmem"))?;
    if amount.is_negative() || amount > Amount::from(InputRules::MAX) {
        return Err(Error::of(code::INVALID_SLOTS, "shmem is out of range").with("shmem", text));
    }
    Ok(amount)
}

/// The image's minima; the one of memory is raised by the shared memory, which is taken out of it.
fn minima(image: &Image, types: &SlotTypes, shmem: Amount) -> Result<ResourceSlots> {
    let mut minima = ResourceSlots::new();
    for (name, text) in DEFAULT_MINIMA.into_iter().chain(image.bounds("min")) {
        minima.insert(name, types.type_of(name).parse(text).map_err(|error| bad_label(error, image, name))?);
    }
    minima.insert("mem", minima.get("mem").saturating_add(shmem));
    Ok(minima)
}

fn check_bounds(
    image: &Image,
    types: &SlotTypes,
    slots: &ResourceSlots,
    minima: &ResourceSlots,
) -> Result<()> {
    let describe = |name: &str, amount: Amount| types.type_of(name).describe(amount);
    let given =
        |error: Error, name: &str| error.with("slot", name).with("given", describe(name, slots.get(name)));
    for (name, minimum) in minima {
        if slots.get(name.as_str()) < *minimum {
            let message = "Your resource request is smaller than the minimum required by the image.";
            return Err(given(Error::of(code::INVALID_SLOTS, message), name.as_str())
                .with("minimum", describe(name.as_str(), *minimum)));
        }
    }
    for (name, text) in image.bounds("max") {
        let maximum = types.type_of(name).parse(text).map_err(|error| bad_label(error, image, name))?;
        if slots.get(name) > maximum {
            let message = "Your resource request is larger than the maximum allowed by the image.";
            return Err(
                given(Error::of(code::INVALID_SLOTS, message), name).with("maximum", describe(name, maximum))
            );
        }
    }
    Ok(())
}

fn bad_label(error: Error, image: &Image, slot: &str) -> Error {
    error.with("image", &image.name).with("label of slot", slot)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn image(labels: &[(&str, &str)]) -> Image {
        Image {
            name: "python:3.11".into(),
            architecture: "x86_64".into(),
            digest: String::new(),
            size: 0,
            labels: labels
                .iter()
                .map(|(key, value)| (format!("ai.backend.{key}"), (*value).to_owned()))
                .collect(),
            aliases: Vec::new(),
        }
    }

    fn types() -> SlotTypes {
        [("cpu", SlotType::Count), ("mem", SlotType::Bytes), ("cuda.device", SlotType::Count)]
            .into_iter()
            .collect()
    }

    fn ask(labels: &[(&str, &str)], asked: &Value, options: &Value) -> Result<Resources> {
        resolve(&image(labels), &types(), asked.as_object(), options.as_object().unwrap())
    }

    const SMALL: &[(&str, &str)] =
        &[("resource.min.cpu", "1"), ("resource.min.mem", "64m"), ("resource.max.cpu", "4")];

    #[test]
    fn what_is_missing_comes_from_the_image() {
        let given = ask(SMALL, &Value::Null, &json!({})).unwrap();
        assert_eq!(given.slots.get("cpu"), Amount::ONE);
        assert_eq!(given.slots.get("mem"), Amount::from(128_u64 << 20));
        assert_eq!(given.options["shmem"], (64 << 20).to_string());
        assert!(given.slots.names("cuda.device"));
        let given = ask(SMALL, &json!({"cpu": 2, "mem": 0}), &json!({"shmem": "1m"})).unwrap();
        assert_eq!(given.slots.get("cpu"), Amount::from(2_u64));
        assert_eq!(given.slots.get("mem"), Amount::from(65_u64 << 20));
    }

    #[test]
    fn bounds_are_told_precisely() {
        let error = ask(SMALL, &json!({"mem": "65m"}), &json!({})).unwrap_err().to_string();
        for part in ["smaller", "slot: mem", "given: 65 MiB", "minimum: 128 MiB"] {
            assert!(error.contains(part), "{error}");
        }
        let error = ask(SMALL, &json!({"cpu": 5}), &json!({})).unwrap_err().to_string();
        for part in ["larger", "slot: cpu", "given: 5", "maximum: 4"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (asked, options) in [
            (json!({"gpu": 1}), json!({})),
            (json!({"cpu": -1}), json!({})),
            (json!({"cpu": "NaN"}), json!({})),
            (json!({"cpu": "Infinity"}), json!({})),
            (json!({"mem": "99999999999y"}), json!({})),
            (json!({"cpu": [1]}), json!({})),
            (json!({"shmem": "1g"}), json!({})),
            (json!({"mem": "1g"}), json!({"shmem": "1g"})),
            (json!({"mem": "1g"}), json!({"shmem": "-1"})),
            (json!({"mem": "1g"}), json!({"shmem": []})),
        ] {
            let error = ask(SMALL, &asked, &options).unwrap_err();
            assert_eq!(error.kind(), bai_core::ErrorKind::Invalid, "{asked} {options}");
        }
    }

    #[test]
    fn more_than_any_agent_has_is_accepted() {
        assert!(ask(&SMALL[..2], &json!({"cpu": 1000, "cuda.device": 64}), &json!({})).is_ok());
    }
}
