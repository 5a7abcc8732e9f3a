//! Recognises environment variables that Kubernetes services and Docker links add to a container.
//!
//! Beside a service called `tidewire` or `tidewire-gateway` they begin like our settings, but
//! nobody gave them. Both the shape of the name and the value have to match, so that a misspelt
//! setting is still an error. A real setting is looked up first and is never hidden by this.
//!
//! ```text
//! TIDEWIRE[_…]_SERVICE_HOST            an IP address        Kubernetes
//! TIDEWIRE[_…]_SERVICE_PORT[_NAME]     a port               Kubernetes
//! TIDEWIRE[_…]_PORT                    tcp://IP:PORT        both
//! TIDEWIRE[_…]_PORT_8080_TCP           tcp://IP:8080        both
//! TIDEWIRE[_…]_PORT_8080_TCP_ADDR      an IP address        both; _PORT a port, _PROTO tcp
//! TIDEWIRE[_…]_PORT_8080_TCP_START     tcp://IP:8080       Docker, for a range; _END, …
//! TIDEWIRE[_…]_NAME                    /container/alias     Docker
//! TIDEWIRE[_…]_ENV_NAME                any text, beside such a _NAME     Docker
//! ```

use std::net::{IpAddr, SocketAddr};

/// What the name of every such variable of ours begins with: the service's name in capitals.
const SERVICE: &str = "TIDEWIRE";

/// Protocols of a port.
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// The containers that are linked under a name like ours, by their first characters, such as
/// `TIDEWIRE_GATEWAY`.
pub(super) fn linked_containers(variables: &[(String, String)]) -> Vec<String> {
    let aliases = variables.iter().filter_map(|(name, value)| {
        let alias = service_before(name, "_NAME")?;
        is_link_name(value).then(|| alias.to_owned())
    });
    aliases.collect()
}

/// Whether Kubernetes or Docker made this variable. `linked` is the result of
/// [`linked_containers`].
pub(super) fn is_service_link(name: &str, value: &str, linked: &[String]) -> bool {
    let of_link = |alias: &String| name.strip_prefix(alias.as_str()).is_some_and(is_env);
    is_service(name, value)
        || is_endpoint(name, value)
        || (service_before(name, "_NAME").is_some() && is_link_name(value))
        || linked.iter().any(of_link)
}

/// `_ENV_` and the name of a variable of the linked container.
fn is_env(rest: &str) -> bool {
    rest.strip_prefix("_ENV_").is_some_and(|inner| !inner.is_empty())
}

/// The service before a suffix.
fn service_before<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    name.strip_suffix(suffix).filter(|service| is_service_name(service))
}

/// `TIDEWIRE`, or a name that goes on after it, such as `TIDEWIRE_GATEWAY`.
fn is_service_name(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(SERVICE) else { return false };
    rest.is_empty() || (rest.len() > 1 && rest.starts_with('_') && is_name(rest))
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.bytes().all(plain)
}

/// `_SERVICE_HOST`, `_SERVICE_PORT` and `_SERVICE_PORT_NAME`.
fn is_service(name: &str, value: &str) -> bool {
    if service_before(name, "_SERVICE_HOST").is_some() {
        return is_address(value);
    }
    let named = name
        .match_indices("_SERVICE_PORT_")
        .any(|(at, mark)| is_service_name(&name[..at]) && is_name(&name[at + mark.len()..]));
    (named || service_before(name, "_SERVICE_PORT").is_some()) && is_port(value)
}

/// `_PORT`, and what follows it for one port.
fn is_endpoint(name: &str, value: &str) -> bool {
    name.match_indices("_PORT").any(|(at, mark)| {
        is_service_name(&name[..at]) && is_endpoint_of(&name[at + mark.len()..], value)
    })
}

/// What follows `_PORT`: nothing, or a port, its protocol and one of its parts.
fn is_endpoint_of(rest: &str, value: &str) -> bool {
    if matches!(rest, "" | "_START" | "_END") {
        return is_url(value);
    }
    let mut words = rest.split('_').skip(1);
    let (Some(port), Some(protocol)) = (words.next(), words.next()) else { return false };
    let of_port = is_port(port) && PROTOCOLS.contains(&protocol.to_ascii_lowercase().as_str());
    let part = words.next();
    of_port
        && words.next().is_none()
        && match part {
            None | Some("START" | "END") => is_url(value),
            Some("ADDR") => is_address(value),
            Some("PORT") => is_port(value),
            Some("PROTO") => PROTOCOLS.contains(&value),
            Some(_) => false,
        }
}

/// `tcp://10.0.0.1:8080`.
fn is_url(value: &str) -> bool {
    let Some((protocol, address)) = value.split_once("://") else { return false };
    PROTOCOLS.contains(&protocol) && (address.parse::<SocketAddr>().is_ok() || is_bare_v6(address))
}

/// An IPv6 address and a port without brackets, as older Kubernetes writes it.
fn is_bare_v6(address: &str) -> bool {
    let parts = address.rsplit_once(':');
    parts.is_some_and(|(host, port)| host.contains(':') && is_address(host) && is_port(port))
}

fn is_address(value: &str) -> bool {
    value.parse::<IpAddr>().is_ok()
}

fn is_port(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit()) && value.parse::<u16>().is_ok()
}

