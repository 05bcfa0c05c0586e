//! Recorded and documented signatures, and every way to be refused.

use chrono::TimeDelta;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::Timestamp;
use crate::error::{Error, code};

const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const DATE: &str = "2024-02-29T12:34:56.789012+00:00";
const VERSION: VersionHeader<'_> = VersionHeader::BackendAi("v7.20230615");

const V1: RequestToSign<'_> = RequestToSign {
    method: "GET",
    target: "/session/_/match?id=abc",
    host: "127.0.0.1:8081",
    date: DATE,
    content_type: "text/plain",
    version: VERSION,
};

const V2: RequestToSign<'_> = RequestToSign {
    method: "POST",
    target: "/session",
    host: "api.example.com",
    content_type: "application/json",
    ..V1
};

fn instant(text: &str) -> Timestamp {
    parse_date(text).unwrap().to_utc()
}

fn headers(authorization: &str) -> RequestHeaders<'_> {
    RequestHeaders {
        authorization: Some(authorization),
        date: Some(V1.date),
        host: Some(V1.host),
        content_type: Some(V1.content_type),
        backendai_version: Some(VERSION.value()),
        ..RequestHeaders::default()
    }
}

#[test]
fn vectors_of_the_client() {
    let date = "2024-02-29T12:34:56+00:00";
    let v3 = RequestToSign {
        target: "/stream/session/my%20sess/pty",
        date,
        content_type: DEFAULT_MEDIA_TYPE,
        ..V1
    };
    let v4 = RequestToSign {
        method: "POST",
        target: "/session/mysess/upload",
        date,
        content_type: "multipart/form-data",
        ..V1
    };
    for (request, hash, signature) in [
        (V1, Hash::Sha256, "482218311d0614a6c25bebea044343e90dfa58d0b801217b0f695408a6f5b494"),
        (V2, Hash::Sha256, "86d209b2474ec4e3da5e3cb0f9461ffbb8a13d88c754cbfaacb2f8bf63b6d8c3"),
        (v3, Hash::Sha256, "a08f1174df0b5d1f64d4f4bce8862fc0c4132fa0423194eca6ff4d15fe0a2bcc"),
        (v4, Hash::Sha1, "3748e5dabab2d3d2b004a6bb19d7262da78a3aaf"),
    ] {
        assert_eq!(request.sign(hash, SECRET_KEY).unwrap().to_string(), signature, "{request:?}");
    }
}

