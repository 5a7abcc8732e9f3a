//! Runs the services of the Compose file as processes, with their commands and variables.
//!
//! Only addresses and folders are mapped. Like a container, a process gets nothing of the test's
//! own environment. The broker's variables go through the class that starts Kafka in its image,
//! which turns them into properties and formats the folder.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tidewire_tests::broker::java;
use tidewire_tests::event_source::EventSource;
use tidewire_tests::http::HttpClient;
use tidewire_tests::{process, server};

use crate::deploy::compose::{Compose, Service, grammar};
use crate::deploy::dockerfile::stages;
use crate::deploy::host_mapping::HostMapping;
use crate::deploy::prometheus;

/// A start on a machine busy with other tests.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// How long one event may take through all roles on such a machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);
/// How often a condition is polled.
const POLL: Duration = Duration::from_millis(20);
/// What Kafka logs once it serves.
const KAFKA_SERVES: &str = "Kafka Server started";
/// The exit code of a clean stop by `SIGTERM`, as Java reports it.
const JAVA_STOPPED: i32 = 143;

/// The metric that each role increments for an event.
const COUNTED: &[(&str, &str)] = &[
    ("admit", "tidewire_admit_events_total"),
    ("derive", "tidewire_derive_events_total"),
    ("gateway", "tidewire_fanout_deliveries_total"),
];

/// The file, and the mapping of its addresses and folders.
struct Deployment {
    compose: Compose,
    host_mapping: HostMapping,
}

/// A service's process; dropping it kills it.
struct ServiceProcess {
    name: String,
    child: Child,
    printed: PathBuf,
}

/// The result of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Healthy,
    Unhealthy,
}

impl Deployment {
    fn new() -> Self {
        let compose = Compose::read();
        let hosts: Vec<String> = compose.services.keys().cloned().collect();
        Self { compose, host_mapping: HostMapping::new(hosts.into_iter()) }
    }

    fn service(&self, name: &str) -> Service {
        self.compose.service(name).clone()
    }

