//! Headless Chromium, driven over W3C WebDriver by a few JSON calls.
//!
//! The calls use the HTTP client of this crate: a WebDriver crate would add two dozen dependencies
//! and an async runtime for the same seven calls.
//!
//! Nothing is left behind, however a test ends. Chromium's profile is in a temporary folder,
//! chromedriver dies with this process, and Chromium ends when its pipe to chromedriver closes. It
//! resolves no host names, so it reaches nothing but this machine.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

/// How long a call may take; starting the browser is one, on a machine busy with other tests.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// How often a script is repeated until it returns true.
const POLL: Duration = Duration::from_millis(20);

/// The text before the port in chromedriver's first line.
const GREETING: &str = "started successfully on port ";

/// Chromium's options, apart from its profile.
const CHROMIUM_ARGS: &[&str] = &[
    "--headless=new",
    // Tests in containers run as root, where Chromium's own sandbox can't be set up.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    // No port for debuggers, and an end when chromedriver is gone.
    "--remote-debugging-pipe",
    "--window-size=1280,900",
];

/// The keys of WebDriver that are no characters.
pub mod keys {
    /// Tab.
    pub const TAB: char = '\u{e004}';
    /// Enter.
    pub const ENTER: char = '\u{e007}';
    /// The arrow to the left.
    pub const LEFT: char = '\u{e012}';
}

/// What the window is like, as pages see it.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// CSS pixels.
    pub width: u32,
    /// CSS pixels.
    pub height: u32,
    /// The theme that the user prefers.
    pub theme: Theme,
}

/// A value of `prefers-color-scheme`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

impl Theme {
    /// The name in CSS.
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// A browser with one window.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    http: Agent,
    session_url: String,
    /// Removed last.
    folder: TempDir,
}

