//! A broker's folder and ports, and the formatting of its data.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::ports::Port;
use super::setup::Setup;
use super::{folder, java, secure};

/// The cluster id of every test cluster.
const CLUSTER_ID: &str = "tidewire-kafka-cluster";

/// The folder and ports of a node.
#[derive(Debug)]
pub(super) struct BrokerDir {
    number: u32,
    /// All controllers, as `NUMBER@ADDRESS,…`.
    voters: String,
    plain: Port,
    controller: Port,
    secure: Option<Port>,
    folder: TempDir,
}

impl BrokerDir {
    /// Folders and ports for this many nodes of one cluster.
    pub(super) fn make(count: u32, setup: &Setup) -> Vec<Self> {
        let reserve = |number| Self {
            number,
            voters: String::new(),
            plain: Port::reserve(),
            controller: Port::reserve(),
            secure: setup.is_secure().then(Port::reserve),
            folder: folder::make(),
        };
        let mut broker_dirs: Vec<Self> = (1..=count).map(reserve).collect();
        let voter = |broker_dir: &Self| {
            format!("{}@127.0.0.1:{}", broker_dir.number, broker_dir.controller.number())
        };
        let voters = broker_dirs.iter().map(voter).collect::<Vec<_>>().join(",");
        for broker_dir in &mut broker_dirs {
            broker_dir.voters.clone_from(&voters);
        }
        broker_dirs
    }

    /// Its number in the cluster, from 1.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Where clients and the other brokers connect in plain text.
    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.plain.number()).into()
    }

    /// Where clients connect with TLS and SCRAM.
    pub(super) fn secure_address(&self) -> SocketAddr {
        let port = self.secure.as_ref().expect("start it by Broker::secure");
        (Ipv4Addr::LOCALHOST, port.number()).into()
    }

    /// Its folder.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its `server.properties`.
    pub(super) fn properties(&self) -> PathBuf {
        self.folder().join("server.properties")
    }

    /// Where it keeps its partitions.
    pub(super) fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// Writes its properties and formats its data.
    pub(super) fn format(&self, setup: &Setup) {
        let mut properties = setup.properties().to_owned() + &self.own_properties();
        if setup.is_secure() {
            properties += &secure::prepare(self.folder());
        }
        fs::write(self.properties(), properties).expect("its folder can be written");
        if setup.is_secure() {
            self.format_by_tool(&secure::users());
        } else {
            self.format_by_hand();
        }
    }

    fn own_properties(&self) -> String {
        let secure = self.secure.as_ref();
        let secure = secure.map(|port| format!(",SECURE://127.0.0.1:{}", port.number()));
        format!(
            "node.id={}\nlog.dirs={}\ncontroller.quorum.voters={}\n\
             listeners=PLAINTEXT://{},CONTROLLER://127.0.0.1:{}{}\n",
            self.number,
            self.data().display(),
            self.voters,
            self.address(),
            self.controller.number(),
            secure.unwrap_or_default(),
        )
    }

    fn format_by_tool(&self, users: &[String]) {
        let properties = self.properties();
        let properties = properties.to_str().expect("temporary folders have names of text");
        let mut arguments = vec!["format", "--cluster-id", CLUSTER_ID, "--config", properties];
        for user in users {
            arguments.extend(["--add-scram", user]);
        }
        java::run("kafka.tools.StorageTool", &arguments);
    }

    /// What the tool does, without a Java process: writes an identity and copies the first metadata
    /// records, which are the same for every node and were kept when Kafka was downloaded.
    fn format_by_hand(&self) {
        let checkpoint = "bootstrap.checkpoint";
        let data = self.data();
        let identity = format!(
            "version=1\ncluster.id={CLUSTER_ID}\nnode.id={0}\ndirectory.id=TidewireNode{0:09}A\n",
            self.number
        );
        fs::create_dir(&data)
            .and_then(|()| fs::write(data.join("meta.properties"), identity))
            .and_then(|()| fs::copy(java::jars().join(checkpoint), data.join(checkpoint)))
            .expect("its folder can be written");
    }
}
