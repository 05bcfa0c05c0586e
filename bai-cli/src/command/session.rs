//! Commands on sessions, images and agents.

use std::time::Duration;

use bai_client::Client;
use bai_core::{Error, Result};
use serde_json::json;

use super::run::new_session;
use crate::args;
use crate::output::Output;
use crate::progress;
use crate::view;

/// Statuses of living sessions.
const LIVING: &str =
    "PENDING,SCHEDULED,PULLING,PREPARING,RUNNING,RESTARTING,RUNNING_DEGRADED,TERMINATING,ERROR";

pub(super) async fn start(args: args::Start, client: &Client, output: Output) -> Result<()> {
    let mut new = new_session(&args.session)?;
    if let Some(command) = args.startup_command {
        new = new.batch(command);
    }
    if let Some(time) = args.starts_at {
        new = new.starts_at(time);
    }
    if let Some(limit) = args.timeout {
        new = new.batch_timeout(Duration::from_secs(limit));
    }
    if args.enqueue_only {
        new = new.enqueue_only();
    }
    new = args.depends.into_iter().fold(new, bai_client::NewSession::after);
    let created = {
        let _spinner = progress::waiting(output, "waiting for the session to start");
        client.request(new).await?
    };
    let created = created.check()?;
    let reused = if created.is_new { "" } else { " (reused)" };
    output.note(format_args!("session {} is {}{reused}", created.name, created.status));
    if output.is_json() {
        let (id, name, status, new) = (&created.id, &created.name, &created.status, created.is_new);
        output.json(&json!({ "id": id, "name": name, "status": status, "created": new }));
    } else {
        output.line(&created.id);
    }
    Ok(())
}

pub(super) async fn list(args: &args::Ps, client: &Client, output: Output) -> Result<()> {
    let rows = client.sessions(if args.all { "" } else { LIVING }, args.limit).await?;
    output.rows(&["NAME", "ID", "IMAGE", "TYPE", "STATUS", "REASON", "CREATED"], &rows, |row| {
        vec![
            row.name.clone(),
            row.id.clone(),
            row.image.clone().unwrap_or_default(),
            row.session_type.to_lowercase(),
            row.status.clone(),
            view::reason(row.status_info.as_deref(), &view::parsed(row.status_data.as_deref())),
            row.created_at.get(..19).unwrap_or(&row.created_at).replace('T', " "),
        ]
    });
    Ok(())
}

pub(super) async fn info(args: &args::One, client: &Client, output: Output) -> Result<()> {
    let info = client.session(&args.session).info().await?;
    if output.is_json() {
        output.json(&info);
    } else {
        output.fields(&view::session(&args.session, &info));
    }
    Ok(())
}

pub(super) async fn remove(args: args::Rm, client: &Client, output: Output) -> Result<u8> {
    for_each(args.many.sessions, output, async |name| {
        let session = client.session(name);
        if args.forced { session.destroy_forced().await } else { session.destroy().await }.map(drop)
    })
    .await
}

pub(super) async fn restart(args: args::Many, client: &Client, output: Output) -> Result<u8> {
    for_each(args.sessions, output, async |name| client.session(name).restart().await).await
}

/// Does the same to each session, goes on after failures, and prints the names that succeeded.
async fn for_each(
    names: Vec<String>,
    output: Output,
    mut act: impl AsyncFnMut(&str) -> Result<()>,
) -> Result<u8> {
    let mut worst: Option<Error> = None;
    let mut done = Vec::new();
    for name in &names {
        match act(name).await {
            Ok(()) if output.is_json() => done.push(name),
            Ok(()) => output.line(name),
            Err(error) => {
                output.error(&error);
                worst = Some(error);
            }
        }
    }
    if output.is_json() {
        output.json(&done);
    }
    Ok(worst.map_or(0, |error| error.kind().exit_code()))
}

pub(super) async fn logs(args: &args::One, client: &Client, output: Output) -> Result<()> {
    let logs = client.session(&args.session).logs().await?;
    if output.is_json() {
        output.json(&json!({ "logs": logs }));
    } else {
        output.text(&logs);
    }
    Ok(())
}

pub(super) async fn events(args: &args::Events, client: &Client, output: Output) -> Result<()> {
    let mut stream = match &args.session {
        Some(session) => client.session(session).events().await?,
        None => client.events().await?,
    };
    while let Some(event) = stream.next().await? {
        if output.is_json() {
            output.line(json!({ "event": event.name, "data": event.data }));
        } else {
            output.line(format_args!("{} {}", event.name, event.data));
        }
    }
    Ok(())
}

pub(super) async fn images(client: &Client, output: Output) -> Result<()> {
    let rows = client.images().await?;
    output.rows(&["IMAGE", "ALIASES", "ARCHITECTURE", "DIGEST"], &rows, |row| {
        let registry = if row.registry.is_empty() { String::new() } else { format!("{}/", row.registry) };
        let digest = row.digest.clone().unwrap_or_default();
        vec![
            format!("{registry}{}:{}", row.name, row.tag),
            row.aliases.join(", "),
            row.architecture.clone(),
            digest.get(..19).unwrap_or(&digest).to_owned(),
        ]
    });
    Ok(())
}

pub(super) async fn agents(client: &Client, output: Output) -> Result<()> {
    let rows = client.agents().await?;
    output.rows(&["AGENT", "STATUS", "GROUP", "AVAILABLE", "OCCUPIED"], &rows, |row| {
        vec![
            row.id.clone(),
            row.status.clone(),
            row.scaling_group.clone(),
            view::slots(&row.available_slots),
            view::slots(&row.occupied_slots),
        ]
    });
    Ok(())
}
