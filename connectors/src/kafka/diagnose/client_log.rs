//! Connects to the cluster as our clients do, and captures librdkafka's errors and debug log.
//!
//! No call returns the reason for a rejected certificate or password: the call only times out, and
//! the cause is among the errors that the client reports meanwhile. The operations a broker
//! supports are only in the debug log; behind TLS there is no other way to learn them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message, Timestamp};
use rdkafka::metadata::Metadata;
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::Isolation;

use super::LIMIT;
use super::security::Security;
use super::wire::Apis;
use crate::clock;
use crate::kafka::config::Config;
use crate::kafka::context::lock;
use crate::kafka::native;

/// How long one attempt lasts before the captured errors are checked.
const ATTEMPT: Duration = Duration::from_millis(500);

/// Events of the client that are served at most at a time.
const EVENTS_MAX: usize = 10_000;

/// Captures what a client reports, for a finding. Nothing of it is logged.
#[derive(Debug, Default)]
pub(super) struct CapturingContext {
    errors: Mutex<Vec<(Code, String)>>,
    /// The last logged failure of a connection.
    failure: Mutex<Option<String>>,
    /// The operations of each broker, by `HOST:PORT`.
    apis: Mutex<BTreeMap<String, Apis>>,
    /// The acknowledgement of the one record that is in flight.
    appended: Mutex<Option<Result<Timestamp, Code>>>,
}

impl CapturingContext {
    /// Takes the acknowledgement of the record, if it is there.
    pub(super) fn appended(&self) -> Option<Result<Timestamp, Code>> {
        lock(&self.appended).take()
    }

    fn first_error(&self, is: impl Fn(Code) -> bool) -> Option<String> {
        lock(&self.errors).iter().find(|(code, _)| is(*code)).map(|(_, text)| text.clone())
    }

    /// The first error of a certificate or login, which waiting does not correct.
    fn authentication_error(&self) -> Option<String> {
        self.first_error(is_authentication_error)
    }
}

fn is_authentication_error(code: Code) -> bool {
    matches!(code, Code::SSL | Code::Authentication | Code::SaslAuthenticationFailed)
}

