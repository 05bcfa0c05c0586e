//! What makes the kernels of a session a cluster: a network's name, host names and a key pair (spec agent.md, sections 6 to 8).
//!
//! The key pair is nowhere stored. It follows from the secret of the cluster and the id of the session, so that every manager
//! gives the same one, at a restart too.

use bai_core::error::code;
use bai_core::port::cluster::{ClusterNetwork, ClusterSpec, SshKeypair};
use bai_core::status::ClusterMode;
use bai_core::{Error, Result, Secret, Session, SessionId};
use hmac::{Hmac, Mac};
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::Sha256;
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::Ed25519PublicKey;
use ssh_key::{LineEnding, PrivateKey};

/// What the secret of the cluster is used for here; other uses have other texts.
const PURPOSE: &[u8] = b"bai ssh key of a session 1";

/// What each kernel of the session is told; `None` for a session of one kernel.
///
/// # Errors
/// `Internal` when the key pair cannot be made.
pub(super) fn cluster_spec(session: &Session, secret: &Secret<[u8; 32]>) -> Result<Option<ClusterSpec>> {
    if session.kernels.len() < 2 {
        return Ok(None);
    }
    let network = ClusterNetwork {
        mode: session.cluster_mode,
        name: network_name(session.cluster_mode, session.id),
        hosts: session.kernels.iter().map(|kernel| kernel.hostname.clone()).collect(),
    };
    Ok(Some(ClusterSpec { network, ssh: ssh_keypair(session.id, secret)? }))
}

fn network_name(mode: ClusterMode, session: SessionId) -> String {
    match mode {
        ClusterMode::SingleNode => format!("bai-singlenode-{session}"),
        ClusterMode::MultiNode => format!("bai-multinode-{session}"),
    }
}

fn ssh_keypair(session: SessionId, secret: &Secret<[u8; 32]>) -> Result<SshKeypair> {
    let seed = seed(session, secret)?;
    let keys = Ed25519KeyPair::from_seed_unchecked(seed.reveal()).map_err(failed)?;
    let public = Ed25519PublicKey::try_from(keys.public_key().as_ref()).map_err(failed)?;
    let keys = Ed25519Keypair { public, private: Ed25519PrivateKey::from_bytes(seed.reveal()) };
    let key = PrivateKey::new(KeypairData::Ed25519(keys), format!("session {session}")).map_err(failed)?;
    let private_key = key.to_openssh(LineEnding::LF).map_err(failed)?.to_string();
    let public_key = key.public_key().to_openssh().map_err(failed)?;
    Ok(SshKeypair { private_key: Secret::new(private_key), public_key })
}

fn seed(session: SessionId, secret: &Secret<[u8; 32]>) -> Result<Secret<[u8; 32]>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal()).map_err(failed)?;
    mac.update(PURPOSE);
    mac.update(session.to_string().as_bytes());
    Ok(Secret::new(mac.finalize().into_bytes().into()))
}

/// Never with the cause's own words: they might name the key.
fn failed<E>(_: E) -> Error {
    Error::of(code::INTERNAL, "the key pair of the session cannot be made")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn keys(session: SessionId, secret: [u8; 32]) -> SshKeypair {
        ssh_keypair(session, &Secret::new(secret)).unwrap()
    }

    #[test]
    fn a_session_has_one_pair_of_its_own() {
        let (one, other) = (SessionId::random(), SessionId::random());
        assert_eq!(keys(one, SECRET), keys(one, SECRET));
        assert_ne!(keys(one, SECRET).public_key, keys(other, SECRET).public_key);
        assert_ne!(keys(one, SECRET).public_key, keys(one, [8; 32]).public_key);
    }

    /// Released managers have given out such keys: a restart with the next one must find the same.
    #[test]
    fn the_derivation_never_changes() {
        let session: SessionId = "0b5ad5f4-1c4e-4b7a-9d5c-3d1f0a2b4c6d".parse().unwrap();
        let public = keys(session, SECRET).public_key;
        let expected =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP2lR5AUUwSjpi3ClTo48ppEj7fxIZTsXeEbJ60aYM/h session ";
        assert_eq!(public, format!("{expected}{session}"));
    }

    #[test]
    fn the_texts_are_those_of_openssh() {
        let pair = keys(SessionId::random(), SECRET);
        let text = pair.private_key.reveal();
        assert!(text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "{text}");
        assert!(text.ends_with("-----END OPENSSH PRIVATE KEY-----\n"), "{text}");
        let read = PrivateKey::from_openssh(text).unwrap();
        assert_eq!(read.public_key().to_openssh().unwrap(), pair.public_key);
        assert!(!format!("{pair:?}").contains("OPENSSH"));
    }
}
