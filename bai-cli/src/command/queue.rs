//! Who waits, and why.

use bai_client::Client;
use bai_core::Result;

use crate::args;
use crate::output::Output;

pub(super) async fn queue(args: &args::Queue, client: &Client, output: Output) -> Result<()> {
    let rows = client.queue(args.scaling_group.as_deref()).await?;
    output.rows(&["GROUP", "POSITION", "NAME", "PRIORITY", "WAITS SINCE", "WHY"], &rows, |row| {
        vec![
            row.resource_group.clone(),
            place(row.position),
            row.session_name.clone(),
            row.priority.to_string(),
            moment(&row.created_at),
            row.message.clone(),
        ]
    });
    Ok(())
}

pub(super) async fn explain(args: &args::One, client: &Client, output: Output) -> Result<()> {
    let explained = client.session(&args.session).explain().await?;
    if output.is_json() {
        output.json(&explained);
        return Ok(());
    }
    let mut fields = vec![("session", explained.session_name), ("status", explained.status)];
    fields.push(("resource group", explained.resource_group));
    if let Some(waiting) = &explained.waiting {
        fields.push(("position", place(waiting.position)));
        let estimate = waiting.explanation["estimate"].as_str().map(moment);
        fields.extend(estimate.map(|estimate| ("starts by", estimate)));
        let rejections = waiting.explanation["rejections"].as_array().into_iter().flatten();
        fields.extend(rejections.filter_map(|rejection| {
            let (rule, agents) = (rejection["rule"].as_str()?, rejection["agents"].as_u64()?);
            Some((
                "ruled out",
                format!("{agents} {} by {rule}", if agents == 1 { "agent" } else { "agents" }),
            ))
        }));
    }
    fields.push(("why", explained.message));
    output.fields(&fields);
    Ok(())
}

/// The place in line as people count.
fn place(position: Option<u32>) -> String {
    position.map_or_else(|| "not in line yet".to_owned(), |position| position.saturating_add(1).to_string())
}

fn moment(at: &str) -> String {
    at.get(..19).unwrap_or(at).replace('T', " ")
}
