//! Checks of what `docker compose up` starts, without a Docker engine.
//!
//! [`compose`], [`dockerfile`] and [`prometheus`] parse the files and refuse unknown syntax.
//! [`image`] and [`services`] compare them with the binary's own grammar and settings, with the
//! repository and with each other. [`running`] starts the same commands in the same environment as
//! processes, with addresses mapped by [`host_mapping`]: the broker by the class that starts Kafka
//! in its image, the topics, the three roles; then one event passes all of them.

mod compose;
mod dockerfile;
mod host_mapping;
mod image;
mod prometheus;
mod running;
mod services;
