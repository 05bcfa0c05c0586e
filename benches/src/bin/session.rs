//! A session on the process back end: start, execute, output; each over HTTP and, for the start, in process too.
#![allow(missing_docs)]

use std::process::Command;
use std::time::Instant;

use bai::{BatchOptions, Client, Cluster, ConsoleItem, NewSession, Result, Runtime, Session};
use bai_benches::{failed, header, median_ms, print, time};

#[global_allocator]
static ALLOCATOR: bai_benches::Allocator = bai_benches::Allocator;

const STARTS: usize = 30;
const EXECUTES: usize = 300;
const OUTPUT_BYTES: usize = 50_000_000;

#[tokio::main]
async fn main() -> Result<()> {
    header();
    let runtime = Runtime::Process { path: std::env::var("PATH").ok() };
    let cluster = Cluster::embedded().runtime(runtime).cpu_overcommit(10).build().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let server = cluster.serve(listener)?;
    let over_http = Client::connect(&server.endpoint(), cluster.credentials().clone())?;
    // RUNNING means that the runner answers; the interpreter starts behind it. So the start is held against the bare start of a
    // process, and the start up to the first output against the bare interpreter.
    let process = bare("true", &[])?;
    print(
        "start, in process",
        starts(&cluster.client(), None).await?,
        "ms",
        Some(process),
        Some(25.0),
        false,
    );
    print("start, over HTTP", starts(&over_http, None).await?, "ms", Some(process), Some(40.0), false);
    let interpreter = bare(&interpreter()?, &["-c", "print(1)"])?;
    let first_output = starts(&over_http, Some("print(1)")).await?;
    print("start to first output, over HTTP", first_output, "ms", Some(interpreter), None, false);
    let session = over_http.create(NewSession::new("python")).await?;
    print("execute 1+1, over HTTP", executes(&session).await?, "ms", None, Some(2.0), false);
    print("50 MB of output, over HTTP", output(&session).await?, "MB/s", None, Some(100.0), true);
    session.destroy().await?;
    server.stop().await;
    cluster.shutdown().await;
    Ok(())
}

/// The interpreter itself: what `python3` leads to may be a wrapper script that takes longer than the interpreter.
fn interpreter() -> Result<String> {
    let output =
        Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Median time, in milliseconds, from the start of a program without any isolation to its end.
fn bare(program: &str, args: &[&str]) -> Result<f64> {
    let mut all = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let start = Instant::now();
        Command::new(program).args(args).output().map_err(failed)?;
        all.push(start.elapsed());
    }
    all.sort_unstable();
    Ok(median_ms(&all))
}

/// Creates and destroys sessions one after another; the creation counts, and with `code` the first run too.
async fn starts(client: &Client, code: Option<&str>) -> Result<f64> {
    let mut all = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let start = Instant::now();
        let session = client.create(NewSession::new("python")).await?;
        if let Some(code) = code {
            session.run(code).await?;
        }
        all.push(start.elapsed());
        session.destroy().await?;
    }
    all.sort_unstable();
    Ok(median_ms(&all))
}

async fn executes(session: &Session) -> Result<f64> {
    session.run("1+1").await?; // the interpreter is up from here on
    let sorted = time(EXECUTES, async |_| session.run("1+1").await.map(drop)).await?;
    Ok(median_ms(&sorted))
}

/// Megabytes per second from a program's standard output to the client, which counts them.
async fn output(session: &Session) -> Result<f64> {
    let program =
        format!("python -c \"import sys; sys.stdout.write(('x' * 99 + chr(10)) * {})\"", OUTPUT_BYTES / 100);
    let steps = BatchOptions { exec: Some(program), ..BatchOptions::default() };
    let mut bytes = 0;
    let count = |item| {
        if let ConsoleItem::Stdout(text) = item {
            bytes += text.len();
        }
    };
    let start = Instant::now();
    session.run_batch(&steps, count, |_| Ok(String::new())).await?;
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(bytes, OUTPUT_BYTES, "output was lost");
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(bytes as f64 / 1e6 / seconds)
}
