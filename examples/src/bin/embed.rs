//! Embeds a cluster, runs snippets that share their state, uploads a file and runs it in batch.
//!
//! ```sh
//! cargo run -p bai-examples --bin embed             # in this process
//! source DIR/env.sh                                  # written by `bai serve --data DIR`
//! cargo run -p bai-examples --bin embed -- server    # the same on a server
//! ```
#![allow(missing_docs, clippy::print_stdout)]

use bai::{BatchOptions, Client, Cluster, ConsoleItem, Credentials, NewSession, Result, Upload};

#[tokio::main]
async fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("server") {
        return tour(&server()?).await;
    }
    let cluster = Cluster::embedded().build().await?;
    let outcome = tour(&cluster.client()).await;
    cluster.shutdown().await;
    outcome
}

/// What the program does is the same wherever the client leads to.
async fn tour(client: &Client) -> Result<()> {
    let session = client.create(NewSession::new("python").cpu(1).mem("256m")).await?;

    for snippet in ["total = 0", "for n in range(10):\n    total += n", "print('the total is', total)"] {
        print!("{}", session.run(snippet).await?.stdout());
    }

    let program = "import sys\nprint('hello from a file,', sys.argv[1])\n";
    session.upload(&[Upload::new("greet.py", program)]).await?;
    let steps = BatchOptions { exec: Some("python greet.py reader".into()), ..BatchOptions::default() };
    let show = |item| {
        if let ConsoleItem::Stdout(text) | ConsoleItem::Stderr(text) = item {
            print!("{text}");
        }
    };
    let exit_code = session.run_batch(&steps, show, |_| Ok(String::new())).await?;
    println!("exit code {exit_code}");

    session.destroy().await?;
    Ok(())
}

/// A client of the server that `env.sh` names.
fn server() -> Result<Client> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let credentials = Credentials::new(variable("BACKEND_ACCESS_KEY"), variable("BACKEND_SECRET_KEY"));
    Client::connect(&variable("BACKEND_ENDPOINT"), credentials)
}
