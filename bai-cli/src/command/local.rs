//! `bai serve` and `bai doctor`: what concerns this machine.

use bai::{Cluster, Runtime};
use bai_core::{Error, Result, error::code};
use tokio::net::TcpListener;

use crate::args;
use crate::connect;
use crate::output::Output;

/// Serves the manager API until SIGTERM or SIGINT. Kernels outlive the server.
pub(super) async fn serve(args: args::Serve, server: args::Server, output: Output) -> Result<u8> {
    bai_daemon::tracing_setup::init();
    let shutdown = bai_daemon::shutdown_on_signal()?;
    tokio::spawn(bai_daemon::give_back_memory());
    let dir = connect::data_dir(server.data)?;
    let listener = TcpListener::bind(args.listen).await.map_err(|cause| {
        Error::of(code::CLIENT_USAGE, "cannot listen")
            .with("address", args.listen)
            .with("reason", &cause)
            .source(cause)
    })?;
    let cluster = Cluster::embedded().data_dir(&dir).runtime(runtime(args.backend)).build().await?;
    let serving = cluster.serve(listener)?;
    cluster.write_environment(&serving.endpoint())?;
    output.line(format_args!("ready {}", serving.endpoint()));
    shutdown.cancelled().await;
    serving.stop().await;
    cluster.shutdown().await;
    Ok(0)
}

fn runtime(backend: args::Backend) -> Runtime {
    match backend {
        args::Backend::Process => connect::process_runtime(),
        args::Backend::Docker => Runtime::Docker { host: connect::variable("DOCKER_HOST") },
        args::Backend::Simulated => Runtime::Simulated,
    }
}

/// Reports what the host offers. Nothing missing is an error: it says what is worse for it.
pub(super) async fn doctor(output: Output) -> u8 {
    #[derive(serde::Serialize)]
    struct Row {
        facility: &'static str,
        ok: bool,
        found: String,
        consequence: Option<&'static str>,
    }
    let rows: Vec<Row> = bai::doctor(connect::variable("DOCKER_HOST"))
        .await
        .into_iter()
        .map(|row| Row {
            facility: row.name,
            ok: row.ok,
            found: row.found,
            consequence: (!row.ok).then_some(row.consequence),
        })
        .collect();
    output.rows(&["FACILITY", "STATE", "FOUND", "CONSEQUENCE"], &rows, |row| {
        vec![
            row.facility.to_owned(),
            if row.ok { "ok" } else { "missing" }.to_owned(),
            row.found.clone(),
            row.consequence.unwrap_or_default().to_owned(),
        ]
    });
    0
}