    /// A command with only the environment of a service.
    fn command(&mut self, name: &str, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).env_clear();
        command.env("PATH", std::env::var_os("PATH").expect("there is a path"));
        for (variable, value) in self.service(name).environment {
            command.env(variable, self.host_mapping.text(&value));
        }
        command
    }

    /// A command of our image; `words` are its arguments.
    fn ours(&mut self, name: &str, words: &[String]) -> Command {
        let binary = server::command().get_program().to_str().expect("a path of text").to_owned();
        let mut command = self.command(name, &binary);
        let image = stages().pop().expect("an image has a stage");
        for (variable, path) in image.variables() {
            command.env(variable, self.host_mapping.folder(name, &path));
        }
        command.current_dir(self.host_mapping.folder(name, image.only("WORKDIR")));
        command.args(words.iter().map(|word| self.host_mapping.text(word)));
        command
    }

    /// Starts one of our services.
    fn start(&mut self, name: &str) -> ServiceProcess {
        let words = self.service(name).command;
        let command = self.ours(name, &words);
        self.spawn(name, command)
    }

    fn spawn(&self, name: &str, mut command: Command) -> ServiceProcess {
        let printed = self.host_mapping.top().join(format!("{name}.log"));
        let out = File::create(&printed).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let child = command.spawn().expect("setpriv is there, and what it starts");
        ServiceProcess { name: name.into(), child, printed }
    }

    /// Where a role listens.
    fn address(&mut self, name: &str) -> SocketAddr {
        let listen = &self.service(name).environment["TIDEWIRE_LISTEN"];
        self.host_mapping.address(listen)
    }

    /// Starts Kafka as its image does.
    fn start_kafka(&mut self) -> ServiceProcess {
        let service = self.service("kafka");
        let data = &service.environment["KAFKA_LOG_DIRS"];
        let data = self.host_mapping.folder("kafka", data);
        let [defaults, mounted, made] =
            ["defaults", "mounted", "made"].map(|name| self.host_mapping.folder("kafka", name));
        for name in ["server.properties", "log4j2.yaml", "tools-log4j2.yaml"] {
            fs::write(defaults.join(name), "").unwrap();
        }
        let mut setup = self.command("kafka", "java");
        setup.env("KAFKA_LOG_DIRS", &data).args(java::small_arguments(128));
        setup.args(["kafka.docker.KafkaDockerWrapper", "setup", "--default-configs-dir"]);
        setup.arg(defaults).arg("--mounted-configs-dir").arg(mounted);
        setup.arg("--final-configs-dir").arg(&made);
        let mut setup = self.spawn("kafka-setup", setup);
        assert_eq!(setup.end(READY_LIMIT).code(), Some(0), "{}", setup.printed());
        let mut serve = self.command("kafka", "java");
        serve.args(java::small_arguments(128));
        serve.args(service.environment["KAFKA_HEAP_OPTS"].split(' '));
        serve.arg("kafka.Kafka").arg(made.join("server.properties"));
        let mut kafka = self.spawn("kafka", serve);
        kafka.wait_until("it serves", |kafka| kafka.printed().contains(KAFKA_SERVES));
        kafka
    }

    /// Runs Kafka's health check: the script is one line around a class.
    fn check_kafka(&mut self) {
        let check = self.service("kafka").healthcheck.unwrap().test;
        let [shell, line] = &check[..] else { panic!("{check:?}") };
        assert_eq!(shell, "CMD-SHELL");
        let words: Vec<&str> = line.split_whitespace().collect();
        let [heap, script, flag, at] = words[..] else { panic!("{line}") };
        assert!(
            heap.starts_with("KAFKA_HEAP_OPTS="),
            "without it the check takes the broker's heap size"
        );
        assert_eq!(script, "/opt/kafka/bin/kafka-broker-api-versions.sh");
        let class = "org.apache.kafka.tools.BrokerApiVersionsCommand";
        java::run(class, &[flag, &self.host_mapping.text(at)]);
    }

    /// Runs the one service that ends by itself.
    fn create_topics(&mut self, says: &str) {
        let mut topics = self.start("topics");
        assert_eq!(topics.end(READY_LIMIT).code(), Some(0), "{}", topics.printed());
        assert!(topics.printed().contains(says), "{}", topics.printed());
    }

    /// Runs the health check of one of our services.
    fn check_health(&mut self, name: &str, expected: Health) {
        let check = self.service(name).healthcheck.unwrap().test;
        let [kind, program, words @ ..] = &check[..] else { panic!("{name}: {check:?}") };
        assert_eq!((kind.as_str(), program.as_str()), ("CMD", "tidewire"), "{name}");
        grammar(words).unwrap_or_else(|why| panic!("{name}: {why}"));
        let output = self.ours(name, words).output().unwrap();
        let health = if output.status.success() { Health::Healthy } else { Health::Unhealthy };
        assert_eq!(health, expected, "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Posts one event and reads it from a stream.
    fn send_one_event(&mut self) {
        let gateway = self.address("gateway");
        let path = "/v1/sse?channels=timeline:demo&from=earliest";
        let event = br#"{"event_id":"deployed-1","event_type":"post.created","account_id":"demo",
            "data":{"post_id":"p1","author_id":"ann","text":"from container to container"}}"#;
        let mut http = HttpClient::connect(gateway).unwrap();
        let answer = http.post("/v1/events", "application/json", event).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text());
        let mut stream = EventSource::open(gateway, path, None, None).unwrap();
        let got = stream.next_event(ARRIVAL_LIMIT).unwrap().expect("it arrives");
        assert_eq!(got.event_id, "deployed-1");
        assert_eq!(got.data_str("text"), "from container to container");
    }

    /// Checks at every target of Prometheus what the role has counted.
    fn check_metrics(&mut self) {
        let targets = prometheus::PrometheusConfig::read().targets();
        assert_eq!(targets.len(), COUNTED.len());
        for (role, metric) in COUNTED {
            let at = self.host_mapping.address(&targets[*role]);
            let deadline = Instant::now() + ARRIVAL_LIMIT;
            // A transaction is counted when it has ended, which may be after the event was
            // delivered.
            while counted(at, metric) < 1.0 {
                assert!(Instant::now() < deadline, "{role}: {metric} is still 0");
                thread::sleep(POLL);
            }
            assert!(counted(at, "tidewire_build_info") > 0.0, "{role} exports its build");
        }
    }
}

