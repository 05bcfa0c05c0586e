//! Secrets of a data directory, generated at first start.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bai_core::{Error, Result, Secret, error::code};
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};

/// File name within the data directory; mode 0600.
const FILE: &str = "secrets.json";

/// What a data directory keeps secret.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Secrets {
    /// Encrypts secret keys in the store, and the keys of sessions follow from it: 32 bytes in hexadecimal.
    store_key: Secret,
    /// Password of the first superadmin.
    pub(crate) admin_password: Secret,
}

impl Secrets {
    /// Loads the secrets of `dir`, or generates and keeps them.
    pub(crate) fn load_or_generate(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|cause| {
                Error::of(code::CONFIG_INVALID, "the secrets file cannot be understood")
                    .with("path", path.display())
                    .source(cause)
            }),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                let secrets = Self { store_key: random_hex()?.into(), admin_password: random_hex()?.into() };
                let text = serde_json::to_vec(&secrets)
                    .map_err(|cause| Error::of(code::INTERNAL, "secrets").source(cause))?;
                write_private(&path, &text)?;
                Ok(secrets)
            }
            Err(cause) => Err(unusable(&path, cause)),
        }
    }

    /// The key that encrypts secret keys in the store and that the keys of sessions follow from. All managers of a cluster have the
    /// same.
    pub(crate) fn store_key(&self) -> Result<[u8; 32]> {
        let mut key = [0; 32];
        hex::decode_to_slice(self.store_key.reveal(), &mut key)
            .map_err(|_| Error::of(code::CONFIG_INVALID, "the store key is not 32 bytes in hexadecimal"))?;
        Ok(key)
    }
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let draft = path.with_extension("tmp");
    let _ = fs::remove_file(&draft); // one that a crash left behind may have another mode
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|cause| unusable(path, cause))
}

/// Makes a directory that only its owner can enter, unless it is there, and returns its absolute path.
pub(crate) fn private_dir(dir: &Path) -> Result<PathBuf> {
    let make = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::canonicalize(dir)
    };
    make().map_err(|cause| unusable(dir, cause))
}

/// The error of a file or directory that cannot be used.
pub(crate) fn unusable(path: &Path, cause: std::io::Error) -> Error {
    Error::of(code::CONFIG_INVALID, "the data directory cannot be used")
        .with("path", path.display())
        .with("reason", &cause)
        .source(cause)
}

fn random_hex() -> Result<String> {
    let mut bytes = [0; 32];
    OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|cause| Error::of(code::INTERNAL, "no randomness").source(cause))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_kept_private_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secrets::load_or_generate(dir.path()).unwrap();
        let second = Secrets::load_or_generate(dir.path()).unwrap();
        assert_eq!(first.store_key().unwrap(), second.store_key().unwrap());
        assert_ne!(first.admin_password, first.store_key);
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Secrets::load_or_generate(dir.path()).unwrap_err().code(), code::CONFIG_INVALID);
    }
}
