//! Agents.

use async_trait::async_trait;
use bai_core::AgentId;
use bai_core::clock::from_micros;
use bai_core::error::{Error, Result, code};
use bai_core::port::AgentStore;
use bai_core::port::store::Agent;

use crate::convert::{from_doc, micros, to_doc};
use crate::db::{Row, args};
use crate::dialect::statements;
use crate::store::Store;

statements! {
    PUT = "INSERT INTO agents (id, schedulable, first_contact, capacity, doc) VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (id) DO UPDATE SET capacity = excluded.capacity, doc = excluded.doc";
    LIST = "SELECT id, schedulable, first_contact, doc FROM agents ORDER BY id";
    SET_SCHEDULABLE = "UPDATE agents SET schedulable = $2 WHERE id = $1";
}

#[async_trait]
impl AgentStore for Store {
    async fn put_agent(&self, row: &Agent) -> Result<()> {
        let (capacity, doc) = (to_doc(&row.capacity)?, to_doc(row)?);
        let args = args![row.id.as_str(), row.schedulable, micros(row.first_contact), capacity, doc];
        self.db().execute(PUT, &args).await?;
        Ok(())
    }

    async fn agents(&self) -> Result<Vec<Agent>> {
        self.db().rows(LIST, &[]).await?.iter().map(agent).collect()
    }

    async fn set_schedulable(&self, id: &AgentId, schedulable: bool) -> Result<()> {
        match self.db().execute(SET_SCHEDULABLE, &args![id.as_str(), schedulable]).await? {
            0 => Err(Error::of(code::AGENT_NOT_FOUND, "no such agent").with("agent", id)),
            _ => Ok(()),
        }
    }
}

fn agent(row: &Row) -> Result<Agent> {
    let mut agent: Agent = from_doc(&row.text(3)?, "agent", &row.text(0)?)?;
    agent.schedulable = row.bool(1)?;
    agent.first_contact = from_micros(row.int(2)?);
    Ok(agent)
}
