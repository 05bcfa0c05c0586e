//! Images, and which agent has which.

use async_trait::async_trait;
use bai_core::AgentId;
use bai_core::error::Result;
use bai_core::image::Image;
use bai_core::port::ImageStore;

use crate::convert::{from_doc, to_doc};
use crate::db::args;
use crate::dialect::statements;
use crate::store::Store;

statements! {
    CLEAR = "DELETE FROM agent_images WHERE agent_id = $1";
    LINK = "INSERT INTO agent_images (agent_id, name, architecture) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    PUT = "INSERT INTO images (name, architecture, doc) VALUES ($1, $2, $3)
           ON CONFLICT (name, architecture) DO UPDATE SET doc = excluded.doc";
    SWEEP = "DELETE FROM images WHERE NOT EXISTS (SELECT 1 FROM agent_images link
             WHERE link.name = images.name AND link.architecture = images.architecture)";
    LIST = "SELECT doc, name FROM images ORDER BY name, architecture";
    AGENTS_WITH = "SELECT DISTINCT agent_id FROM agent_images WHERE name = $1 ORDER BY agent_id";
}

#[async_trait]
impl ImageStore for Store {
    async fn put_agent_images(&self, agent: &AgentId, images: &[Image]) -> Result<()> {
        let mut sorted: Vec<_> = images.iter().collect();
        sorted.sort_by_key(|image| (&image.name, &image.architecture)); // one order for all agents: no deadlocks
        let mut tx = self.db().begin().await?;
        tx.execute(CLEAR, &args![agent.as_str()]).await?;
        for image in sorted {
            tx.execute(PUT, &args![&image.name, &image.architecture, to_doc(image)?]).await?;
            tx.execute(LINK, &args![agent.as_str(), &image.name, &image.architecture]).await?;
        }
        tx.execute(SWEEP, &[]).await?;
        tx.commit().await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        let rows = self.db().rows(LIST, &[]).await?;
        rows.iter().map(|row| from_doc(&row.text(0)?, "image", &row.text(1)?)).collect()
    }

    async fn agents_with(&self, name: &str) -> Result<Vec<AgentId>> {
        let rows = self.db().rows(AGENTS_WITH, &args![name]).await?;
        rows.iter().map(|row| row.text(0).map(AgentId::new)).collect()
    }
}
