//! The hash functions a signing method may name.

use std::fmt;

use blake2::{Blake2b512, Blake2s256};
use hmac::{Mac, SimpleHmac};
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};

macro_rules! hashes {
    ($($hash:ident $name:literal $empty:literal;)*) => {
        /// A hash function of a signing method `HMAC-<name>`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Hash { $(#[doc = concat!("`", $name, "`.")] $hash,)* }

        impl Hash {
            /// Every hash.
            pub const ALL: &[Self] = &[$(Self::$hash),*];

            /// The name in lower case.
            pub fn name(self) -> &'static str {
                match self { $(Self::$hash => $name),* }
            }

            /// The last line to sign, with the line break before it: the hash of nothing.
            pub(super) fn empty_line(self) -> &'static str {
                match self { $(Self::$hash => concat!("\n", $empty)),* }
            }

            /// The message authentication code of the concatenated parts.
            pub(super) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Digest {
                match self { $(Self::$hash => hmac::<SimpleHmac<$hash>>(key, parts)),* }
            }
        }
    };
}

type Blake2b = Blake2b512;
type Blake2s = Blake2s256;

hashes! {
    Sha1 "sha1" "da39a3ee5e6b4b0d3255bfef95601890afd80709";
    Sha224 "sha224" "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f";
    Sha256 "sha256" "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    Sha384 "sha384" "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b";
    Sha512 "sha512" "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
    Sha3_224 "sha3_224" "6b4e03423667dbb73b6e15454f0eb1abd4597f9a1b078e3f5b5a6bc7";
    Sha3_256 "sha3_256" "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a";
    Sha3_384 "sha3_384" "0c63a75b845e4f7d01107d852e4c2485c51a50aaaa94fc61995e71bbee983a2ac3713831264adb47fb6bd1e058d5f004";
    Sha3_512 "sha3_512" "a69f73cca23a9ac5c8b567dc185a756e97c982164fe25859e0d1dcc1475c80a615b2123af1f5f94c11e3e9402c3ac558f500199d95b6d3e301758586281dcd26";
    Blake2b "blake2b" "786a02f742015903c6c6fd852552d272912f4740e15847618a86e217f71f5419d25e1031afee585313896444934eb04b903a685b1448b755d56f701afe9be2ce";
    Blake2s "blake2s" "69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9";
}

impl Hash {
    /// Finds a hash by its name in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|hash| name.eq_ignore_ascii_case(hash.name()))
    }
}

fn hmac<M: Mac + hmac::digest::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Digest {
    let mut digest = Digest { bytes: [0; Digest::MAX], len: 0 };
    // HMAC takes keys of any length, so that this is always the case.
    if let Ok(mut mac) = <M as Mac>::new_from_slice(key) {
        for part in parts {
            mac.update(part);
        }
        let output = mac.finalize().into_bytes();
        digest.len = output.len();
        digest.bytes[..output.len()].copy_from_slice(&output);
    }
    digest
}

/// A message authentication code. Its text is lower-case hexadecimal.
#[derive(Clone, Copy)]
pub struct Digest {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Digest {
    const MAX: usize = 64;

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The text, without allocation.
    pub(super) fn to_hex(self) -> Hex {
        let mut hex = Hex { text: [0; 2 * Self::MAX], len: 2 * self.len };
        for (pair, byte) in hex.text.chunks_exact_mut(2).zip(self.as_bytes()) {
            pair[0] = HEX_DIGITS[usize::from(byte >> 4)];
            pair[1] = HEX_DIGITS[usize::from(byte & 15)];
        }
        hex
    }
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A digest as text.
pub(super) struct Hex {
    text: [u8; 2 * Digest::MAX],
    len: usize,
}

impl Hex {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
