//! Leases: a key that lives as long as its etcd lease. The revision that created it is the fencing token.

use std::time::Duration;

use async_trait::async_trait;
use bai_core::error::{Error, ErrorKind, Result, code};
use bai_core::port::Lease;
use bai_core::port::lease::Grant;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Etcd;
use super::api::{KeyRange, encode, number};

#[derive(Debug, Deserialize)]
struct GrantReply {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Debug, Deserialize)]
struct KeepAliveReply {
    result: KeptAlive,
}

#[derive(Debug, Deserialize)]
struct KeptAlive {
    /// Seconds left; 0 when the lease has ended.
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    ttl: i64,
}

#[async_trait]
impl Lease for Etcd {
    async fn try_acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Grant>> {
        if self.holder(name).await?.is_some() {
            return Ok(None); // spares the server a lease in the common case
        }
        let seconds = ttl.as_millis().div_ceil(1000).max(1);
        let granted: GrantReply =
            self.api.call("/v3/lease/grant", &json!({ "TTL": seconds.to_string() })).await?;
        let key = encode(&self.lease_key(name));
        let absent = json!({ "key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0" });
        let put = json!({ "key": key, "value": encode(holder), "lease": granted.id });
        match self.put_if(absent, put).await {
            Ok((true, revision)) => {
                let token = u64::try_from(revision).unwrap_or(0);
                Ok(Some(Grant { name: name.to_owned(), token, id: granted.id }))
            }
            lost => {
                self.revoke(&granted.id).await?;
                lost.map(|_| None)
            }
        }
    }

    async fn renew(&self, grant: &Grant) -> Result<()> {
        let kept: KeepAliveReply = self.api.call("/v3/lease/keepalive", &json!({ "ID": grant.id })).await?;
        if kept.result.ttl == 0 {
            return Err(Error::of(code::LEASE_LOST, "the lease has ended").with("name", &grant.name));
        }
        Ok(())
    }

    async fn release(&self, grant: &Grant) -> Result<()> {
        self.revoke(&grant.id).await
    }

    async fn holder(&self, name: &str) -> Result<Option<String>> {
        let found = self.range(KeyRange::only(&self.lease_key(name))).await?.pop();
        Ok(found.map(|entry| entry.value))
    }
}

impl Etcd {
    fn lease_key(&self, name: &str) -> String {
        format!("{}lease/{name}", self.prefix)
    }

    /// Ends an etcd lease, and with it the key. One that has ended is fine.
    async fn revoke(&self, id: &str) -> Result<()> {
        match self.api.call::<Value>("/v3/lease/revoke", &json!({ "ID": id })).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }
}
