//! Calls to the engine: each has a deadline and tells its failures apart.

use std::future::Future;
use std::time::Duration;

use bai_core::error::{Code, Error, ErrorKind, Result, code};
use bollard::errors::Error as EngineError;
use bollard::{API_DEFAULT_VERSION, Docker};

/// Deadlines are set here for every call on its own, so the client's common one must not be the first to pass.
const NEVER_S: u64 = 7 * 24 * 3600;

/// A connection to an engine; each call opens a socket of its own.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    pub(super) docker: Docker,
    timeout: Duration,
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The engine says no, with an HTTP status and a message.
    Refused(u16, String),
    /// No answer within the deadline.
    Late,
    /// The engine cannot be reached, or does not speak as it should.
    Lost(EngineError),
}

impl Failure {
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused(404, _))
    }

    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(409, _))
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::DockerResponseServerError { status_code, message } => {
                Self::Refused(status_code, message.trim_end().to_owned())
            }
            EngineError::DockerStreamError { error } => Self::Refused(500, error),
            EngineError::RequestTimeoutError => Self::Late,
            other => Self::Lost(other),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(status, message) => Self::of(code_of(status), message),
            Failure::Late => Self::new(ErrorKind::Timeout, "the container engine does not answer"),
            Failure::Lost(error) => {
                Self::of(code::BACKEND_FAILED, format!("the container engine cannot be reached: {error}"))
                    .source(error)
            }
        }
    }
}

/// A wrong argument stays wrong however often it is sent; everything else may pass.
fn code_of(status: u16) -> Code {
    match status {
        400 => code::INVALID_PARAMETERS,
        404 => code::OBJECT_NOT_FOUND,
        409 => code::CONFLICT,
        _ => code::BACKEND_FAILED,
    }
}

impl Engine {
    /// Opens `host` and agrees on a version of the API.
    ///
    /// # Errors
    /// `Invalid` for a host that is no unix socket; `Unavailable` and `Timeout` of the engine.
    pub(super) async fn connect(host: &str, timeout: Duration) -> Result<Self> {
        let path = host.strip_prefix("unix://").filter(|path| path.starts_with('/')).ok_or_else(|| {
            Error::of(code::CONFIG_INVALID, "the container engine must be given as unix:///path")
                .with("host", host)
        })?;
        let docker = Docker::connect_with_unix(path, NEVER_S, API_DEFAULT_VERSION).map_err(Failure::from)?;
        let negotiated = within(timeout, docker.negotiate_version()).await;
        let docker = negotiated.map_err(|failure| Error::from(failure).with("host", host))?;
        Ok(Self { docker, timeout })
    }

    /// Waits for an answer, at most the time of an ordinary call.
    pub(super) async fn call<T>(
        &self,
        answer: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, Failure> {
        within(self.timeout, answer).await
    }

    /// Waits for an answer that takes up to `extra` by its nature.
    pub(super) async fn long_call<T>(
        &self,
        extra: Duration,
        answer: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, Failure> {
        within(self.timeout.saturating_add(extra), answer).await
    }
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(Failure::from),
        Err(_) => Err(Failure::Late),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unavailable() {
        let error =
            Engine::connect("unix:///nonexistent/docker.sock", Duration::from_secs(5)).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, code::BACKEND_FAILED));
        for host in ["tcp://127.0.0.1:2375", "", "unix://relative"] {
            let error = Engine::connect(host, Duration::from_secs(5)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{host}");
        }
    }

    #[tokio::test]
    async fn an_engine_that_hangs_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let host = format!("unix://{}", path.display());
        let error = Engine::connect(&host, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }

    #[test]
    fn refusals_keep_the_words_of_the_engine() {
        let refusal =
            |status_code| EngineError::DockerResponseServerError { status_code, message: "why\n".into() };
        for (status, kind) in [
            (400, ErrorKind::Invalid),
            (404, ErrorKind::NotFound),
            (409, ErrorKind::Conflict),
            (500, ErrorKind::Unavailable),
        ] {
            let error = Error::from(Failure::from(refusal(status)));
            assert_eq!((error.kind(), error.to_string()), (kind, "why".to_owned()));
        }
    }
}
