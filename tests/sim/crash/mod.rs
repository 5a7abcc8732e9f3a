//! Every place a process can die at, or lose what it has, tried one by one.
//!
//! The one idea: a place is a call of a port, and which calls there are is found by watching one
//! run; so a step that is added to a loop is tried without anybody adding it here.

mod matrix;
mod scenario;