#[test]
fn worked_intermediates() {
    let day = *b"20240229";
    let key1 = Hash::Sha256.hmac(SECRET_KEY.as_bytes(), &[&day]);
    assert_eq!(key1.to_string(), "0ae98f188c4b5e8ed37f4be7d31564cbaab1e906b224c0034357838d58591f4c");
    for (request, key2) in [
        (V1, "40c6e31ee00fa923577ecdf61e0aa905243b7c7fd117bb21dda2770b982b9eff"),
        (V2, "e6e6ff795335364a093f3d8119e044bad108c42116d5b4225fea2b51d6ea5bf4"),
    ] {
        assert_eq!(signing_key(Hash::Sha256, SECRET_KEY, day, request.host).to_string(), key2);
    }
    assert_eq!(
        V1.string_to_sign(Hash::Sha256).concat(),
        "GET\n/session/_/match?id=abc\n2024-02-29T12:34:56.789012+00:00\nhost:127.0.0.1:8081\n\
         content-type:text/plain\nx-backendai-version:v7.20230615\n\
         e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
}

/// The first row is the published example. The other two show what its later edition really gives; they were
/// computed with another implementation.
#[test]
fn documented_example() {
    let example = RequestToSign {
        method: "GET",
        target: "/v1",
        host: "your.sorna.api.endpoint",
        date: "20160930T01:23:45Z",
        content_type: "application/json",
        version: VersionHeader::Sorna("v1.20160915"),
    };
    let key1 = Hash::Sha256.hmac(SECRET_KEY.as_bytes(), &[b"20160930"]);
    assert_eq!(key1.to_string(), "d763f1aae3aab277148c807c4e3bc69ab6518625a8c0c70b51d5c6e3af3f6913");
    let key2 = signing_key(Hash::Sha256, SECRET_KEY, *b"20160930", example.host);
    assert_eq!(key2.to_string(), "3802e2dbb130fcb43b78d7dea6ae36738b8bd90ef910d8fa0a0faec162d30492");
    for (target, version, signature) in [
        (
            "/v1",
            VersionHeader::Sorna("v1.20160915"),
            "022ae894b4ecce097bea6eca9a97c41cd17e8aff545800cd696112cc387059cf",
        ),
        (
            "/v2",
            VersionHeader::Sorna("v2.20170215"),
            "ca177162e332893e70743f6612ffe2cfad8b1a036bcfddf4a83f4897459be757",
        ),
        (
            "/v2",
            VersionHeader::BackendAi("v2.20170215"),
            "9a44c7b7ee1082109ab93d7079ccbd3b4e0f351435e8fcd24418ae31bd9b793e",
        ),
    ] {
        let request = RequestToSign { target, version, ..example };
        assert_eq!(request.sign(Hash::Sha256, SECRET_KEY).unwrap().to_string(), signature, "{target}");
    }
}

#[derive(Deserialize)]
struct Recorded {
    method: String,
    target: String,
    host: String,
    content_type: String,
    date: String,
    version: String,
    hash: String,
    access_key: String,
    secret_key: String,
    signature: String,
}

#[test]
fn recorded_requests_of_the_real_clients() {
    let all: Vec<Recorded> =
        serde_json::from_str(include_str!("../../testdata/signing-wire-vectors.json")).unwrap();
    assert_eq!(all.len(), 26);
    for r in all {
        let authorization = format!(
            "BackendAI signMethod=HMAC-{}, credential={}:{}",
            r.hash.to_uppercase(),
            r.access_key,
            r.signature
        );
        let headers = RequestHeaders {
            authorization: Some(&authorization),
            date: Some(&r.date),
            host: Some(&r.host),
            content_type: Some(&r.content_type),
            backendai_version: Some(&r.version),
            ..RequestHeaders::default()
        };
        let presented = Presented::parse(&headers, instant(&r.date)).unwrap().unwrap();
        assert_eq!(presented.access_key(), r.access_key);
        presented.verify(&r.method, &r.target, &r.secret_key).unwrap();
        // Nothing that is signed can be changed.
        let other_day = instant(&r.date) + TimeDelta::days(1);
        assert_eq!(Presented::parse(&headers, other_day).unwrap_err(), AuthFailure::DateOutOfSync);
        for (method, target, secret) in [
            ("PATCH", r.target.as_str(), r.secret_key.as_str()),
            (&r.method, "/other", &r.secret_key),
            (&r.method, &r.target, "other"),
        ] {
            assert_eq!(presented.verify(method, target, secret), Err(AuthFailure::SignatureMismatch));
        }
        for changed in [
            RequestHeaders { host: Some("other"), ..headers },
            RequestHeaders { content_type: Some("text/html"), ..headers },
            RequestHeaders { backendai_version: Some("v6.20220615"), ..headers },
            RequestHeaders { backendai_version: None, sorna_version: Some(&r.version), ..headers },
        ] {
            let presented = Presented::parse(&changed, instant(&r.date)).unwrap().unwrap();
            assert!(presented.verify(&r.method, &r.target, &r.secret_key).is_err());
        }
    }
}

/// Computed with another implementation, with a key longer than any block.
#[test]
fn every_hash_agrees_with_another_implementation() {
    let key = b"key".repeat(60);
    for (name, mac) in [
        ("sha1", "f911dc3552af089d3bc424406a418c19eac2d3b5"),
        ("sha224", "dfc4963573d32f56d39338479d786805ea955045682b88707187dcb2"),
        ("sha256", "5712730a8dfe9b150c87d7abe71fd3a8b04d5b7b6c36c45a7cf9dd902ac7ca9f"),
        (
            "sha384",
            "2634343966ec448c115267654463682ed8aa3e1f78b51374f7c6e052a45f870e09c6e10ed762d010714fe174b1c8a6f8",
        ),
        (
            "sha512",
            "6e6f39e7272a11bd63700fe5f18eddc079d659cee8014577a92b73a66f54ef76490692ef7aa237a171e33cf77c49863f40f5d298f165f2c250d34a8d33c93fd0",
        ),
        ("sha3_224", "a0647ef8cfbec2f534624bb3128ddf21ec921b02a9eab90764857c84"),
        ("sha3_256", "1997338f2429917321b0db292d0150aaf90ad865ade09ddb396a20b06990b85e"),
        (
            "sha3_384",
            "2ec2813dfcb28e38b84c20ea647a37c1e5093707969e2c4dd16c669b305695535d31abc162cab2cef9ff9e2647bf67f1",
        ),
        (
            "sha3_512",
            "25be2253c895c4ecefe3cbed0fbf108e18fa67ca899e166e3b7ee660d099ffa94e66c6160e8c66d56220d2d7dcffbd1dcddaa38a530f3dde3806a66232addd9e",
        ),
        (
            "blake2b",
            "7e98d1dbb97a089b16ea6ffeffda970d8aa244e184d41f6b539e381c66c5f89f2fe350d8469b14dcee7cb6b2391693305ebec9fd0a1d82e1e9e4d51b9ee5a2f8",
        ),
        ("blake2s", "c91d3f5d68af1dbdc2646eeaf13fd996c1b1b81b5d8e48ddb746713b24060425"),
    ] {
        let hash = Hash::from_name(&name.to_uppercase()).unwrap();
        assert_eq!(hash.hmac(&key, &[b"The quick ", b"brown fox"]).to_string(), mac, "{name}");
        assert_eq!(
            std::str::from_utf8(hash.hmac(&key, &[]).to_hex().as_bytes()).unwrap(),
            hash.hmac(&key, &[]).to_string()
        );
    }
}

#[test]
fn empty_lines_are_the_hash_of_nothing() {
    use sha2::Digest as _;
    for (hash, empty) in [
        (Hash::Sha1, sha1::Sha1::digest(b"").to_vec()),
        (Hash::Sha224, sha2::Sha224::digest(b"").to_vec()),
        (Hash::Sha256, sha2::Sha256::digest(b"").to_vec()),
        (Hash::Sha384, sha2::Sha384::digest(b"").to_vec()),
        (Hash::Sha512, sha2::Sha512::digest(b"").to_vec()),
        (Hash::Sha3_224, sha3::Sha3_224::digest(b"").to_vec()),
        (Hash::Sha3_256, sha3::Sha3_256::digest(b"").to_vec()),
        (Hash::Sha3_384, sha3::Sha3_384::digest(b"").to_vec()),
        (Hash::Sha3_512, sha3::Sha3_512::digest(b"").to_vec()),
        (Hash::Blake2b, blake2::Blake2b512::digest(b"").to_vec()),
        (Hash::Blake2s, blake2::Blake2s256::digest(b"").to_vec()),
    ] {
        assert_eq!(hash.empty_line(), format!("\n{}", hex::encode(empty)), "{hash:?}");
    }
}

#[test]
fn every_refusal_of_the_headers() {
    use AuthFailure as F;
    let now = instant(DATE);
    for (authorization, failure, is_bad_request) in [
        ("BackendAI", F::MalformedHeader, true),
        ("backendai signMethod=HMAC-SHA256, credential=a:b", F::InvalidType, true),
        ("Bearer abc", F::InvalidType, true),
        ("BackendAI ", F::MalformedParameters, true),
        ("BackendAI signMethod", F::MalformedParameters, true),
        ("BackendAI signMethod=HMAC-SHA256", F::MalformedParameters, true),
        ("BackendAI credential=a:b", F::MalformedParameters, true),
        ("BackendAI signMethod=HMAC-SHA256, credential=ab", F::MalformedParameters, true),
        ("BackendAI signMethod=HMAC-SHA256, credential=a:b, junk", F::MalformedParameters, true),
        ("BackendAI signMethod=RSA-SHA256, credential=a:b", F::UnsupportedMac, true),
        ("BackendAI signMethod=HMAC-CRC32, credential=a:b", F::UnsupportedHash, true),
        ("BackendAI signMethod=HMACSHA256, credential=a:b", F::InvalidSignature, false),
        ("BackendAI signMethod=HMAC-SHA-256, credential=a:b", F::InvalidSignature, false),
    ] {
        let found = Presented::parse(&headers(authorization), now).unwrap_err();
        assert_eq!(found, failure, "{authorization}");
        let error = Error::from(found);
        assert_eq!(error.code() == code::INVALID_AUTH, is_bad_request, "{authorization}");
        assert_eq!(error.code().problem().status(), if is_bad_request { 400 } else { 401 });
        assert_eq!(error.to_string(), found.to_string());
    }
    let signed = V1.authorization(ACCESS_KEY, SECRET_KEY).unwrap();
    let no_version = RequestHeaders { backendai_version: None, ..headers(&signed) };
    assert_eq!(Presented::parse(&no_version, now).unwrap_err(), F::VersionMissing);
    let address = F::AddressNotAllowed("10.0.0.1".parse().unwrap());
    assert_eq!(address.to_string(), "'10.0.0.1' is not allowed IP address");
    for failure in [F::Unauthorized, F::AccessKeyNotFound, F::SignatureMismatch, address] {
        assert_eq!(failure.code().problem().status(), 401);
    }
}

#[test]
fn accepted_spellings() {
    let now = instant(DATE);
    let signature = V1.sign(Hash::Sha256, SECRET_KEY).unwrap().to_string();
    for authorization in [
        format!("BackendAI signMethod=HMAC-SHA256, credential={ACCESS_KEY}:{signature}"),
        format!("Sorna signMethod=hmac-sha256,credential={ACCESS_KEY}:{signature}"),
        format!("BackendAI  credential = {ACCESS_KEY}:{signature} ,  extra=1, signMethod = Hmac-Sha256 "),
    ] {
        for content_type in ["text/plain", "Text/Plain; charset=utf-8", " text/plain ;x"] {
            let headers = RequestHeaders { content_type: Some(content_type), ..headers(&authorization) };
            let presented = Presented::parse(&headers, now).unwrap().unwrap();
            assert_eq!(
                presented.verify("GET", V1.target, SECRET_KEY),
                Ok(()),
                "{authorization} {content_type}"
            );
        }
    }
    let upper =
        format!("BackendAI signMethod=HMAC-SHA256, credential={ACCESS_KEY}:{}", signature.to_uppercase());
    let presented = Presented::parse(&headers(&upper), now).unwrap().unwrap();
    assert_eq!(presented.verify("GET", V1.target, SECRET_KEY), Err(AuthFailure::SignatureMismatch));
    assert_eq!(media_type(None), DEFAULT_MEDIA_TYPE);
    assert_eq!(media_type(Some("")), DEFAULT_MEDIA_TYPE);
    assert_eq!(media_type(Some("multipart/form-data; boundary=x")), "multipart/form-data");
}

#[test]
fn date_headers_and_the_clock() {
    let now = instant(DATE);
    let signed = V1.authorization(ACCESS_KEY, SECRET_KEY).unwrap();
    let ok = headers(&signed);
    for fallback in [
        RequestHeaders { date: None, backendai_date: Some(DATE), ..ok },
        RequestHeaders { date: Some(""), backendai_date: Some(DATE), ..ok },
        RequestHeaders { date: None, backendai_date: Some(""), sorna_date: Some(DATE), ..ok },
        RequestHeaders { backendai_date: Some("junk"), ..ok },
    ] {
        let presented = Presented::parse(&fallback, now).unwrap().unwrap();
        assert_eq!(presented.verify("GET", V1.target, SECRET_KEY), Ok(()));
    }
    // The date is checked first, and for anonymous requests as well.
    for bad in [
        RequestHeaders { date: None, ..ok },
        RequestHeaders { date: Some("yesterday"), ..ok },
        RequestHeaders { date: Some("junk"), backendai_date: Some(DATE), ..ok },
        RequestHeaders { date: None, authorization: Some("junk"), ..ok },
        RequestHeaders::default(),
    ] {
        assert_eq!(Presented::parse(&bad, now).unwrap_err(), AuthFailure::DateOutOfSync, "{bad:?}");
    }
    for authorization in [None, Some("")] {
        assert!(Presented::parse(&RequestHeaders { authorization, ..ok }, now).unwrap().is_none());
    }
    let edge = CLOCK_TOLERANCE;
    let inside = edge - TimeDelta::microseconds(1);
    for (offset, is_accepted) in [(edge, false), (-edge, false), (inside, true), (-inside, true)] {
        assert_eq!(Presented::parse(&ok, now + offset).is_ok(), is_accepted, "{offset}");
    }
}

#[test]
fn the_day_of_the_key_is_that_of_the_offset() {
    let seoul = RequestToSign { date: "2024-03-01T00:30:00+09:00", ..V1 };
    let by_hand = |day| {
        let key = signing_key(Hash::Sha256, SECRET_KEY, day, seoul.host);
        Hash::Sha256
            .hmac(key.as_bytes(), &[seoul.string_to_sign(Hash::Sha256).concat().as_bytes()])
            .to_string()
    };
    let signature = seoul.sign(Hash::Sha256, SECRET_KEY).unwrap().to_string();
    assert_eq!(signature, by_hand(*b"20240301"));
    assert_ne!(signature, by_hand(*b"20240229"));
}

proptest! {
    #[test]
    fn hostile_headers_never_panic(authorization in "(BackendAI )?\\PC{0,60}", date in "\\PC{0,30}", other in "\\PC{0,20}") {
        let headers = RequestHeaders { date: Some(&date), content_type: Some(&other), ..headers(&authorization) };
        let _ = Presented::parse(&headers, instant(DATE));
        let headers = RequestHeaders { date: Some(DATE), ..headers };
        let _ = Presented::parse(&headers, instant(DATE)).map(|p| p.map(|p| p.verify("GET", &other, "secret")));
    }

    #[test]
    fn every_hash_verifies_its_own_signature(index in 0..Hash::ALL.len(), target in "/[!-~]{0,40}", secret in "\\PC{0,200}") {
        let request = RequestToSign { target: &target, ..V1 };
        let authorization = request.authorization_with(Hash::ALL[index], ACCESS_KEY, &secret).unwrap();
        let presented = Presented::parse(&headers(&authorization), instant(DATE)).unwrap().unwrap();
        prop_assert_eq!(presented.hash(), Hash::ALL[index]);
        prop_assert_eq!(presented.verify("GET", &target, &secret), Ok(()));
        let other = secret + "x";
        prop_assert!(presented.verify("GET", &target, &other).is_err());
    }
}
