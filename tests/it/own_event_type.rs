//! A user's own event type: the page `docs/your-own-event-type.md` as printed, over a kill, and
//! what is refused.
//!
//! The snippets run in one folder, with the built binary on the `PATH`. Only the address is
//! replaced by that of the server under test.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidewire_tests::browser::Browser;
use tidewire_tests::child_process;
use tidewire_tests::client_program::{self, PrintingProgram};
use tidewire_tests::event_source::EventSource;
use tidewire_tests::server::{self, Server};

use super::quickstart::document;

/// The page.
const PAGE: &str = "your-own-event-type.md";

/// The address in the page.
const ADDRESS: &str = "127.0.0.1:8080";

/// How long an event may take on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);

/// The snippets of the page as files in one folder.
struct PageFolder(TempDir);

impl PageFolder {
    /// Writes these snippets, with the address of a server in place of the page's.
    fn write(names: &[&str], address: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("the temporary folder can be written"));
        folder.add(names, address);
        folder
    }

    fn add(&self, names: &[&str], address: &str) {
        let snippets = document::snippets(PAGE);
        for name in names {
            let path = self.path(name);
            fs::create_dir_all(path.parent().expect("it is in the folder")).expect("writable");
            fs::write(path, snippets[*name].replace(ADDRESS, address)).expect("writable");
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// How a script is run: by a shell that finds the binary.
    fn command(&self, script: &str) -> std::process::Command {
        let program = server::command().get_program().to_owned();
        let binary = Path::new(&program).parent().expect("it is in a folder");
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", binary.display());
        let mut command = client_program::command(&["bash".to_owned(), script.to_owned()]);
        command.env("PATH", path).current_dir(self.0.path());
        command
    }

    /// Runs a script to its end; returns its exit code and all it printed.
    fn run(&self, script: &str) -> (Option<i32>, String) {
        let mut command = self.command(script);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = child_process::spawn(command).expect("there is a shell");
        let Output { status, stdout, stderr } = child.wait_with_output().expect("it is our child");
        (status.code(), String::from_utf8([stdout, stderr].concat()).expect("it prints text"))
    }
}

/// The arguments of the page's start command, with the folder's whole path.
fn start_arguments(folder: &PageFolder) -> Vec<String> {
    let command = &document::snippets(PAGE)["run.sh"];
    let words = command.split_whitespace().skip_while(|word| *word != "dev").skip(1);
    let in_folder = |word: &str| match word {
        "shop" => folder.path(word).display().to_string(),
        word => word.to_owned(),
    };
    words.map(in_folder).collect()
}

/// Waits until a program has printed a line that contains every part.
fn wait_for_line(program: &PrintingProgram, parts: &[&str]) {
    let deadline = Instant::now() + ARRIVAL_LIMIT;
    let mut lines = Vec::new();
    loop {
        lines.extend(program.lines());
        if lines.iter().any(|line| parts.iter().all(|part| line.contains(part))) {
            return;
        }
        assert!(Instant::now() < deadline, "no line with {parts:?} in {lines:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_page_leads_from_a_file_to_an_event_in_a_browser() {
    let folder = PageFolder::write(&["shop/orders.toml", "check.sh"], ADDRESS);
    let (code, printed) = folder.run("check.sh");
    assert_eq!(code, Some(0), "{printed}");
    let page = document::text(PAGE);
    for line in printed.lines() {
        // The hash changes with the built-in catalogue.
        let shown = line.split("; catalogue ").next().expect("the first part");
        assert!(page.contains(shown), "the page does not print {shown:?}");
    }

    let arguments = start_arguments(&folder);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start(&arguments);
    let address = server.addr().to_string();
    folder.add(&["listen.sh", "send.sh", "browser.js"], &address);
    let listener = PrintingProgram::start(folder.command("listen.sh"));
    let (code, printed) = folder.run("send.sh");
    assert!(code == Some(0) && printed.contains("\"accepted\":1"), "{printed}");
    wait_for_line(&listener, &["\"type\":\"order.placed\"", "\"event_id\":\"order-1\""]);

    let browser = Browser::start();
    browser.open(&format!("http://{address}/"));
    let keep = "window.printed = []; console.log = (...words) => printed.push(words.join(' '));";
    browser.run(keep, json!([]));
    let script = fs::read_to_string(folder.path("browser.js")).expect("just written");
    browser.run(&script, json!([]));
    let printed = "return window.printed.length > 0 ? window.printed : null;";
    let line = browser.wait_for(printed, ARRIVAL_LIMIT);
    assert_eq!(line, json!(["order.placed order-1 9.5"]));
    assert!(page.contains("order.placed order-1 9.5"), "the page says what the browser prints");
}

#[test]
fn the_page_s_change_is_compatible_and_what_it_calls_refused_is() {
    let names = ["shop/orders.toml", "copy.sh", "against.sh"];
    let folder = PageFolder::write(&names, ADDRESS);
    assert_eq!(folder.run("copy.sh").0, Some(0));
    folder.add(&["shop-next/payments.toml"], ADDRESS);
    let (code, printed) = folder.run("against.sh");
    assert_eq!(code, Some(0), "{printed}");
    let line = "compatible: type `payment.received` is added";
    assert!(printed.contains(line) && document::text(PAGE).contains(line), "{printed}");

    let orders = fs::read_to_string(folder.path("shop/orders.toml")).expect("just written");
    let changed = orders.replace("key = [\"order_id\"]", "key = [\"shop_id\"]");
    fs::write(folder.path("shop-next/orders.toml"), changed).expect("writable");
    let (code, printed) = folder.run("against.sh");
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("type `order.placed`: the key changed"), "{printed}");
    assert!(printed.contains("topics.prefix"), "it says what to do: {printed}");

    let wrong = "[types.\"post.created\"]\ndata = \"x:q\"\n";
    fs::write(folder.path("shop-next/orders.toml"), wrong).expect("writable");
    let (code, printed) = folder.run("against.sh");
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("shop-next/orders.toml, post.created: "), "{printed}");
    // The other file uses a kind that is gone.
    assert!(printed.contains("shop-next/payments.toml, payment.received: "), "{printed}");
}

#[test]
fn every_snippet_of_the_page_is_run() {
    let printed: Vec<String> = document::snippets(PAGE).into_keys().collect();
    let run = [
        "against.sh",
        "browser.js",
        "check.sh",
        "copy.sh",
        "export.sh",
        "listen.sh",
        "run.sh",
        "send.sh",
        "shop-next/payments.toml",
        "shop/orders.toml",
    ];
    assert_eq!(printed, run, "run a new snippet in a test of this file");
}

/// Sends an order and returns the answer's status.
fn send(server: &Server, id: &str, data: &Value) -> u16 {
    let event = json!({
        "event_id": id, "event_type": "order.placed", "account_id": "demo", "data": data,
    });
    let sent = server.http().post("/v1/events", "application/json", event.to_string().as_bytes());
    sent.expect("an answer").status
}

/// Waits for these events on the channel of a shop, from the beginning.
fn expect(server: &Server, ids: &[&str]) {
    let path = "/v1/sse?channels=orders:berlin&from=earliest&user=test";
    let mut stream = EventSource::open(server.addr(), path, None, None).expect("a stream");
    for id in ids {
        let event = stream.next_event(ARRIVAL_LIMIT).expect("it goes on").expect("an event");
        assert_eq!((event.event_type.as_str(), event.event_id.as_str()), ("order.placed", *id));
    }
}

#[test]
fn own_events_are_delivered_once_over_a_kill_and_every_interface_knows_them() {
    let folder = PageFolder::write(&["shop/orders.toml"], ADDRESS);
    let dir = folder.path("shop").display().to_string();
    let mut server = Server::start(&["--catalogue-dir", &dir]);
    let order = |n: i64| json!({ "order_id": n, "shop_id": "berlin", "total": 1.5 });
    assert_eq!(send(&server, "o1", &order(1)), 202);
    assert_eq!(send(&server, "o1", &order(1)), 202, "a repeated event is accepted and dropped");
    assert_eq!(send(&server, "bad", &json!({ "order_id": 1, "shop_id": "berlin" })), 422);
    expect(&server, &["o1"]);
    server.kill9();
    server.restart();
    assert_eq!(send(&server, "o2", &order(1)), 202);
    expect(&server, &["o1", "o2"]);
    for path in ["/openapi.json", "/asyncapi.json"] {
        let document = server.http().get(path).expect("an answer").text();
        assert!(document.contains("orders"), "{path} knows the channel");
    }
    let asyncapi = server.http().get("/asyncapi.json").expect("an answer").text();
    assert!(asyncapi.contains("order.placed"), "it knows the type");

    server.stop();
    let mut export = server::command();
    export.args(["schemas", "export", "order.placed", "--catalogue-dir", &dir]);
    let export = export.current_dir(folder.0.path()).output().expect("the binary starts");
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
    let schema = fs::read_to_string(folder.path("tidewire-schemas/order.placed.avsc"));
    assert!(schema.expect("exported").contains("tidewire.order"));
    let mut verify = server::command();
    verify.args(["replay", "verify", "--catalogue-dir", &dir, "--data-dir"]);
    let verify = verify.arg(server.data_dir()).output().expect("the binary starts");
    let printed = String::from_utf8_lossy(&[verify.stdout, verify.stderr].concat()).into_owned();
    assert!(verify.status.success() && printed.contains("identical"), "{printed}");
}

#[test]
fn a_start_with_a_changed_key_is_refused_and_the_former_folder_goes_on() {
    let folder = PageFolder::write(&["shop/orders.toml"], ADDRESS);
    let dir = folder.path("shop").display().to_string();
    let mut server = Server::start(&["--catalogue-dir", &dir]);
    let order = json!({ "order_id": 1, "shop_id": "berlin", "total": 1.5 });
    assert_eq!(send(&server, "o1", &order), 202);
    expect(&server, &["o1"]);
    server.kill9();

    let orders = fs::read_to_string(folder.path("shop/orders.toml")).expect("just written");
    let changed = orders.replace("key = [\"order_id\"]", "key = [\"shop_id\"]");
    fs::create_dir(folder.path("changed")).expect("writable");
    fs::write(folder.path("changed/orders.toml"), changed).expect("writable");
    let changed = folder.path("changed").display().to_string();
    for (arguments, says) in [
        (&["--catalogue-dir", &changed[..]][..], "type `order.placed`: the key changed"),
        (&[], "type `order.placed` is removed"),
    ] {
        let mut start = server::command();
        start.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(server.data_dir());
        let ended = start.args(arguments).stdin(Stdio::null()).output().expect("it starts");
        let printed = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{printed}");
        assert!(printed.contains(says) && printed.contains("data_dir"), "{printed}");
    }

    let payments = document::snippets(PAGE)["shop-next/payments.toml"].clone();
    fs::write(folder.path("shop/payments.toml"), payments).expect("writable");
    server.restart();
    assert_eq!(send(&server, "o2", &order), 202);
    expect(&server, &["o1", "o2"]);
    server.stop();
    let export = document::snippets(PAGE)["export.sh"].clone();
    let words = export.split_whitespace().skip(1);
    let mut export = server::command();
    export.args(words).arg("--data-dir").arg(server.data_dir()).current_dir(folder.0.path());
    assert!(export.output().expect("it starts").status.success());
    for name in ["orders.toml", "payments.toml"] {
        let read = |dir: &str| fs::read_to_string(folder.path(dir).join(name)).expect("a file");
        assert_eq!(read("shop-again"), read("shop"));
    }
}
