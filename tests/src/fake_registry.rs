//! A fake schema registry that serves the used part of Confluent's API over HTTP.
//!
//! It stores schemas, assigns ids and checks compatibility, and a test can make it fail. It serves
//! one request per connection, each in a thread: what is tested is the client. It records every
//! request, so that a test can count them.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidewire_schemas::codec::guid_text;

/// A body larger than any test sends.
const BODY_BYTES_MAX: usize = 16 << 20;

/// How it responds.
#[derive(Clone, Debug, Default)]
pub enum RegistryBehaviour {
    /// As a registry does.
    #[default]
    Normal,
    /// Closes every connection at once.
    Down,
    /// Correctly, but this much later.
    Slow(Duration),
    /// With this status and body, whatever the request.
    Fixed(u16, String),
    /// With 200 and one JSON text of this many bytes.
    Huge(usize),
}

/// A registered schema.
#[derive(Clone, Debug)]
struct RegisteredSchema {
    text: String,
    /// `AVRO`, `JSON` or `PROTOBUF`.
    kind: String,
    references: Value,
}

#[derive(Default)]
struct RegistryState {
    /// By id; the first is 1.
    schemas: Vec<RegisteredSchema>,
    /// Ids of the versions; the first version is 1.
    subjects: BTreeMap<String, Vec<usize>>,
    behaviour: RegistryBehaviour,
    /// Whether it finds schemas by GUID, as newer versions of Confluent's do.
    has_guids: bool,
    /// The `Authorization` header it requires.
    authorization: Option<String>,
    /// `GET /subjects` and so on.
    requests: Vec<String>,
}

/// A running registry; dropping it stops it.
pub struct FakeRegistry {
    addr: SocketAddr,
    state: Arc<Mutex<RegistryState>>,
    stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// A status and a JSON body.
type RegistryResponse = (u16, Value);

impl FakeRegistry {
    /// Starts an empty one on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let (state, stopped) =
            (Arc::<Mutex<RegistryState>>::default(), Arc::<AtomicBool>::default());
        let (shared, ends) = (Arc::clone(&state), Arc::clone(&stopped));
        let accepting = thread::spawn(move || {
            for stream in listener.incoming().map_while(io::Result::ok) {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&shared);
                // Clients that disconnect halfway are one of the things that are tested.
                thread::spawn(move || serve(stream, &shared).ok());
            }
        });
        Self { addr, state, stopped, accepting: Some(accepting) }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Registers an Avro schema without checking its compatibility, and returns its id.
    pub fn put(&self, subject: &str, schema: &str) -> u32 {
        self.put_as(subject, ("AVRO", schema), &[])
    }

    /// The same for any kind of schema, which may refer to versions of other subjects.
    pub fn put_as(&self, subject: &str, schema: (&str, &str), refers: &[(&str, u64)]) -> u32 {
        let references = refers.iter().map(
            |(subject, version)| json!({"name": subject, "subject": subject, "version": version}),
        );
        let (kind, text) = (schema.0.to_owned(), schema.1.to_owned());
        let stored = RegisteredSchema { text, kind, references: references.collect() };
        let id = self.state().add(subject, stored);
        u32::try_from(id).expect("few schemas are registered")
    }

    /// Finds schemas by GUID from now on.
    pub fn find_by_guid(&self) {
        self.state().has_guids = true;
    }

    /// The GUID of a schema, big-endian.
    pub fn guid(id: u32) -> u128 {
        0x0f1e_2d3c_4b5a_6978_8796_a5b4_0000_0000 + u128::from(id)
    }

    /// Responds like this from now on.
    pub fn set_behaviour(&self, behaviour: RegistryBehaviour) {
        self.state().behaviour = behaviour;
    }

    /// Requires this user from now on.
    pub fn require_user(&self, username: &str, password: &str) {
        let pair = STANDARD.encode(format!("{username}:{password}"));
        self.state().authorization = Some(format!("Basic {pair}"));
    }

    /// Requires this bearer token from now on.
    pub fn require_token(&self, token: &str) {
        self.state().authorization = Some(format!("Bearer {token}"));
    }

    /// The requests so far, such as `GET /subjects`.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// The number of requests so far.
    pub fn count(&self) -> usize {
        self.state().requests.len()
    }

    fn state(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().expect("no holder panics")
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then ends.
        TcpStream::connect(self.addr).ok();
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok();
        }
    }
}

