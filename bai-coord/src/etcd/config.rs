//! Shared configuration: keys of etcd below our prefix.

use async_trait::async_trait;
use bai_core::error::{Error, Result, code};
use bai_core::port::ConfigStore;
use bai_core::port::config::{ConfigChange, ConfigEntry};
use futures_util::stream::BoxStream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Header, KeyRange, KeyValue, encode, number};
use super::{Etcd, watch};

#[derive(Debug, Deserialize)]
struct RangeReply {
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Debug, Deserialize)]
struct PutReply {
    header: Header,
}

#[derive(Debug, Deserialize)]
struct TxnReply {
    header: Header,
    #[serde(default)]
    succeeded: bool,
}

#[derive(Debug, Deserialize)]
struct DeleteReply {
    #[serde(default, deserialize_with = "number")]
    deleted: i64,
}

#[async_trait]
impl ConfigStore for Etcd {
    async fn get(&self, key: &str) -> Result<Option<ConfigEntry>> {
        let found = self.range(KeyRange::only(&self.config_key(key))).await?.pop();
        Ok(found.map(|entry| self.entry(entry)))
    }

    async fn get_prefix(&self, prefix: &str) -> Result<Vec<ConfigEntry>> {
        let found = self.range(self.config_range(prefix)).await?; // etcd orders by key
        Ok(found.into_iter().map(|entry| self.entry(entry)).collect())
    }

    async fn put(&self, key: &str, value: &str) -> Result<i64> {
        let reply: PutReply = self.api.call("/v3/kv/put", &put_request(&self.config_key(key), value)).await?;
        Ok(reply.header.revision)
    }

    async fn compare_and_put(&self, key: &str, expected: i64, value: &str) -> Result<i64> {
        let full_key = self.config_key(key);
        let compare = json!({ "key": encode(&full_key), "target": "MOD", "result": "EQUAL",
                              "mod_revision": expected.to_string() });
        let (succeeded, revision) = self.put_if(compare, put_request(&full_key, value)).await?;
        if !succeeded {
            return Err(Error::of(code::CONFLICT, "the key has been changed by someone else")
                .with("key", key)
                .with("expected", expected));
        }
        Ok(revision)
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.delete_range(KeyRange::only(&self.config_key(key))).await? > 0)
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<u64> {
        self.delete_range(self.config_range(prefix)).await
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Result<ConfigChange>>> {
        watch::watch(self.clone(), self.config_range(prefix)).await
    }
}

impl Etcd {
    pub(super) fn config_key(&self, key: &str) -> String {
        format!("{}config/{key}", self.prefix)
    }

    fn config_range(&self, prefix: &str) -> KeyRange {
        KeyRange::below(&self.config_key(prefix))
    }

    /// An entry under the key that callers know.
    pub(super) fn entry(&self, found: KeyValue) -> ConfigEntry {
        ConfigEntry { key: self.own_key(&found.key), value: found.value, revision: found.mod_revision }
    }

    pub(super) fn own_key(&self, full_key: &str) -> String {
        full_key.strip_prefix(&self.config_key("")).unwrap_or(full_key).to_owned()
    }

    pub(super) async fn range(&self, range: KeyRange) -> Result<Vec<KeyValue>> {
        let reply: RangeReply = self.api.call("/v3/kv/range", &range.request()).await?;
        Ok(reply.kvs)
    }

    async fn delete_range(&self, range: KeyRange) -> Result<u64> {
        let reply: DeleteReply = self.api.call("/v3/kv/deleterange", &range.request()).await?;
        Ok(u64::try_from(reply.deleted).unwrap_or(0))
    }

    /// Puts a key if a condition holds; whether it did, and the revision of the cluster after that.
    pub(super) async fn put_if(&self, compare: Value, put: Value) -> Result<(bool, i64)> {
        let request = json!({ "compare": [compare], "success": [{ "request_put": put }] });
        let reply: TxnReply = self.api.call("/v3/kv/txn", &request).await?;
        Ok((reply.succeeded, reply.header.revision))
    }
}

fn put_request(full_key: &str, value: &str) -> Value {
    json!({ "key": encode(full_key), "value": encode(value) })
}
