//! GraphQL (spec graphql-manager.md): the roots that the clients' session, image, agent and keypair commands need.
//!
//! Names and types are those of the original schema, fields without a meaning here are null. Replies keep the order of
//! the selection, which the official client pairs its table columns by.

#![allow(clippy::unused_async, reason = "resolvers must be asynchronous")]

mod agent;
mod compute_container;
mod compute_session;
mod domain;
mod image;
mod keypair;
mod list;
mod policy;
mod scalar;
mod session;
mod user;
mod vfolder;
mod viewer;

use async_graphql::{EmptyMutation, EmptySubscription, MergedObject, Request, Response, Variables};
use axum::extract::State;
use bai_core::Error;
use bai_core::error::code;
use serde_json::Value;

use super::Gateway;
use super::auth::Auth;
use super::failure::{Failure, Reply};
use super::params::{Params, kind};
use super::reply;
use crate::manager::Manager;
use viewer::Viewer;

/// Deepest selection; the official clients need five levels.
const MAX_DEPTH: usize = 16;
/// Most fields of one query, those of nested selections included.
const MAX_FIELDS: usize = 5000;
/// Longest query in bytes. The parser quotes the line of a mistake, so this bounds what a reply repeats, too.
const MAX_QUERY: usize = 64 << 10;
/// Longest message of an error in bytes.
const MAX_MESSAGE: usize = 1 << 10;

/// All available GraphQL queries.
#[derive(Debug, Default, MergedObject)]
#[graphql(name = "Queries")]
pub(super) struct Queries(
    session::SessionRoots,
    agent::AgentRoots,
    image::ImageRoots,
    keypair::KeypairRoots,
    user::UserRoots,
    domain::DomainRoots,
    policy::PolicyRoots,
);

/// The executable schema.
pub(super) type Schema = async_graphql::Schema<Queries, EmptyMutation, EmptySubscription>;

/// The schema over a manager's services.
pub(super) fn schema(manager: &Manager, allow_introspection: bool) -> Schema {
    let builder = Schema::build(Queries::default(), EmptyMutation, EmptySubscription)
        .data(manager.clone())
        .limit_depth(MAX_DEPTH)
        .limit_complexity(MAX_FIELDS);
    if allow_introspection { builder.finish() } else { builder.disable_introspection().finish() }
}

/// The schema in the schema definition language.
pub fn sdl() -> String {
    Schema::build(Queries::default(), EmptyMutation, EmptySubscription).finish().sdl()
}

/// `POST /admin/gql`: data and errors side by side, always with status 200.
pub(super) async fn standard(State(gateway): State<Gateway>, auth: Auth, params: Params) -> Reply {
    let response = answer(&gateway, auth, params).await?;
    reply::ok(&response)
}

/// `POST /admin/graphql`: the data alone, or a problem.
pub(super) async fn legacy(State(gateway): State<Gateway>, auth: Auth, params: Params) -> Reply {
    let response = answer(&gateway, auth, params).await?;
    if response.errors.is_empty() {
        return reply::ok(&response.data);
    }
    let errors = serde_json::to_value(&response.errors).unwrap_or_default();
    Err(Failure(Error::of(code::GRAPHQL, "the query failed").data(errors)))
}

async fn answer(gateway: &Gateway, auth: Auth, params: Params) -> Result<Response, Failure> {
    let mut check = params.check();
    let query = check.required("query", kind::text);
    let variables = check.or("variables", kind::object, serde_json::Map::new());
    let operation = check.optional("operation_name|operationName", kind::text);
    if query.len() > MAX_QUERY {
        check.mistake("query", format!("the query is longer than {MAX_QUERY} bytes"));
    }
    check.finish()?;
    let mut request = Request::new(query).variables(Variables::from_json(Value::Object(variables)));
    if let Some(operation) = operation {
        request = request.operation_name(operation);
    }
    let mut response = gateway.schema().execute(request.data(Viewer(auth.0))).await;
    for error in &mut response.errors {
        error.message = client_text(&error.message).unwrap_or_else(|| std::mem::take(&mut error.message));
        let end = error.message.floor_char_boundary(MAX_MESSAGE);
        error.message.truncate(end);
    }
    Ok(response)
}

/// The text of a validation error as clients of the original service know it.
fn client_text(message: &str) -> Option<String> {
    let rest = message.strip_prefix("Unknown field \"")?;
    let (field, rest) = rest.split_once("\" on type \"")?;
    let (owner, _) = rest.split_once('"')?;
    Some(format!("Cannot query field '{field}' on type '{owner}'."))
}