/// `/container/alias`.
fn is_link_name(value: &str) -> bool {
    let mut parts = value.split('/');
    let (before, container, alias) = (parts.next(), parts.next(), parts.next());
    before == Some("")
        && container.is_some_and(|part| !part.is_empty())
        && alias.is_some_and(|part| !part.is_empty())
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{SETTINGS, Settings, variable_of};

    /// The variables that Kubernetes makes for a service with the ports `http` and `metrics`, and
    /// Docker for a link.
    fn made_for(service: &str) -> Vec<(String, String)> {
        let kubernetes = [
            ("SERVICE_HOST", "10.96.0.12"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_PORT_HTTP", "8080"),
            ("SERVICE_PORT_METRICS_V2", "9100"),
            ("PORT", "tcp://10.96.0.12:8080"),
            ("PORT_8080_TCP", "tcp://10.96.0.12:8080"),
            ("PORT_8080_TCP_PROTO", "tcp"),
            ("PORT_8080_TCP_PORT", "8080"),
            ("PORT_8080_TCP_ADDR", "10.96.0.12"),
            ("PORT_53_UDP", "udp://10.96.0.12:53"),
            ("PORT_53_UDP_PROTO", "udp"),
            ("PORT_36412_SCTP_ADDR", "fd00::12"),
            ("PORT_80_TCP", "tcp://[fd00::12]:80"),
            ("PORT_81_TCP", "tcp://fd00::12:81"),
        ];
        let docker = [
            ("PORT", "tcp://172.17.0.5:8080"),
            ("PORT_8080_TCP_START", "tcp://172.17.0.5:8080"),
            ("PORT_8081_TCP_END", "tcp://172.17.0.5:8081"),
            ("PORT_START", "tcp://172.17.0.5:8080"),
            ("PORT_END", "tcp://172.17.0.5:8081"),
            ("NAME", "/web/tidewire"),
            ("ENV_JAVA_HOME", "/usr/lib/jvm"),
            ("ENV_TIDEWIRE_LISTEN", ""),
        ];
        let named = |(name, value): &(&str, &str)| (format!("{service}_{name}"), (*value).into());
        kubernetes.iter().chain(&docker).map(named).collect()
    }

    fn problems(variables: Vec<(String, String)>) -> Vec<String> {
        let mut settings = Settings::defaults();
        settings.add_variables(variables.into_iter());
        settings.problems().to_vec()
    }

    /// Services of a deployment; the last ones have the names of settings and of the suffixes.
    const SERVICES: [&str; 8] = [
        "TIDEWIRE",
        "TIDEWIRE_GATEWAY",
        "TIDEWIRE_2",
        "TIDEWIRE_A_B_C",
        "TIDEWIRE_LISTEN",
        "TIDEWIRE_TOPICS_PARTITIONS",
        "TIDEWIRE_PORT",
        "TIDEWIRE_SERVICE_PORT",
    ];

    #[test]
    fn what_kubernetes_and_docker_add_for_a_service_is_ignored() {
        for service in SERVICES {
            assert_eq!(problems(made_for(service)), [] as [String; 0], "{service}");
        }
    }

    #[test]
    fn a_wrong_value_or_a_misspelt_name_is_still_an_error() {
        let made = |(name, _): &(String, String)| !name.contains("_ENV_");
        for (name, value) in made_for("TIDEWIRE").into_iter().filter(made) {
            for wrong in ["", "yes", "8080 ", "-1", "65536", "http://h:1", "10.0.0", "/a", "a/b/c"]
            {
                let given = vec![(name.clone(), wrong.to_owned())];
                assert_eq!(problems(given).len(), 1, "{name}={wrong}");
            }
            // One character is missing: another name, so another variable.
            for at in "TIDEWIRE_".len()..name.len() {
                let mut shorter = name.clone();
                shorter.remove(at);
                let digits = name.as_bytes()[at].is_ascii_digit();
                let named = name.contains("_SERVICE_PORT_") && at >= "TIDEWIRE_SERVICE_PORT_".len();
                if !digits && !named && shorter != name {
                    assert_eq!(problems(vec![(shorter, value.clone())]).len(), 1, "{name} at {at}");
                }
            }
        }
    }

    #[test]
    fn no_other_service_and_no_container_that_is_not_linked_is_recognised() {
        for (name, value) in [
            ("TIDEWIRE_ENV_HOME", "/root"),
            ("TIDEWIREX_PORT", "tcp://10.0.0.1:1"),
            ("TIDEWIRE__SERVICE_HOST_", "10.0.0.1"),
            ("TIDEWIRE_web_SERVICE_HOST", "10.0.0.1"),
            ("TIDEWIRE_LISTEN_PORT", "8080"),
            ("TIDEWIRE_PORT", "8080"),
            ("TIDEWIRE_HOST", "10.0.0.1"),
        ] {
            assert!(!is_service_link(name, value, &[]), "{name}={value}");
        }
        // Docker's variables of another container of the same prefix.
        let linked = vec!["TIDEWIRE_WEB".to_owned()];
        assert!(is_service_link("TIDEWIRE_WEB_ENV_A", "b", &linked));
        assert!(!is_service_link("TIDEWIRE_WEBSITE_ENV_A", "b", &linked));
        assert!(!is_service_link("TIDEWIRE_WEB_ENV_", "b", &linked));
    }

    #[test]
    fn a_setting_is_never_hidden_and_none_has_such_a_name() {
        for setting in SETTINGS {
            let name = variable_of(setting.key);
            for (_, value) in made_for("TIDEWIRE") {
                assert!(!is_service_link(&name, &value, &[]), "{name}={value}");
                let mut settings = Settings::defaults();
                let given = [(name.clone(), value.clone())].into_iter();
                settings.add_variables(given);
                assert_eq!(settings.value(setting.key).text, value);
            }
            // One character is missing in a setting's name: not ignored, whatever the value.
            for at in "TIDEWIRE_".len()..name.len() {
                let mut misspelt = name.clone();
                misspelt.remove(at);
                for (_, value) in made_for("TIDEWIRE") {
                    assert_eq!(problems(vec![(misspelt.clone(), value)]).len(), 1, "{misspelt}");
                }
            }
        }
    }
}
