//! The configuration: settings parsed once, at the door, into the types each part wants.
//!
//! Every value is looked at before anything is refused, so that one start reports all that is
//! wrong: where each value stands and what would be right. Behind this room there are no strings
//! left to interpret.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::ending::Ending;
use crate::settings::{Given, Settings};

/// The largest number of partitions: a position over all of them still fits an HTTP header.
const PARTITIONS_MAX: u64 = 64;
/// Below this a ring holds too little to resume from.
const RING_BYTES_MIN: u64 = 1 << 20;
/// More than any machine we know gives a gateway.
const RING_BYTES_MAX: u64 = 64 << 30;
/// More threads than this only wait for each other.
const SHARDS_MAX: u64 = 64;
/// A thread without a partition has nothing to do.
const DERIVE_THREADS_MAX: u64 = 64;
/// The demo shares the machine with what it shows.
const DEMO_RATE_PER_S_MAX: u64 = 10_000;

/// What an acknowledged record survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, kill -9 included.
    Process,
    /// The end of the host: synced to disk before the acknowledgement.
    Host,
}

/// The configuration of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where HTTP, WebSocket and SSE are served.
    pub listen: SocketAddr,
    /// Believe `?user=` without a token.
    pub insecure_dev: bool,
    /// What is logged, in the words of `tracing`'s filter.
    pub log_filter: String,
    /// Where the log and the state live.
    pub data: DataConfig,
    /// The topics' names and partitions.
    pub topics: TopicsConfig,
    /// Threads of DERIVE; each owns a share of the partitions.
    pub derive_threads: u32,
    /// The gateway's memory and threads.
    pub gateway: GatewayConfig,
    /// Synthetic events per second; `None`: no demo.
    pub demo_rate_per_s: Option<u32>,
}

/// Where the log and the state live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataConfig {
    /// The folder.
    pub dir: PathBuf,
    /// What an acknowledged record survives.
    pub durability: Durability,
}

/// The topics' names and partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicsConfig {
    /// What every topic's name begins with.
    pub prefix: String,
    /// Partitions of each.
    pub partitions: u32,
}

/// The gateway's memory and threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Bytes of the newest records kept in memory.
    pub ring_bytes: usize,
    /// Threads that serve sockets; 0: as many as fit the machine.
    pub shards: usize,
}

impl Config {
    /// Parses every setting, or refuses with all that is wrong.
    pub fn parse(mut settings: Settings) -> Result<Self, Ending> {
        let mut read = Reading { settings: &mut settings };
        let config = Self {
            listen: read.value("listen", address),
            insecure_dev: read.value("insecure_dev", unset_or_switch),
            log_filter: read.value("log_filter", filter),
            data: DataConfig {
                dir: read.value("data_dir", folder),
                durability: read.value("durability", durability),
            },
            topics: TopicsConfig {
                prefix: read.value("topics.prefix", prefix),
                partitions: read.value("topics.partitions", |t| within(t, 1, PARTITIONS_MAX)),
            },
            derive_threads: read.value("derive.threads", |t| within(t, 1, DERIVE_THREADS_MAX)),
            gateway: GatewayConfig {
                ring_bytes: read
                    .value("gateway.ring_bytes", |t| bytes(t, RING_BYTES_MIN, RING_BYTES_MAX)),
                shards: read.value("gateway.shards", |t| within(t, 0, SHARDS_MAX)),
            },
            demo_rate_per_s: read
                .value("demo.enabled", switch)
                .then(|| read.value("demo.rate", |t| within(t, 1, DEMO_RATE_PER_S_MAX))),
        };
        read.value("log", which_log);
        config.check_exposure(&mut settings);
        match settings.problems() {
            [] => Ok(config),
            [one] => Err(Ending::Usage(format!("a setting is wrong\n  {one}"))),
            many => {
                let list = many.join("\n  ");
                Err(Ending::Usage(format!("{} settings are wrong\n  {list}", many.len())))
            }
        }
    }

    /// Without tokens every client is believed, so no other machine may be able to reach us.
    fn check_exposure(&self, settings: &mut Settings) {
        let listen = settings.given("listen").clone();
        if self.insecure_dev && !self.listen.ip().is_loopback() {
            settings.problem(format!(
                "{listen}: {} can be reached from other machines, and in --insecure-dev every \
                 client is believed; listen on 127.0.0.1:{} or [::1]:{1}",
                self.listen,
                self.listen.port()
            ));
        }
    }
}

struct Reading<'a> {
    settings: &'a mut Settings,
}

impl Reading<'_> {
    /// The parsed value; when it is wrong, the problem is noted and a stand-in is returned, which
    /// nobody sees because the configuration is refused in the end.
    fn value<T: StandIn>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let given: Given = self.settings.given(key).clone();
        parse(&given.text).unwrap_or_else(|right| {
            self.settings.problem(format!("{given}: {:?}: {right}", given.text));
            T::stand_in()
        })
    }
}

/// A value to go on with after a problem was noted.
trait StandIn {
    fn stand_in() -> Self;
}

macro_rules! stand_in {
    ($($type:ty => $value:expr),* $(,)?) => {
        $(impl StandIn for $type { fn stand_in() -> Self { $value } })*
    };
}