/// The parts of a request that are used.
struct RegistryRequest {
    method: String,
    target: String,
    authorization: Option<String>,
    body: Vec<u8>,
}

fn read(stream: &TcpStream) -> io::Result<RegistryRequest> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) =
        (words.next().ok_or_else(malformed)?, words.next().ok_or_else(malformed)?);
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(|_| malformed())?,
            "authorization" => authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    if length > BODY_BYTES_MAX {
        return Err(malformed());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(RegistryRequest { method, target, authorization, body })
}

fn serve(mut stream: TcpStream, state: &Mutex<RegistryState>) -> io::Result<()> {
    let state = || state.lock().expect("no holder panics");
    if matches!(state().behaviour, RegistryBehaviour::Down) {
        return Ok(());
    }
    let request = read(&stream)?;
    state().requests.push(format!("{} {}", request.method, request.target));
    let behaviour = state().behaviour.clone();
    let (status, body) = match behaviour {
        RegistryBehaviour::Down => return Ok(()),
        RegistryBehaviour::Fixed(status, body) => (status, body),
        RegistryBehaviour::Huge(bytes) => {
            (200, format!("{{\"schema\": \"{}\"}}", "x".repeat(bytes)))
        }
        RegistryBehaviour::Slow(time) => {
            thread::sleep(time);
            state().answer(&request)
        }
        RegistryBehaviour::Normal => state().answer(&request),
    };
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn error_response(status: u16, code: u64, message: impl Into<String>) -> RegistryResponse {
    (status, json!({"error_code": code, "message": message.into()}))
}

impl RegistryState {
    fn answer(&mut self, request: &RegistryRequest) -> (u16, String) {
        let wanted = self.authorization.as_ref();
        let (status, body) = if wanted.is_some_and(|w| request.authorization.as_ref() != Some(w)) {
            error_response(401, 401, "Unauthorized")
        } else {
            self.route(request)
        };
        (status, body.to_string())
    }

    fn route(&mut self, request: &RegistryRequest) -> RegistryResponse {
        let path = request.target.split('?').next().unwrap_or_default();
        let segments: Vec<String> = path.split('/').skip(1).map(decoded).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let sent: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match (request.method.as_str(), &segments[..]) {
            ("GET", ["subjects"]) => (200, self.subjects.keys().cloned().collect()),
            ("GET", ["schemas", "ids", id]) => self.by_id(id),
            ("GET", ["schemas", "guids", guid]) if self.has_guids => self.by_guid(guid),
            ("GET", ["subjects", subject, "versions", version]) => {
                match self.version(subject, version) {
                    Ok(version) => (200, self.described(subject, version)),
                    Err(refusal) => refusal,
                }
            }
            ("POST", ["subjects", subject, "versions"]) => self.register(subject, &sent),
            ("POST", ["subjects", subject]) => self.find(subject, &sent),
            ("POST", ["compatibility", "subjects", subject, "versions", version]) => {
                self.check_compatibility(subject, version, &sent)
            }
            _ => error_response(404, 404, "HTTP 404 Not Found"),
        }
    }

    fn by_id(&self, id: &str) -> RegistryResponse {
        let id = id.parse::<usize>().ok().and_then(|id| id.checked_sub(1));
        match id.and_then(|at| self.schemas.get(at)) {
            Some(stored) => (200, stored.json()),
            None => error_response(404, 40403, "Schema not found"),
        }
    }

    fn by_guid(&self, guid: &str) -> RegistryResponse {
        let ids = 1..=u32::try_from(self.schemas.len()).expect("few schemas are registered");
        let id = ids.into_iter().find(|id| guid_text(FakeRegistry::guid(*id)) == guid);
        self.by_id(&id.unwrap_or_default().to_string())
    }

    /// A version by number or `latest`, counted from 1.
    fn version(&self, subject: &str, version: &str) -> Result<usize, RegistryResponse> {
        let Some(ids) = self.subjects.get(subject) else {
            return Err(error_response(404, 40401, format!("Subject '{subject}' not found.")));
        };
        let number = if version == "latest" { Some(ids.len()) } else { version.parse().ok() };
        number
            .filter(|number| (1..=ids.len()).contains(number))
            .ok_or_else(|| error_response(404, 40402, format!("Version {version} not found.")))
    }

    fn stored(&self, subject: &str, version: usize) -> &RegisteredSchema {
        &self.schemas[self.subjects[subject][version - 1] - 1]
    }

    fn described(&self, subject: &str, version: usize) -> Value {
        let mut all = self.stored(subject, version).json();
        all["subject"] = subject.into();
        all["version"] = version.into();
        all["id"] = self.subjects[subject][version - 1].into();
        all
    }

    /// Adds a version unless it exists, and returns the schema's id.
    fn add(&mut self, subject: &str, stored: RegisteredSchema) -> usize {
        let known = self.schemas.iter().position(|known| known.is_same_as(&stored));
        let id = known.unwrap_or(self.schemas.len()) + 1;
        if known.is_none() {
            self.schemas.push(stored);
        }
        let ids = self.subjects.entry(subject.to_owned()).or_default();
        if !ids.contains(&id) {
            ids.push(id);
        }
        id
    }

    fn register(&mut self, subject: &str, sent: &Value) -> RegistryResponse {
        let stored = match RegisteredSchema::from_request(sent) {
            Ok(stored) => stored,
            Err(refusal) => return refusal,
        };
        let there = self.schemas.iter().any(|known| known.is_same_as(&stored));
        if let Ok(latest) = self.version(subject, "latest")
            && !there
            && let Some(why) = incompatibility(&stored.text, &self.stored(subject, latest).text)
        {
            let message =
                format!("Schema being registered is incompatible with an earlier schema: {why}");
            return error_response(409, 409, message);
        }
        (200, json!({"id": self.add(subject, stored)}))
    }

    fn find(&self, subject: &str, sent: &Value) -> RegistryResponse {
        if let Err(refusal) = self.version(subject, "latest") {
            return refusal;
        }
        let wanted = match RegisteredSchema::from_request(sent) {
            Ok(wanted) => wanted,
            Err(refusal) => return refusal,
        };
        let ids = &self.subjects[subject];
        match ids.iter().position(|id| self.schemas[id - 1].is_same_as(&wanted)) {
            Some(at) => (200, self.described(subject, at + 1)),
            None => error_response(404, 40403, "Schema not found"),
        }
    }

    fn check_compatibility(&self, subject: &str, version: &str, sent: &Value) -> RegistryResponse {
        let judged = self.version(subject, version).and_then(|version| {
            let stored = RegisteredSchema::from_request(sent)?;
            Ok(incompatibility(&stored.text, &self.stored(subject, version).text))
        });
        match judged {
            Ok(None) => (200, json!({"is_compatible": true, "messages": []})),
            Ok(Some(why)) => (200, json!({"is_compatible": false, "messages": [why]})),
            Err(refusal) => refusal,
        }
    }
}

impl RegisteredSchema {
    fn from_request(sent: &Value) -> Result<Self, RegistryResponse> {
        let text = sent["schema"].as_str().unwrap_or_default().to_owned();
        let kind = sent["schemaType"].as_str().unwrap_or("AVRO").to_owned();
        if kind == "AVRO" && Schema::parse_str(&text).is_err() {
            return Err(error_response(422, 42201, "Invalid schema"));
        }
        Ok(Self { text, kind, references: sent["references"].clone() })
    }

    /// Whether two schemas are the same apart from white space.
    fn is_same_as(&self, other: &Self) -> bool {
        let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
        let same = self.text == other.text
            || parsed(&self.text).is_some_and(|this| parsed(&other.text) == Some(this));
        same && self.kind == other.kind
    }

    /// As a response has it: the type Avro is left out, and references only if there are some.
    fn json(&self) -> Value {
        let mut all = json!({"schema": self.text});
        if self.kind != "AVRO" {
            all["schemaType"] = self.kind.as_str().into();
        }
        if self.references.as_array().is_some_and(|list| !list.is_empty()) {
            all["references"] = self.references.clone();
        }
        all
    }
}

/// Why `new` cannot read data of `old`, by the compatibility a registry checks by default.
fn incompatibility(new: &str, old: &str) -> Option<String> {
    let (Ok(new), Ok(old)) = (Schema::parse_str(new), Schema::parse_str(old)) else {
        return Some("one of the two schemas can't be parsed".to_owned());
    };
    match SchemaCompatibility::can_read(&old, &new) {
        Ok(Compatibility::Full) => None,
        Ok(Compatibility::Partial) => Some("a type became narrower".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// A path segment, percent-decoded.
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, more @ ..] = rest {
        let code = more.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%');
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