impl Browser {
    /// Starts chromedriver on a free port and a Chromium with an empty profile.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("tidewire-browser-").tempdir();
        let folder = folder.expect("the temporary folder can be written");
        let (driver, port) = start_driver(folder.path());
        let config = Agent::config_builder()
            .timeout_global(Some(CALL_LIMIT))
            .http_status_as_error(false)
            .proxy(None);
        let mut browser = Self {
            driver,
            http: config.build().new_agent(),
            session_url: format!("http://127.0.0.1:{port}/session"),
            folder,
        };
        browser.open_session();
        browser
    }

    fn open_session(&mut self) {
        let profile = format!("--user-data-dir={}", self.folder.path().join("profile").display());
        let args: Vec<&str> = CHROMIUM_ARGS.iter().copied().chain([profile.as_str()]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = self.call("", Some(wanted));
        let id = session["sessionId"].as_str().expect("a session has an id");
        self.session_url = format!("{}/{id}", self.session_url);
    }

    /// Goes to an address and waits until the page has loaded.
    pub fn open(&self, url: &str) {
        self.call("/url", Some(json!({"url": url})));
    }

    /// Runs the body of a function in the page, with the list `args` as its `arguments`, and
    /// returns its result; a promise is awaited. Panics with the page's exception.
    pub fn run(&self, script: &str, args: Value) -> Value {
        self.call("/execute/sync", Some(json!({"script": script, "args": args})))
    }

    /// Repeats a script until its result is truthy, and returns it. Panics with the page's text if
    /// that takes longer than `limit`.
    pub fn wait_for(&self, script: &str, limit: Duration) -> Value {
        let deadline = Instant::now() + limit;
        let in_boolean = format!("return (() => {{ {script} }})() || null;");
        loop {
            match self.run(&in_boolean, json!([])) {
                Value::Null if Instant::now() < deadline => thread::sleep(POLL),
                Value::Null => panic!(
                    "not within {limit:?}: {script}\nThe page shows:\n{}\nIts console: {:#?}",
                    self.run("return document.body.innerText;", json!([])),
                    self.console_errors()
                ),
                found => return found,
            }
        }
    }

    /// What the browser has written to its console since the last call: exceptions, failed
    /// requests, warnings.
    pub fn console_errors(&self) -> Vec<String> {
        let entries = self.call("/se/log", Some(json!({"type": "browser"})));
        let entries = entries.as_array().expect("a log is a list");
        let bad = entries
            .iter()
            .filter(|entry| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")));
        bad.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Saves a screenshot of the window as a PNG.
    pub fn screenshot(&self, path: &Path) {
        let picture = self.call("/screenshot", None);
        let picture = picture.as_str().expect("a picture is base64");
        let picture = BASE64.decode(picture).expect("a picture is base64");
        fs::write(path, picture).expect("the picture can be written");
    }

    /// Makes the window this wide and high, smaller than a real one can be, with this theme.
    /// Motion is reduced, so that a picture shows no animation half way.
    pub fn show_as(&self, screen: Screen) {
        let Screen { width, height, theme } = screen;
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", size);
        let features = json!([
            {"name": "prefers-color-scheme", "value": theme.name()},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Writes the whole page as a PNG, also what is below the window's end; gives back its width
    /// and height in pixels.
    pub fn screenshot_of_page(&self, path: &Path) -> (u32, u32) {
        let size =
            self.run("return [innerWidth, document.documentElement.scrollHeight];", json!([]));
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        let wanted = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let picture = self.devtools("Page.captureScreenshot", wanted);
        let picture = picture["data"].as_str().expect("a picture is base64");
        let picture = BASE64.decode(picture).expect("a picture is base64");
        fs::write(path, &picture).expect("the picture can be written");
        png_size(&picture)
    }

    /// Presses and releases keys one after the other.
    pub fn press(&self, keys: &[char]) {
        let strokes = keys.iter().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
        });
        let strokes: Vec<Value> = strokes.collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": strokes});
        self.call("/actions", Some(json!({"actions": [keyboard]})));
    }

    /// Calls a method of Chromium's DevTools, for what WebDriver has no call for.
    fn devtools(&self, method: &str, parameters: Value) -> Value {
        self.call("/goog/cdp/execute", Some(json!({"cmd": method, "params": parameters})))
    }

    /// Makes one call: `POST` with parameters, `GET` without.
    fn call(&self, what: &str, parameters: Option<Value>) -> Value {
        let url = format!("{}{what}", self.session_url);
        let answered = match parameters {
            Some(parameters) => self.http.post(&url).send_json(parameters),
            None => self.http.get(&url).call(),
        };
        let answer = answered.and_then(|mut answer| answer.body_mut().read_json::<Value>());
        let answer = answer.unwrap_or_else(|error| panic!("chromedriver, {what}: {error}"));
        let value = &answer["value"];
        if let Some(error) = value["error"].as_str() {
            panic!("{what}: {error}: {}", value["message"].as_str().unwrap_or_default());
        }
        value.clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ending the session lets Chromium close its files, so that the folder can be removed. A
        // failure changes nothing: the driver is killed next, and Chromium ends with its pipe.
        self.http.delete(&self.session_url).call().ok();
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}

/// Times that chromedriver is started: the port it chooses is sometimes taken before it is bound
/// for both families of addresses.
const DRIVER_STARTS: usize = 4;

/// Starts chromedriver on a free loopback port and returns that port.
fn start_driver(folder: &Path) -> (Child, u16) {
    let log_path = folder.join("chromedriver.log");
    for _ in 0..DRIVER_STARTS {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "chromedriver", "--port=0"]).current_dir(folder);
        for name in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            command.env(name, folder);
        }
        let log = File::create(&log_path).expect("the temporary folder can be written");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let (found, started) = mpsc::channel();
        // The kernel sends its signal when the thread that started a process ends, not when that
        // thread's process does. So the thread that starts the driver reads it until it ends.
        thread::spawn(move || run_driver(command, &found));
        if let Ok(started) = started.recv_timeout(CALL_LIMIT) {
            return started;
        }
    }
    let log = fs::read_to_string(&log_path).unwrap_or_default();
    panic!("chromedriver did not start; run: scripts/install.sh test\n{log}")
}

/// Starts the driver, sends its port, and returns when it ends.
fn run_driver(mut command: Command, found: &mpsc::Sender<(Child, u16)>) {
    let Ok(mut driver) = command.spawn() else { return };
    let output = driver.stdout.take().expect("the output is piped");
    let mut driver = Some(driver);
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if let Some(port) = port_in(&line)
            && let Some(driver) = driver.take()
        {
            // The receiver is gone if the start took too long; the driver then ends with this
            // process.
            found.send((driver, port)).ok();
        }
    }
    if let Some(mut driver) = driver {
        driver.wait().ok();
    }
}

/// Width and height in the header of a PNG: two big-endian numbers after its first 16 bytes.
fn png_size(picture: &[u8]) -> (u32, u32) {
    let number = |at: usize| {
        let bytes = picture[at..at + 4].try_into().expect("four bytes");
        u32::from_be_bytes(bytes)
    };
    (number(16), number(20))
}

fn port_in(line: &str) -> Option<u16> {
    let (_, port) = line.split_once(GREETING)?;
    port.trim_end_matches('.').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_png_is_read_out_of_its_header() {
        let mut picture = vec![0; 24];
        picture[16..].copy_from_slice(&[0, 0, 5, 0, 0, 0, 3, 132]);
        assert_eq!(png_size(&picture), (1280, 900));
    }

    #[test]
    fn the_port_is_parsed_from_the_greeting() {
        let line = "ChromeDriver was started successfully on port 42857.";
        assert_eq!(port_in(line), Some(42857));
        assert_eq!(port_in("Starting ChromeDriver 156.0 on port 0"), None);
    }
}
