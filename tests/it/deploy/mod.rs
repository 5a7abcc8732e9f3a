//! What `docker compose up` starts, held to the binary without a Docker engine.
//!
//! [`compose`], [`dockerfile`] and [`prometheus`] read the files and refuse what they have no word
//! for. [`image`] and [`services`] compare what they say with the binary's own grammar and its
//! settings, with the repository and with each other. [`running`] starts the same commands in the
//! same environment as processes, [`host_mapping`]: the broker by the class that starts Kafka in
//! its image, the topics, the three roles, and one event goes all the way.

mod compose;
mod dockerfile;
mod host_mapping;
mod image;
mod prometheus;
mod running;
mod services;
