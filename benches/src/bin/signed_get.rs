//! Signed `GET /session/NAME` from 64 connections, against a server process that shares the cores with the load generator; the
//! floor is a bare handler that answers with a constant body of the same size to the same generator.
#![allow(missing_docs)]

use std::future::ready;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use bai_benches::load::{Load, Outcome};
use bai_benches::server::ServerProcess;
use bai_benches::{failed, header, median, print};
use bai_client::{Client, Credentials, NewSession};
use bai_core::Result;

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(4);
const TARGET: &str = "/session/busy";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    header();
    let server = ServerProcess::start("process")?;
    let credentials = server.credentials()?;
    let client = Client::connect(server.endpoint(), credentials.clone())?;
    let session = client.create(NewSession::new("python").name("busy")).await?;
    let outcome = compare(&server, &credentials).await;
    session.destroy().await?;
    let (values, floors) = outcome?;
    let rate = |all: &[Outcome]| median(all.iter().map(|outcome| outcome.per_second));
    let p99 = |all: &[Outcome]| median(all.iter().map(|outcome| outcome.p99_ms));
    let figure = "signed GET /session/NAME, 64 connections";
    print(figure, rate(&values), "1/s", Some(rate(&floors)), Some(15_000.0), true);
    print(&format!("{figure}, p99"), p99(&values), "ms", Some(p99(&floors)), Some(20.0), false);
    Ok(())
}

/// The server and the floor, in turns.
async fn compare(server: &ServerProcess, credentials: &Credentials) -> Result<(Vec<Outcome>, Vec<Outcome>)> {
    let address = server.endpoint().trim_start_matches("http://").parse().unwrap_or(NOWHERE);
    let mut floor_address = None;
    let (mut values, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let value = load(address, credentials).await?;
        let floor = match floor_address {
            Some(address) => address,
            None => *floor_address.insert(serve_constant(value.body).await?),
        };
        values.push(value);
        floors.push(load(floor, credentials).await?);
    }
    Ok((values, floors))
}

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn load(address: SocketAddr, credentials: &Credentials) -> Result<Outcome> {
    Load { address, target: TARGET, credentials, connections: CONNECTIONS, time: TIME }.run().await
}

/// A server of nothing but a constant, on threads of its own, as many as the real one has.
async fn serve_constant(body: usize) -> Result<SocketAddr> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind(NOWHERE).await?;
            let _ = tell.send(listener.local_addr()?); // nobody asks any more only when this program ends
            let constant = Bytes::from("x".repeat(body));
            let routes = Router::new().route("/session/{name}", get(move || ready(constant.clone())));
            axum::serve(listener, routes).await
        })
    });
    told.await.map_err(|_| failed(std::io::ErrorKind::AddrNotAvailable.into()))
}