stand_in! {
    SocketAddr => SocketAddr::from(([127, 0, 0, 1], 0)),
    PathBuf => PathBuf::new(),
    String => String::new(),
    bool => false,
    u32 => 1,
    usize => 1,
    () => (),
    Durability => Durability::Process,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give an IP address and a port, such as 127.0.0.1:8080".into())
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("give true or false".into()),
    }
}

fn unset_or_switch(text: &str) -> Result<bool, String> {
    if text.is_empty() { Ok(false) } else { switch(text) }
}

fn filter(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("give a level (error, warn, info, debug, trace) or module=level,…".into()),
    }
}

fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("give the path of a folder; it is created if it is not there".into());
    }
    if Path::new(text).exists() && !Path::new(text).is_dir() {
        return Err("a file stands there; give the path of a folder".into());
    }
    Ok(text.into())
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "process" => Ok(Durability::Process),
        "host" => Ok(Durability::Host),
        _ => Err("give process (survives kill -9) or host (survives power loss)".into()),
    }
}

fn which_log(text: &str) -> Result<(), String> {
    match text {
        "embedded" => Ok(()),
        other if other.starts_with("kafka://") => {
            Err("this version runs on the embedded log only; give embedded".into())
        }
        _ => Err("give embedded".into()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.chars().all(allowed) && text.len() <= 100 {
        Ok(text.to_owned())
    } else {
        Err("give at most 100 of the characters a-z A-Z 0-9 . _ -".into())
    }
}

fn within<T: TryFrom<u64>>(text: &str, min: u64, max: u64) -> Result<T, String> {
    let right = || format!("give a whole number from {min} to {max}");
    let number: u64 = text.trim().parse().map_err(|_| right())?;
    if !(min..=max).contains(&number) {
        return Err(right());
    }
    T::try_from(number).map_err(|_| right())
}

fn bytes(text: &str, min: u64, max: u64) -> Result<usize, String> {
    let right =
        || format!("give a size from {} to {}, such as 64 MiB", size_text(min), size_text(max));
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(right()),
    };
    let number: u64 = number.parse().map_err(|_| right())?;
    let size = number.checked_mul(factor).filter(|size| (min..=max).contains(size));
    size.and_then(|size| usize::try_from(size).ok()).ok_or_else(right)
}

/// A size in the largest unit that divides it.
pub fn size_text(size: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, bits) in units {
        if size != 0 && size.is_multiple_of(1 << bits) {
            return format!("{} {unit}", size >> bits);
        }
    }
    format!("{size} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[(&'static str, &str)]) -> Result<Config, Ending> {
        let mut settings = Settings::defaults();
        for (key, text) in flags {
            settings.add_flag(key, &format!("--{key}"), Some((*text).into()));
        }
        Config::parse(settings)
    }

    fn check_refused(key: &'static str, text: &str, expected: &str) {
        let error = parse(&[(key, text)]).expect_err("the value is wrong").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(&format!("--{key}")), "says where: {error}");
    }

    #[test]
    fn the_defaults_are_a_valid_configuration() {
        let config = parse(&[]).expect("defaults are right");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.gateway.ring_bytes, 64 << 20);
        assert_eq!(config.demo_rate_per_s, None);
    }

    #[test]
    fn each_wrong_value_says_where_it_stands_and_what_is_right() {
        check_refused("listen", "localhost", "give an IP address and a port");
        check_refused("topics.partitions", "0", "give a whole number from 1 to 64");
        check_refused("topics.partitions", "-1", "give a whole number from 1 to 64");
        check_refused("gateway.ring_bytes", "64 MB", "give a size from 1 MiB to 64 GiB");
        check_refused("gateway.ring_bytes", "99999999999999999 GiB", "give a size from");
        check_refused("durability", "maybe", "give process (survives kill -9) or host");
        check_refused("demo.enabled", "yes", "give true or false");
        check_refused("topics.prefix", "a b", "give at most 100 of the characters");
        check_refused("log", "kafka://h:9092", "runs on the embedded log only");
    }

    #[test]
    fn all_that_is_wrong_is_reported_at_once() {
        let error = parse(&[("listen", "x"), ("durability", "y"), ("demo.enabled", "z")])
            .expect_err("three values are wrong")
            .to_string();
        assert!(error.starts_with("3 settings are wrong"), "{error}");
        assert_eq!(error.lines().count(), 4, "{error}");
    }

    #[test]
    fn an_open_door_without_tokens_is_refused() {
        let open = ("listen", "0.0.0.0:80");
        assert!(parse(&[open]).is_ok());
        let error = parse(&[open, ("insecure_dev", "true")]).expect_err("reachable").to_string();
        assert!(error.contains("can be reached from other machines"), "{error}");
    }

    #[test]
    fn sizes_read_back_in_the_units_they_were_given() {
        for text in ["1 MiB", "1536 KiB", "64 GiB"] {
            let size = bytes(text, RING_BYTES_MIN, RING_BYTES_MAX).expect("in range");
            assert_eq!(size_text(size as u64), text);
        }
    }
}
