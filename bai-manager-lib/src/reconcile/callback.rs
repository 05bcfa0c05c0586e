//! Callbacks: the URL of a session is told about its life, once per event, best effort.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::code;
use bai_core::port::store::SessionEvent;
use bai_core::{Error, ErrorKind, Result, Session};
use futures_util::{StreamExt, stream};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::manager::core::Core;

/// Longest wait for the receiver.
const DEADLINE: Duration = Duration::from_secs(30);
/// Receivers called at the same time: slow ones must not hold up the others.
const CONCURRENCY: usize = 32;

/// A call to make.
#[derive(Debug)]
pub(crate) struct Notice {
    url: String,
    body: Value,
}

impl Notice {
    /// The call that `event` asks for, if the session has a URL and the event is one of its life.
    pub(crate) fn of(session: &Session, event: &SessionEvent) -> Option<Self> {
        let url = session.spec.callback_url.clone()?;
        let name = match event.event.name.as_str() {
            // Clients know the preparation of the session by the one of its main kernel.
            "kernel_preparing" if event.event.kernel == Some(session.main().id) => "preparing",
            name => name.strip_prefix("session_")?,
        };
        let body = json!({
            "type": "session_lifecycle",
            "event": name,
            "session_id": session.id,
            "when": event.at,
        });
        Some(Self { url, body })
    }
}

/// Makes the calls.
pub(crate) async fn run(core: Arc<Core>, notices: mpsc::Receiver<Notice>) {
    let local = core.options.local_callbacks;
    let client = match client(local) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "no callback can be made");
            return;
        }
    };
    let notices = stream::unfold(notices, |mut notices| async { Some((notices.recv().await?, notices)) });
    let calls = notices.for_each_concurrent(CONCURRENCY, |notice| {
        let client = &client;
        async move {
            if let Err(error) = call(client, local, &notice).await {
                let error = &error as &(dyn std::error::Error + 'static); // tells its causes as well
                tracing::warn!(url = notice.url, event = %notice.body["event"], error, "a callback failed");
            }
        }
    });
    tokio::select! {
        () = calls => {}
        () = core.tasks.stopped() => {}
    }
}

fn client(local: bool) -> Result<Client> {
    // Another part of the program may have installed a provider already; either serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A redirect could lead where a callback may not go.
    let client = Client::builder().redirect(Policy::none()).timeout(DEADLINE);
    let client = if local { client } else { client.dns_resolver(Outside) };
    client.build().map_err(|error| Error::of(code::INTERNAL, "cannot set up an HTTP client").source(error))
}

async fn call(client: &Client, local: bool, notice: &Notice) -> Result<()> {
    let url = Url::parse(&notice.url)
        .map_err(|error| Error::new(ErrorKind::Invalid, "the callback cannot be made").source(error))?;
    // An address in the URL is not looked up.
    let address = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
    if !local && address.is_some_and(is_local) {
        return Err(local_receiver());
    }
    let response = client.post(url).json(&notice.body).send().await.map_err(|error| {
        Error::new(ErrorKind::Unavailable, "the receiver cannot be reached").source(error.without_url())
    })?;
    if response.status().is_success() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, "the receiver refused").with("status", response.status()))
}

/// Looks up names, and leaves out the addresses of this host.
#[derive(Debug)]
struct Outside;

impl Resolve for Outside {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let outside: Vec<_> = found.into_iter().filter(|address| !is_local(address.ip())).collect();
            if outside.is_empty() {
                return Err(local_receiver().into());
            }
            Ok(Box::new(outside.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is of this host or of the cloud's services for it: what listens there trusts whoever can reach it.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast(),
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast()
        }
    }
}

fn local_receiver() -> Error {
    Error::new(
        ErrorKind::Forbidden,
        "callbacks do not go to the host of the manager (option local_callbacks)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(url: &str) -> Notice {
        Notice { url: url.to_owned(), body: json!({ "event": "started" }) }
    }

    #[test]
    fn addresses_of_this_host_are_known() {
        let local = ["127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254", "224.0.0.1", "::1", "::"];
        for address in local.into_iter().chain(["fe80::1", "::ffff:127.0.0.1", "ff02::1"]) {
            assert!(is_local(address.parse().unwrap()), "{address}");
        }
        for address in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(!is_local(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn nobody_is_called_on_this_host() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = client(false).unwrap();
        for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0", "2130706433", "0x7f.1"] {
            let error = call(&client, false, &notice(&format!("http://{host}:{port}/"))).await.unwrap_err();
            let texts: Vec<_> =
                std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
                    .map(ToString::to_string)
                    .collect();
            assert!(texts.concat().contains("local_callbacks"), "{host}: {texts:?}");
        }
        let connection = tokio::time::timeout(Duration::from_millis(50), listener.accept());
        assert!(connection.await.is_err(), "somebody called");
    }
}
