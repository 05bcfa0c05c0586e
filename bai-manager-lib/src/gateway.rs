//! The HTTP gateway: REST, GraphQL, server-sent events and WebSockets.
