//! Integration tests of the agent.
