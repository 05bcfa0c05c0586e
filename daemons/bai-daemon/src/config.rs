//! Configuration in layers: built-in defaults, then the file, then the environment.

use std::io::Write;
use std::path::Path;

use bai_core::{Error, Result, error::code};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Loads the configuration of the daemon `name`. In the environment `BAI_AGENT__RUNTIME__KIND` means `runtime.kind` of `bai-agent`.
pub(crate) fn load<C: Default + Serialize + DeserializeOwned>(file: Option<&Path>, name: &str) -> Result<C> {
    let prefix = format!("{}__", name.replace('-', "_").to_uppercase());
    let mut layers = Figment::from(Serialized::defaults(C::default()));
    if let Some(file) = file {
        layers = layers.merge(Toml::file_exact(file));
    }
    layers
        .merge(Env::prefixed(&prefix).split("__"))
        .extract()
        .map_err(|cause| Error::of(code::CONFIG_INVALID, "the configuration is wrong").with("reason", cause))
}

/// Prints the configuration as TOML.
pub(crate) fn dump(config: &impl Serialize) -> Result<()> {
    let text = toml::to_string_pretty(config).map_err(|cause| {
        Error::of(code::CONFIG_INVALID, "the configuration cannot be printed").source(cause)
    })?;
    let _ = std::io::stdout().write_all(text.as_bytes()); // a closed pipe is no error
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        name: String,
        port: u16,
    }

    #[test]
    fn the_file_overrides_defaults_and_errors_name_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "port = 5").unwrap();
        assert_eq!(load::<Sample>(Some(&file), "bai-x").unwrap(), Sample { name: String::new(), port: 5 });
        std::fs::write(&file, "prot = 5").unwrap();
        assert!(load::<Sample>(Some(&file), "bai-x").unwrap_err().to_string().contains("prot"));
        assert!(load::<Sample>(Some(&dir.path().join("none")), "bai-x").is_err());
    }
}
