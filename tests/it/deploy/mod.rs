//! What `docker compose up` starts, held to the binary without a Docker engine.
//!
//! [`compose`], [`dockerfile`] and [`prometheus`] read the files and refuse what they have no word
//! for. [`image`] and [`services`] compare what they say with the binary's own grammar and settings,
//! with the repository and with each other. [`running`] then starts the same commands with the same
//! environment as processes, at other ports and in other folders: the broker out of Kafka's own
//! image's start-up class, the topics, the three roles, one event all the way.

mod compose;
mod dockerfile;
mod elsewhere;
mod image;
mod prometheus;
mod running;
mod services;
