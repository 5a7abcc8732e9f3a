//! The OpenAPI and AsyncAPI documents: valid, and true of a running server.
//!
//! Validators of their own ecosystems check them, and everything that a server sends is compared
//! with them.

mod documents;
mod raw_socket;
mod session;
mod validator;
mod values;
