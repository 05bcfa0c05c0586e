//! What happens to every request before and after its route: aliases of paths, method override, API version, CORS,
//! panics, the headers of every response (spec auth.md, sections 6, 7 and 9).

use std::any::Any;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{HeaderMap, HeaderName, HeaderValue, ORIGIN, SERVER};
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bai_core::error::code;
use bai_core::signing::{ApiVersion, VersionHeader};
use bai_core::{Error, ErrorKind};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Any as AnyHeader, CorsLayer};

use super::Gateway;
use super::failure::Failure;
use crate::identity::RateLimit;

/// What anonymous requests are told; it is not enforced.
const ANONYMOUS: RateLimit = RateLimit { limit: 1000, remaining: 1000, window_secs: 900, exceeded: false };

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const WINDOW: HeaderName = HeaderName::from_static("x-ratelimit-window");
const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-method-override");

/// What the routes need to know of the request as it was on the wire.
#[derive(Debug, Clone)]
pub(super) struct Wire(Arc<WireFacts>);

#[derive(Debug)]
struct WireFacts {
    target: Uri,
    version: ApiVersion,
    rate: OnceLock<RateLimit>,
}

impl Wire {
    /// Path and query exactly as sent: what signatures cover.
    pub(super) fn target(&self) -> &str {
        self.0.target.path_and_query().map_or("/", |target| target.as_str())
    }

    /// Path exactly as sent.
    pub(super) fn path(&self) -> &str {
        self.0.target.path()
    }

    /// Host in the request line, when there is one: HTTP/2 has no `Host` header.
    pub(super) fn authority(&self) -> Option<&str> {
        self.0.target.authority().map(axum::http::uri::Authority::as_str)
    }

    /// The API version that the request speaks.
    pub(super) fn version(&self) -> ApiVersion {
        self.0.version
    }

    /// Remembers the rate limit to be told with the response.
    pub(super) fn set_rate(&self, rate: RateLimit) {
        let _ = self.0.rate.set(rate);
    }
}

/// Puts the pipeline around the routes.
pub(super) fn wrap(routes: Router, gateway: Gateway) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(AnyHeader)
        .vary([ORIGIN]);
    // A fallback service instead of a layer: paths are rewritten before the routes see them.
    Router::new().fallback_service(
        ServiceBuilder::new()
            .layer(from_fn_with_state(gateway, enter))
            .layer(cors)
            .layer(CatchPanicLayer::custom(panicked))
            .service(routes),
    )
}

async fn enter(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    let (mut response, rate) = match prepare(&mut request) {
        Ok(wire) => {
            request.extensions_mut().insert(wire.clone());
            let response = until_shutdown(&gateway, next.run(request)).await;
            (response, wire.0.rate.get().copied())
        }
        Err(error) => (Failure(error).into_response(), None),
    };
    stamp(response.headers_mut(), rate.unwrap_or(ANONYMOUS));
    response
}

fn prepare(request: &mut Request) -> Result<Wire, Error> {
    if let Some(method) = request.headers().get(METHOD_OVERRIDE) {
        *request.method_mut() = Method::from_bytes(method.as_bytes())
            .map_err(|_| Error::of(code::METHOD_NOT_ALLOWED, "not a method name"))?;
    }
    let version = ApiVersion::of_request(version_header(request.headers()))?;
    let target = request.uri().clone();
    if let Some(path) = canonical_path(target.path()) {
        *request.uri_mut() = with_path(&target, &path)?;
    }
    Ok(Wire(Arc::new(WireFacts { target, version, rate: OnceLock::new() })))
}

fn version_header(headers: &HeaderMap) -> Option<VersionHeader<'_>> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let current = text("x-backendai-version").map(VersionHeader::BackendAi);
    current.or_else(|| text("x-sorna-version").map(VersionHeader::Sorna))
}

/// The path that a deprecated spelling stands for: `/v4` to `/v7` in front, `kernel` for `session`.
fn canonical_path(path: &str) -> Option<String> {
    let versionless = ["/v4", "/v5", "/v6", "/v7"].iter().find_map(|prefix| {
        let rest = path.strip_prefix(prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(if rest.is_empty() { "/" } else { rest })
    });
    let start = versionless.unwrap_or(path);
    for (old, new) in [("/kernel", "/session"), ("/stream/kernel", "/stream/session")] {
        if let Some(rest) = start.strip_prefix(old).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Some(format!("{new}{rest}"));
        }
    }
    versionless.map(str::to_owned)
}

fn with_path(target: &Uri, path: &str) -> Result<Uri, Error> {
    let target = target.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    target.parse().map_err(|_| Error::of(code::URL_NOT_FOUND, "not a valid path"))
}

/// Waits for the response; after a shutdown no longer than the grace time.
async fn until_shutdown(gateway: &Gateway, response: impl Future<Output = Response>) -> Response {
    let options = gateway.options();
    let expired = async {
        options.shutdown.cancelled().await;
        tokio::time::sleep(options.shutdown_grace).await;
    };
    tokio::select! {
        biased;
        response = response => response,
        () = expired => Failure(Error::new(ErrorKind::Unavailable, "the server is shutting down")).into_response(),
    }
}

fn stamp(headers: &mut HeaderMap, rate: RateLimit) {
    headers.insert(SERVER, HeaderValue::from_static("BackendAI"));
    headers.insert(LIMIT, rate.limit.into());
    headers.insert(REMAINING, rate.remaining.into());
    headers.insert(WINDOW, rate.window_secs.into());
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is given by the layer")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref().cloned());
    tracing::error!(panic = text.as_deref().unwrap_or("unknown"), "a request handler panicked");
    Failure(Error::new(ErrorKind::Internal, "the request could not be handled")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deprecated_paths_lead_to_current_ones() {
        for (path, expected) in [
            ("/v6", Some("/")),
            ("/v4/", Some("/")),
            ("/v4/kernel/x/logs", Some("/session/x/logs")),
            ("/v7/session", Some("/session")),
            ("/kernel", Some("/session")),
            ("/kernels", None),
            ("/stream/kernel/x/execute", Some("/stream/session/x/execute")),
            ("/v2", None),
            ("/v3/session", None),
            ("/v60/session", None),
            ("/session", None),
        ] {
            assert_eq!(canonical_path(path).as_deref(), expected, "{path}");
        }
    }
}
