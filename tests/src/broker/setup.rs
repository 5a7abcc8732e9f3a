//! The configuration of a broker before its start: properties, Java options, clock.

use super::java;

/// Properties of every broker in this repository.
const NODE: &str = include_str!("../../data/kafka/node.properties");

/// Properties that make tests quicker and brokers smaller.
const QUICK: &str = include_str!("../../data/kafka/quick.properties");

/// A node holds a few megabytes in tests; the rest is for garbage collection.
const QUICK_HEAP_MB: u32 = 256;

/// What an administrator with little traffic would use.
const FIGURES_HEAP: &str = "-Xmx1g";

/// How to start a broker.
#[derive(Clone, Debug)]
pub struct Setup {
    properties: String,
    java: Vec<String>,
    secure: bool,
    clock_ahead_ms: Option<i64>,
}

impl Setup {
    /// For tests: small, with short intervals.
    pub fn quick() -> Self {
        let properties = format!("{NODE}{QUICK}");
        let java = java::small_arguments(QUICK_HEAP_MB);
        Self { properties, java, secure: false, clock_ahead_ms: None }
    }

    /// For benchmarks: the full compiler, a larger heap, the server's default intervals.
    pub fn for_figures() -> Self {
        let mut java = java::arguments();
        java.push(FIGURES_HEAP.to_owned());
        Self { properties: NODE.to_owned(), java, secure: false, clock_ahead_ms: None }
    }

    /// Adds properties of the server; a later value replaces an earlier one.
    pub fn with(mut self, properties: &[(&str, &str)]) -> Self {
        for (name, value) in properties {
            self.properties += &format!("{name}={value}\n");
        }
        self
    }

    /// Adds the listener with TLS and SCRAM, and access control.
    pub fn secure(mut self) -> Self {
        self.secure = true;
        self
    }

    /// Gives it a clock that starts this far ahead and that [`super::Broker::advance_time`] sets.
    pub fn with_clock(mut self, ahead_ms: i64) -> Self {
        self.clock_ahead_ms = Some(ahead_ms);
        self
    }

    /// The properties that all nodes share.
    pub(super) fn properties(&self) -> &str {
        &self.properties
    }

    /// Java's arguments before the class.
    pub(super) fn java(&self) -> &[String] {
        &self.java
    }

    /// Whether it has the listener with TLS and SCRAM.
    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    /// How far its clock is ahead, if it has one of its own.
    pub(super) fn clock_ahead_ms(&self) -> Option<i64> {
        self.clock_ahead_ms
    }
}
