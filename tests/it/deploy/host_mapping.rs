//! Maps ports, hosts and folders of containers to those of processes on this machine.
//!
//! Every port becomes a free one, always the same for the same port. A container's other addresses
//! and its name become this machine's loopback; its folders are below a temporary one. The rest of
//! a text is unchanged.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidewire_tests::broker::ports::Port;

/// The shortest number after a colon that is a port and not, say, a version.
const PORT_DIGITS_MIN: usize = 4;

/// The ports and folders that replace the containers'.
#[derive(Debug)]
pub(crate) struct HostMapping {
    ports: BTreeMap<u16, Port>,
    hosts: Vec<String>,
    folder: TempDir,
}

impl HostMapping {
    /// A new mapping for services of these names.
    pub(crate) fn new(hosts: impl Iterator<Item = String>) -> Self {
        let folder = tempfile::Builder::new().prefix("tidewire-deploy-").tempdir();
        let folder = folder.expect("the temporary folder can be written");
        Self { ports: BTreeMap::new(), hosts: hosts.collect(), folder }
    }

    /// The folder that replaces this path of a service's container.
    pub(crate) fn folder(&self, service: &str, path: &str) -> PathBuf {
        let folder = self.folder.path().join(service).join(path.trim_start_matches('/'));
        fs::create_dir_all(&folder).expect("the temporary folder can be written");
        folder
    }

    /// The folder above all others.
    pub(crate) fn top(&self) -> &Path {
        self.folder.path()
    }

    /// A text with its addresses replaced.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let mut mapped = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(colon) = rest.find(':') {
            let (before, behind) = rest.split_at(colon + 1);
            mapped.push_str(before);
            let digits =
                behind.len() - behind.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            match behind[..digits].parse() {
                Ok(port) if digits >= PORT_DIGITS_MIN => {
                    mapped.push_str(&self.port(port).to_string());
                    rest = &behind[digits..];
                }
                _ => rest = behind,
            }
        }
        mapped.push_str(rest);
        let mapped = mapped.replace("://:", "://127.0.0.1:");
        let named =
            |mapped: String, host: &String| mapped.replace(&format!("//{host}:"), "//127.0.0.1:");
        self.hosts.iter().fold(mapped, named)
    }

    /// The address that replaces this one.
    pub(crate) fn address(&mut self, text: &str) -> SocketAddr {
        let mapped = self.text(text);
        mapped.parse().unwrap_or_else(|_| panic!("{text} is {mapped}, which is not an address"))
    }

    fn port(&mut self, number: u16) -> u16 {
        self.ports.entry(number).or_insert_with(Port::reserve).number()
    }
}

#[test]
fn ports_and_hosts_are_mapped_and_the_rest_is_unchanged() {
    let mut host_mapping = HostMapping::new(["kafka".to_owned()].into_iter());
    let (a, b) = (host_mapping.port(9092), host_mapping.port(19092));
    let mapped = host_mapping.text("INTERNAL://kafka:19092,HOST://:9092,C:PLAINTEXT,x:1.2,y:12");
    let expected = format!("INTERNAL://127.0.0.1:{b},HOST://127.0.0.1:{a},C:PLAINTEXT,x:1.2,y:12");
    assert_eq!(mapped, expected);
    assert_eq!(host_mapping.address("127.0.0.1:9092").port(), a);
}
