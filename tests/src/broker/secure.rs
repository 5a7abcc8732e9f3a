//! A second listener with TLS, SCRAM-SHA-256 and access control.
//!
//! The plain listener allows everything, so that a test can prepare the broker. On the secure one
//! there are two users: [`OWNER`] may do anything, [`GUEST`] nothing until a right is granted, for
//! example by [`super::Broker::grant`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user who may do anything.
pub const OWNER: &str = "owner";

/// A user who may do nothing until it is granted.
pub const GUEST: &str = "guest";

/// The password of both.
pub const PASSWORD: &str = "a-secret-for-tests";

/// Kafka's tool that grants rights.
pub(super) const ACLS: &str = "org.apache.kafka.tools.AclCommand";

/// The certificate of the authority in a broker's folder.
pub(super) fn ca_pem(folder: &Path) -> PathBuf {
    folder.join("ca.pem")
}

/// Makes certificates for 127.0.0.1 in this folder: the authority's, `ca.pem`, and one signed by
/// it, with its key, `broker.pem`.
pub fn make_certificates(folder: &Path) {
    let may_sign = "basicConstraints=critical,CA:true";
    let ca = ["-subj", "/CN=tidewire test authority", "-addext", may_sign, "-out", "ca.pem"];
    openssl(folder, "ca.key", &ca);
    let signed_by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=localhost"];
    let names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    let leaf = ["-addext", "basicConstraints=critical,CA:false", "-out", "broker.crt"];
    openssl(folder, "broker.key", &[&signed_by[..], &names, &leaf].concat());
    let read = |name| fs::read_to_string(folder.join(name)).expect("openssl wrote it");
    fs::write(folder.join("broker.pem"), read("broker.key") + &read("broker.crt")).expect("ours");
}

/// Makes the certificates in this folder and returns the properties that go with them.
pub(super) fn prepare(folder: &Path) -> String {
    make_certificates(folder);
    let keystore = folder.join("broker.pem");
    format!(
        "sasl.enabled.mechanisms=SCRAM-SHA-256\n\
         listener.name.secure.scram-sha-256.sasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
         listener.name.secure.ssl.keystore.type=PEM\n\
         listener.name.secure.ssl.keystore.location={}\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:ANONYMOUS;User:{OWNER}\n",
        keystore.display()
    )
}

/// The users in the syntax of the formatting tool.
pub(super) fn users() -> Vec<String> {
    let user = |name| format!("SCRAM-SHA-256=[name={name},password={PASSWORD}]");
    [OWNER, GUEST].map(user).into()
}

fn openssl(folder: &Path, key: &str, arguments: &[&str]) {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
    command.args(["ec_paramgen_curve:P-256", "-noenc", "-days", "3650", "-keyout", key]);
    let output = command.args(arguments).output();
    let output = output.expect("openssl is there: scripts/install.sh test installs it");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {errors}");
}
