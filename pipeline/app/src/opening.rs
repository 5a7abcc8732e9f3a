//! Opening: all that a process needs of its log and its folder before its loops can run.
//!
//! It waits for a broker that is not there yet, and ends the waiting when the process is asked to
//! end. What is opened depends on the role and on nothing else.

use std::sync::Arc;
use std::time::Duration;

use tidewire_connectors::rocks::{self, RocksStores};
use tidewire_engine::fanout::hub::Hub;
use tidewire_engine::port::{Appender, Log, Stores};

use crate::clock::WallClock;
use crate::config::Config;
use crate::data::{self, Data};
use crate::ending::Ending;
use crate::fanout;
use crate::patience::{Failure, patiently};
use crate::registry;
use crate::role::Role;
use crate::state::{FollowError, StateFolder};
use crate::supervisor::{Stop, Supervisor};

/// How long a start waits for what it needs: a broker that starts together with us, an election,
/// the topics that another process is about to create.
pub const START_LIMIT: Duration = Duration::from_secs(60);

/// What was opened.
pub struct Opened {
    /// The log and the stores.
    pub data: Data,
    /// Where clients come: what they read from, and what their events are written with.
    pub front: Option<Front>,
    /// The claim on the state, in a process that keeps some.
    pub folder: Option<StateFolder>,
}

/// What a process that clients come to needs.
pub struct Front {
    /// The newest records.
    pub hub: Arc<Hub>,
    /// A producer.
    pub appender: Box<dyn Appender>,
}

/// Opens all that the role needs. `None`: the process was asked to end while it waited.
pub fn open(
    supervisor: &Supervisor,
    role: Role,
    config: &Config,
) -> Result<Option<Opened>, Ending> {
    let (config, stop) = (config.clone(), supervisor.stop());
    supervisor.attempt("opening", move || open_patiently(role, &config, &stop))?.transpose()
}

fn open_patiently(role: Role, config: &Config, stop: &Stop) -> Result<Opened, Ending> {
    let log = data::open_log(config)?;
    let folder = match role.derives() {
        true => Some(StateFolder::claim(&config.data.dir)?),
        false => None,
    };
    let stores = folder
        .as_ref()
        .map(|folder| -> Arc<dyn Stores> { RocksStores::new(rocks::Config::new(folder.dir())) });
    let (topology, clock) = (config.topology(), Arc::new(WallClock));
    let data = Data { log, stores, topology, clock, registry: registry::open(config) };
    let front = patiently(START_LIMIT, stop, || {
        prepare(role, config, (&*data.log, folder.as_ref()))?;
        if role.serves_clients() { open_front(config, &data).map(Some) } else { Ok(None) }
    })?;
    Ok(Opened { data, front, folder })
}

/// Makes sure of the topics, and that the folder belongs to them.
fn prepare(
    role: Role,
    config: &Config,
    (log, folder): (&dyn Log, Option<&StateFolder>),
) -> Result<(), Failure> {
    if role.is_apart() {
        data::expect_topics(config, log)?;
    } else {
        data::create_topics(config, log)?;
    }
    let Some(folder) = folder else { return Ok(()) };
    folder.follow(log, &config.topology()).map_err(|error| match error {
        FollowError::Log(error) => {
            let doing = "could not ask which topics there are".into();
            Failure::of_log(doing, &data::unanswered(config), error)
        }
        FollowError::Folder(_) => {
            let message = format!("the state in {} failed", folder.dir().display());
            Failure::Lasting(Ending::because(message, error))
        }
    })
}

fn open_front(config: &Config, data: &Data) -> Result<Front, Failure> {
    let unanswered = data::unanswered(config);
    let hub = fanout::open_hub(config, data)
        .map_err(|error| Failure::of_engine("the hub", &unanswered, error))?;
    let appender = data
        .log
        .appender()
        .map_err(|error| Failure::of_log("could not open a producer".into(), &unanswered, error))?;
    Ok(Front { hub, appender })
}
