//! The descriptions of the interface: valid by the validators of their own ecosystem, and true of
//! what a running server sends and answers.

mod documents;
mod raw_socket;
mod session;
mod validator;
mod values;
