//! Secret keys at rest: sealed with XChaCha20-Poly1305 under a key that is kept apart from the database.

use std::fmt;

use bai_core::error::{Error, Result, code};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::RngCore;

const NONCE_LENGTH: usize = 24;

/// Seals and opens secrets.
pub(crate) struct Cipher(XChaCha20Poly1305);

impl Cipher {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(key.into()))
    }

    /// A random nonce followed by the sealed secret. It can be opened for the same `owner` only, so that a secret copied to
    /// another row is worthless.
    pub(crate) fn seal(&self, owner: &str, secret: &str) -> Result<Vec<u8>> {
        let mut sealed = vec![0; NONCE_LENGTH];
        rand::rng().fill_bytes(&mut sealed);
        let payload = Payload { msg: secret.as_bytes(), aad: owner.as_bytes() };
        let encrypted = self.0.encrypt(XNonce::from_slice(&sealed), payload);
        sealed
            .extend(encrypted.map_err(|_| Error::of(code::STORE_FAILED, "the secret cannot be encrypted"))?);
        Ok(sealed)
    }

    /// # Errors
    /// `Internal` ([`code::STORE_CORRUPT`]) when it was not sealed for `owner` under this key.
    pub(crate) fn open(&self, owner: &str, sealed: &[u8]) -> Result<String> {
        let wrong_key = || {
            Error::of(
                code::STORE_CORRUPT,
                "a secret cannot be decrypted: the key is not the one of this database",
            )
            .with("access_key", owner)
        };
        let (nonce, encrypted) = sealed.split_at_checked(NONCE_LENGTH).ok_or_else(wrong_key)?;
        let payload = Payload { msg: encrypted, aad: owner.as_bytes() };
        let secret = self.0.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| wrong_key())?;
        String::from_utf8(secret).map_err(|_| wrong_key())
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_for_its_owner_under_its_key() {
        let cipher = Cipher::new(&[1; 32]);
        let sealed = cipher.seal("AKIA1", "secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_ne!(sealed, cipher.seal("AKIA1", "secret").unwrap());
        assert_eq!(cipher.open("AKIA1", &sealed).unwrap(), "secret");
        let mut damaged = sealed.clone();
        damaged[30] ^= 1;
        for (cipher, owner, sealed) in [
            (&cipher, "AKIA2", sealed.as_slice()),
            (&Cipher::new(&[2; 32]), "AKIA1", &sealed),
            (&cipher, "AKIA1", &damaged),
            (&cipher, "AKIA1", &sealed[..10]),
            (&cipher, "AKIA1", &[]),
        ] {
            assert_eq!(cipher.open(owner, sealed).unwrap_err().code(), code::STORE_CORRUPT);
        }
    }
}