impl ClientContext for CapturingContext {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some((broker, (operation, most))) = read_api_line(message) {
            lock(&self.apis).entry(broker).or_default().insert(operation, most);
        } else if facility == "FAIL" {
            // The library may not report a closed connection as an error.
            *lock(&self.failure) = Some(message.to_owned());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        // `AllBrokersDown` only summarises earlier errors.
        if !matches!(code, Code::AllBrokersDown | Code::PartitionEOF) {
            lock(&self.errors).push((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for CapturingContext {}

impl ProducerContext for CapturingContext {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        *lock(&self.appended) = Some(match delivered {
            Ok(message) => Ok(message.timestamp()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        });
    }
}

/// Reads a line such as `…: ssl://h:9093/1:   ApiKey Metadata (3) Versions 0..13`: the broker, the
/// operation and the largest version of it.
fn read_api_line(line: &str) -> Option<(String, (i16, i16))> {
    let (before, operation) = line.split_once("ApiKey ")?;
    let broker = before.trim_end_matches([' ', ':']).rsplit([' ', '/']).nth(1)?;
    let (_, numbers) = operation.split_once('(')?;
    let (operation, versions) = numbers.split_once(')')?;
    let (_, most) = versions.split_once("..")?;
    Some((broker.to_owned(), (operation.parse().ok()?, most.trim().parse().ok()?)))
}

/// The cluster as one of our clients sees it.
pub(super) struct ClusterView {
    pub(super) client: BaseConsumer<CapturingContext>,
    pub(super) metadata: Metadata,
}

impl ClusterView {
    /// Every broker of the cluster: its number and its advertised address.
    pub(super) fn brokers(&self) -> Vec<(i32, String)> {
        let at = |host: &str, port: i32| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        self.metadata.brokers().iter().map(|b| (b.id(), at(b.host(), b.port()))).collect()
    }

    /// The operations of the brokers that were connected to, by `HOST:PORT`.
    pub(super) fn apis(&self) -> BTreeMap<String, Apis> {
        serve(&self.client);
        lock(&self.client.context().apis).clone()
    }
}

fn serve(client: &BaseConsumer<CapturingContext>) {
    for _ in 0..EVENTS_MAX {
        if !native::has_events(client) {
            break;
        }
        // It returns an error, which the context has captured.
        let _ = client.poll(Duration::ZERO);
    }
}

/// Reads the cluster's metadata; an error is a sentence with the fix.
pub(super) fn connect(config: &Config) -> Result<ClusterView, String> {
    let client: BaseConsumer<CapturingContext> = settings(config)
        .create_with_context(CapturingContext::default())
        .map_err(|error| format!("can't create a Kafka client: {error}; check kafka.properties"))?;
    let begun = clock::now();
    let last = loop {
        let asked = client.fetch_metadata(None, ATTEMPT);
        serve(&client);
        match asked {
            Ok(metadata) => return Ok(ClusterView { client, metadata }),
            Err(error)
                if client.context().authentication_error().is_some() || begun.elapsed() > LIMIT =>
            {
                break error;
            }
            Err(_) => {}
        }
    };
    Err(explain(client.context(), config, &last))
}

fn settings(config: &Config) -> ClientConfig {
    let mut settings = config.reader(Isolation::Uncommitted, None);
    settings.set("debug", "feature").set_log_level(RDKafkaLogLevel::Debug);
    settings.set("socket.connection.setup.timeout.ms", LIMIT.as_millis().to_string());
    settings
}

fn explain(context: &CapturingContext, config: &Config, last: &KafkaError) -> String {
    let at = &config.bootstrap;
    if let Some(error) = context.first_error(|code| code == Code::SSL) {
        return explain_tls(at, &error);
    }
    if let Some(error) = context.authentication_error() {
        return format!(
            "{at} rejects the login ({}); correct sasl.username, sasl.password and \
             sasl.mechanism in kafka.properties",
            shorten(&error)
        );
    }
    let failure = lock(&context.failure).clone().unwrap_or_else(|| last.to_string());
    // A listener with SASL answers `ApiVersions` without a login and closes at the next request.
    let is_cut_off = failure.contains("Disconnected") && failure.contains("in state UP");
    if is_cut_off && Security::of(config).mechanism.is_none() {
        return format!(
            "{at} requires a login and none is configured; set security.protocol = \"SASL_SSL\", \
             sasl.mechanism, sasl.username and sasl.password in kafka.properties"
        );
    }
    format!(
        "{at} does not return the list of brokers ({}); check that broker's log",
        shorten(&failure)
    )
}

fn explain_tls(at: &str, error: &str) -> String {
    let why = shorten(error);
    if error.contains("certificate verify failed") {
        format!(
            "the certificate of {at} is not trusted ({why}); set ssl.ca.location in \
             kafka.properties to the certificate of its authority, and use an address that the \
             certificate names"
        )
    } else if error.contains("client SSL authentication") || error.contains("certificate required")
    {
        format!(
            "{at} requires a client certificate ({why}); set ssl.certificate.location and \
             ssl.key.location in kafka.properties"
        )
    } else {
        format!(
            "the TLS handshake with {at} failed ({why}); check the properties ssl.* in \
             kafka.properties"
        )
    }
}

/// An error of the client without details for developers: thread, name of the connection, location
/// in OpenSSL, duration.
fn shorten(error: &str) -> &str {
    let error =
        error.strip_prefix("[thrd:").and_then(|s| s.split_once("]: ")).map_or(error, |s| s.1);
    let (named, rest) = error.split_once(": ").unwrap_or(("", error));
    let error = if named.contains('/') { rest } else { error };
    let error = match error.split_once("SSL routines:") {
        Some((_, reason)) => reason.trim_start_matches(':').split(": ").next().unwrap_or(error),
        None => error,
    };
    error.rsplit_once(" (after ").map_or(error, |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_debug_log_is_parsed_into_an_operation() {
        let line = "[thrd:sasl_ssl://127.0.0.1:9093/bootstrap]: \
                    sasl_ssl://127.0.0.1:9093/bootstrap:   ApiKey Metadata (3) Versions 0..13";
        assert_eq!(read_api_line(line), Some(("127.0.0.1:9093".into(), (3, 13))));
        let line = "[thrd:h:1/2]: h:1/2:   ApiKey Unknown-70? (70) Versions 0..0";
        assert_eq!(read_api_line(line), Some(("h:1".into(), (70, 0))));
        assert_eq!(read_api_line("[thrd:main]: Broker API support:"), None);
    }

    #[test]
    fn an_error_is_shortened_to_its_cause() {
        let error =
            "sasl_ssl://h:1/bootstrap: SASL authentication error: no (after 3ms in state X)";
        assert_eq!(shorten(error), "SASL authentication error: no");
        let error = "[thrd:ssl://h:1/1]: ssl://h:1/1: Disconnected: why (after 3ms in state UP)";
        assert_eq!(shorten(error), "Disconnected: why");
        let error = "ssl://h:1/1: SSL handshake failed: x.c:1:f error:0A000086:SSL routines::\
                    certificate verify failed: broker certificate: see (after 1ms in state Y)";
        assert_eq!(shorten(error), "certificate verify failed");
        assert_eq!(shorten("plain: text"), "plain: text");
    }
}
