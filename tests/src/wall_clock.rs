//! The wall clock of this machine, for tests and benchmarks that run the engine themselves.

use std::time::{SystemTime, UNIX_EPOCH};

use tidewire_engine::port::Clock;
use tidewire_engine::record::Millis;

/// The wall clock.
pub struct SystemWallClock;

impl Clock for SystemWallClock {
    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        Millis(i64::try_from(since.as_millis()).expect("before the year 292 million"))
    }
}
