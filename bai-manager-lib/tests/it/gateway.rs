//! The gateway as clients see it: signed requests through the router, over a manager with an agent that is a script.

mod call;
mod execution;
mod files;
mod golden;
mod graphql;
mod protocol;
mod scripted_agent;
mod sessions;
mod signing;
mod streams;
mod world;