/// The sum of a metric over its labels.
fn counted(at: SocketAddr, metric: &str) -> f64 {
    let answer = HttpClient::connect(at).unwrap().get("/metrics").unwrap();
    assert_eq!(answer.status, 200);
    let text = answer.text();
    let lines = text
        .lines()
        .filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with([' ', '{'])));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

impl ServiceProcess {
    fn printed(&self) -> String {
        fs::read_to_string(&self.printed).unwrap_or_default()
    }

    /// Waits until it ends.
    fn end(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None if Instant::now() < deadline => thread::sleep(POLL),
                None => panic!("{}: still running after {limit:?}:\n{}", self.name, self.printed()),
            }
        }
    }

    fn wait_until(&mut self, what: &str, came: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + READY_LIMIT;
        while !came(self) {
            let ended = self.child.try_wait().unwrap();
            let waits = ended.is_none() && Instant::now() < deadline;
            assert!(waits, "{}: not {what}, {ended:?}:\n{}", self.name, self.printed());
            thread::sleep(POLL);
        }
    }

    /// Waits until its `/readyz` reports ready.
    fn wait_ready(&mut self, at: SocketAddr) {
        self.wait_until("ready", |_| {
            let asked = HttpClient::connect(at).and_then(|mut http| http.get("/readyz"));
            asked.is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Stops it as `docker compose down` does.
    fn stop(mut self, service: &Service) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.end(service.stop_grace().expect("it has a grace period"))
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_services_run_as_the_file_says_and_deliver_an_event() {
    let mut deployment = Deployment::new();
    let kafka = deployment.start_kafka();
    deployment.check_kafka();

    deployment.create_topics("topics created, 0 existed");
    let names: Vec<String> = deployment.compose.roles().map(|(name, ..)| name.to_owned()).collect();
    let mut roles: Vec<ServiceProcess> = names.iter().map(|name| deployment.start(name)).collect();
    for role in &mut roles {
        let at = deployment.address(&role.name);
        role.wait_ready(at);
        deployment.check_health(&role.name, Health::Healthy);
    }
    deployment.send_one_event();
    deployment.check_metrics();
    // The next `up` runs it again.
    deployment.create_topics("0 topics created, ");
    for role in &roles {
        let used = process::usage(role.child.id()).unwrap().resident_bytes;
        let limit = deployment.service(&role.name).memory_bytes();
        assert!(used < limit / 2, "{}: {used} of {limit} bytes without any load", role.name);
    }
    for role in roles {
        let (name, printed) = (role.name.clone(), role.printed());
        let status = role.stop(&deployment.service(&name));
        assert_eq!(status.code(), Some(0), "{name}: {printed}");
        deployment.check_health(&name, Health::Unhealthy);
        let data = stages().pop().unwrap().only("WORKDIR").to_owned();
        let kept = fs::read_dir(deployment.host_mapping.folder(&name, &data)).unwrap().count() > 0;
        let mounted = deployment.service(&name).mounts().iter().any(|mount| mount.target == data);
        assert_eq!(kept, mounted, "{name} writes where it has a volume and nowhere else");
    }
    let status = kafka.stop(&deployment.service("kafka"));
    assert_eq!(status.code(), Some(JAVA_STOPPED), "{status}");
}
