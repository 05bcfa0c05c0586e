//! `bai run` and `bai exec`: running code and showing what it says.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use bai_client::{Client, NewSession, Session};
use bai_core::execution::BatchOptions;
use bai_core::{Error, Result, error::code};

use super::files;
use crate::args;
use crate::output::Output;
use crate::progress;

/// Creates a session, runs the code or the files, and ends it with `--rm`.
pub(super) async fn run(args: args::Run, client: &Client, output: Output) -> Result<u8> {
    let new = new_session(&args.session)?;
    let session = {
        let _spinner = progress::waiting(output, "waiting for the session to start");
        client.create(new).await?
    };
    let outcome = tokio::select! {
        outcome = in_session(&args, &session, output) => outcome,
        _ = tokio::signal::ctrl_c() => session.interrupt().await.map(|()| 130),
    };
    if args.rm {
        session.destroy_forced().await?;
    }
    outcome
}

/// Runs a snippet in an existing session.
pub(super) async fn exec(args: &args::Exec, client: &Client, output: Output) -> Result<u8> {
    query(&client.session(&args.session), args.snippet(), output).await
}

async fn in_session(args: &args::Run, session: &Session, output: Output) -> Result<u8> {
    if let Some(code) = &args.code {
        return query(session, code, output).await;
    }
    files::send(session, &args.files, output).await?;
    let steps = BatchOptions {
        clean: args.clean.clone(),
        build: args.build.clone(),
        build_log: false,
        exec: Some(args.exec.clone().unwrap_or_else(|| "*".to_owned())),
    };
    let code = session.run_batch(&steps, |item| output.console(&item), ask).await?;
    Ok(exit_code(code, output))
}

async fn query(session: &Session, code: &str, output: Output) -> Result<u8> {
    let code = session.run_with(code, |item| output.console(&item), ask).await?;
    Ok(exit_code(code, output))
}

/// Exit codes of programs beyond a byte (a signal's negative number) become 1.
fn exit_code(code: i32, output: Output) -> u8 {
    output.finished(code);
    u8::try_from(code).unwrap_or(1)
}

/// Answers `input()` from the terminal; a password is not echoed back.
fn ask(is_password: bool) -> Result<String> {
    let _ = std::io::stdout().flush();
    let failed = |cause: std::io::Error| Error::of(code::CLIENT_USAGE, "cannot read the input").source(cause);
    let line = if is_password && std::io::stdin().is_terminal() {
        rpassword::read_password().map_err(failed)?
    } else {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(failed)?;
        line
    };
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The session that the arguments describe.
pub(super) fn new_session(args: &args::NewSession) -> Result<NewSession> {
    let mut new = NewSession::new(&args.image)
        .cluster_size(args.cluster_size)
        .cluster_mode(args.cluster_mode)
        .max_wait(Duration::from_secs(args.max_wait));
    if let Some(name) = &args.name {
        new = new.name(name);
    }
    if let Some(tag) = &args.tag {
        new = new.tag(tag);
    }
    if let Some(priority) = args.priority {
        new = new.priority(priority);
    }
    if let Some(group) = &args.scaling_group {
        new = new.resource_group(group);
    }
    if let Some(path) = &args.bootstrap_script {
        new = new.bootstrap_script(
            files::read_local(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?,
        );
    }
    if args.no_reuse {
        new = new.no_reuse();
    }
    new = args.resources.iter().fold(new, |new, (slot, amount)| new.resource(slot, amount));
    new = args.resource_opts.iter().fold(new, |new, (key, value)| new.resource_opt(key, value));
    Ok(args.env.iter().fold(new, |new, (key, value)| new.env(key, value)))
}
