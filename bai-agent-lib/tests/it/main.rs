//! Integration tests of the agent.

mod process;
