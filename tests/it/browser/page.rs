//! Tests of the page of `tidewire dev` in Chromium: layout, keyboard, contents, reconnection.
//!
//! It must fit every width in both themes, and miss nothing while it is disconnected. The script
//! `layout.js` measures what Chromium has drawn and names what is wrong. A screenshot of each width
//! and theme stays in the target folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire_tests::browser::{Browser, Screen, Theme, keys};
use tidewire_tests::server::Server;

use super::{Page, STEP_LIMIT};

/// Widths of the window in pixels: a small phone to a large screen.
const WIDTHS: [u32; 6] = [360, 480, 768, 1024, 1280, 1600];

/// Height of the window in pixels.
const HEIGHT: u32 = 900;

/// What the page subscribes to when it opens.
const DEMO_CHANNELS: [&str; 2] = ["account:demo", "timeline:demo"];

/// How long the rarest suggested channel may be without an event.
const RARE_EVENT_LIMIT: Duration = Duration::from_secs(240);

/// More than there are controls on the page.
const TABS_MAX: usize = 100;

/// Returns what is wrong with the layout.
const LAYOUT: &str = include_str!("layout.js");

/// Keeps every event the page receives, without changing what it does with it.
const RECORDER: &str = r"
    const received = [];
    tidewire.addEventListener('event', ({ detail: { frame } }) => {
        received.push([JSON.stringify(frame), frame.position]);
    });
    window.listener = { received, failure: () => null };
";

/// Whether a third of the chart has rates, and there is a delay.
const CHART_HAS_DATA: &str = r"
    const drawn = (name) => document.querySelector(`#chart .line.${name}`)?.getBBox().width ?? 0;
    const third = document.getElementById('chart').clientWidth / 3;
    return ['lane-critical', 'lane-high', 'lane-normal', 'lane-low'].every((lane) => {
        return drawn(lane) > third;
    }) && drawn('p50') > 0 && drawn('p99') > 0;
";

/// The names of all controls that Tab must reach.
const CONTROLS: &str = r"
    const all = document.querySelectorAll('a, button, input, select, summary, [tabindex=\'0\']');
    return [...all].filter((control) => control.checkVisibility() && !control.disabled)
        .map((control) => control.id || control.getAttribute('aria-label')
            || control.labels?.[0]?.textContent || control.textContent.trim());
";

/// The name of the focused control, and whether the focus is visible.
const FOCUS: &str = r"
    const control = document.activeElement;
    const name = control.id || control.getAttribute('aria-label')
        || control.labels?.[0]?.textContent || control.textContent.trim();
    const { outlineStyle, outlineWidth } = getComputedStyle(control);
    return [name, outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2];
";

#[test]
fn the_page_fits_every_width_in_both_themes() {
    let server = Server::start(&["--demo"]);
    let browser = open(&server);
    browser.wait_for(CHART_HAS_DATA, STEP_LIMIT);
    // Its longest texts show after a disconnect and an event, with everything unfolded.
    disconnect_and_reconnect(&browser);
    browser.run("document.getElementById('send').requestSubmit();", json!([]));
    browser.wait_for(&text_holds("sent", "Arrived here on"), STEP_LIMIT);
    let unfold = "for (const part of document.querySelectorAll('details')) part.open = true;";
    browser.run(unfold, json!([]));

    let mut backgrounds = BTreeSet::new();
    for theme in [Theme::Light, Theme::Dark] {
        for width in WIDTHS {
            browser.show_as(Screen { width, height: HEIGHT, theme });
            check_layout(&browser, width, theme);
        }
        let background = "return getComputedStyle(document.documentElement).backgroundColor;";
        backgrounds.insert(browser.run(background, json!([])).to_string());
    }
    assert_eq!(backgrounds.len(), 2, "both themes look the same: {backgrounds:?}");
    assert_eq!(browser.console_errors(), [""; 0]);
}

fn check_layout(browser: &Browser, width: u32, theme: Theme) {
    let redrawn = format!(
        "const chart = document.getElementById('chart');
        const drawn = chart.querySelector('svg').clientWidth;
        return innerWidth === {width} && Math.abs(drawn - chart.clientWidth) <= 1;"
    );
    browser.wait_for(&redrawn, STEP_LIMIT);
    let complaints = browser.run(LAYOUT, json!([]));
    let picture = picture(&format!("page-{width}-{}.png", theme.name()));
    let size = browser.screenshot_of_page(&picture);
    assert_eq!(complaints, json!([]), "see {}", picture.display());
    assert!(size.0 == width && size.1 > HEIGHT, "{} is {size:?}", picture.display());
}

#[test]
fn the_page_can_be_used_by_keyboard_alone() {
    let server = Server::start(&["--demo"]);
    let browser = open(&server);
    browser.show_as(Screen { width: 1280, height: HEIGHT, theme: Theme::Light });
    browser.wait_for(CHART_HAS_DATA, STEP_LIMIT);
    check_every_control_is_reached(&browser);

    focus(&browser, "chart");
    browser.press(&[keys::LEFT]);
    let moment = "return document.getElementById('chart').getAttribute('aria-valuetext');";
    let moment = browser.run(moment, json!([]));
    let moment = moment.as_str().unwrap();
    for part in ["critical", "high", "normal", "low", "p50", "p99"] {
        assert!(moment.contains(part), "{moment}");
    }

    focus(&browser, "connection");
    browser.press(&[keys::ENTER]);
    browser.wait_for(&state_is("disconnected"), STEP_LIMIT);
    browser.press(&[keys::ENTER]);
    browser.wait_for(&text_holds("resumed", "Reconnected after"), STEP_LIMIT);

    focus(&browser, "send-text");
    browser.press(&['!', keys::ENTER]);
    browser.wait_for(&text_holds("sent", "Arrived here on"), STEP_LIMIT);

    focus(&browser, "channel");
    type_line(&browser, "posts:u0");
    browser.wait_for(&text_holds("channels", "posts:u0"), STEP_LIMIT);
    type_line(&browser, "nothing:x");
    browser.wait_for(&text_holds("channel-error", "nothing:x was refused"), STEP_LIMIT);
    assert_eq!(browser.console_errors(), [""; 0]);
}

fn check_every_control_is_reached(browser: &Browser) {
    let controls = browser.run(CONTROLS, json!([]));
    let controls: BTreeSet<&str> =
        controls.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let mut reached = BTreeSet::new();
    for _ in 0..TABS_MAX {
        browser.press(&[keys::TAB]);
        let focus = browser.run(FOCUS, json!([]));
        let name = focus[0].as_str().unwrap().to_owned();
        if controls.contains(name.as_str()) {
            assert_eq!(focus[1], true, "the focus on {name} can't be seen");
        }
        reached.insert(name);
    }
    let reached: BTreeSet<&str> = reached.iter().map(String::as_str).collect();
    let missing: Vec<_> = controls.difference(&reached).collect();
    assert!(controls.len() > 20 && missing.is_empty(), "Tab does not reach {missing:?}");
}

#[test]
fn the_page_receives_after_a_disconnect_what_it_missed_and_nothing_twice() {
    let server = Server::start(&["--demo"]);
    let browser = Browser::start();
    let mut page = Page::open(&browser, &server);
    browser.run(RECORDER, json!([]));
    browser.wait_for(&state_is("live"), STEP_LIMIT);
    browser.wait_for("return document.querySelectorAll('#rows tr').length > 20;", STEP_LIMIT);

    let words = disconnect_and_reconnect(&browser);
    let missed = words.split_once("received ").and_then(|(_, rest)| rest.split_once(" event"));
    let missed: usize = missed.unwrap_or_else(|| panic!("{words}")).0.parse().unwrap();
    assert!(missed > 0, "{words}");
    assert!(words.contains("none of them twice, no gap"), "{words}");
    let total = "return document.getElementById('total').textContent.replaceAll(',', '') > 100;";
    browser.wait_for(total, STEP_LIMIT);

    while page.next(Duration::ZERO).is_some() {}
    page.compare_order(&server, &DEMO_CHANNELS.map(str::to_owned));
    assert_eq!(browser.console_errors(), [""; 0]);
}

#[test]
fn the_page_connects_again_by_itself_once_its_server_is_back() {
    let mut server = Server::start(&["--demo"]);
    let browser = open(&server);
    browser.wait_for("return document.querySelectorAll('#rows tr').length > 20;", STEP_LIMIT);
    server.kill9();
    browser.wait_for(&state_is("lost"), STEP_LIMIT);
    browser.wait_for(&text_holds("server", "No figures of the pipeline"), STEP_LIMIT);
    server.restart_in_place();
    browser.wait_for(&text_holds("resumed", "no gap"), STEP_LIMIT);
    browser.wait_for(&text_holds("server", "role dev"), STEP_LIMIT);
}

#[test]
fn events_are_shown_as_text_and_named_fields() {
    let server = Server::start(&["--demo"]);
    let browser = open(&server);
    browser.wait_for("return document.querySelector('#rows .data .text');", STEP_LIMIT);
    let fields = "const names = [...document.querySelectorAll('#rows .type .name')];
        const like = names.find(({ innerText }) => innerText === 'post.liked')?.closest('tr');
        return like && [...like.querySelectorAll('.field .name')].map((name) => name.innerText);";
    let fields = browser.wait_for(fields, STEP_LIMIT);
    assert_eq!(fields, json!(["post_id", "user_id", "user_name", "author_id"]));
    let raw = "return [...document.querySelectorAll('#rows .data')].map((td) => td.textContent)
        .filter((text) => text.includes('{'));";
    assert_eq!(browser.run(raw, json!([])), json!([]));
}

#[test]
fn an_event_sent_on_the_page_arrives_there_once_and_its_curl_command_sends_it_too() {
    let server = Server::start(&[]);
    let browser = open(&server);
    browser.wait_for(&text_holds("empty", "No event yet"), STEP_LIMIT);
    browser.run("document.getElementById('send').requestSubmit();", json!([]));
    browser.wait_for(&text_holds("sent", "Arrived here on"), STEP_LIMIT);
    browser.run("document.getElementById('send-again').click();", json!([]));
    browser.wait_for(&text_holds("sent", "no second copy arrived"), STEP_LIMIT);
    let copies = "return document.querySelectorAll('#rows .type').length;";
    assert_eq!(browser.run(copies, json!([])), DEMO_CHANNELS.len(), "one row per channel");

    let set = "const text = document.getElementById('send-text');
        text.value = arguments[0];
        text.dispatchEvent(new Event('input'));
        return document.getElementById('curl').textContent;";
    let text = "It's \"quoted\" & done";
    let command = browser.run(set, json!([text]));
    let body = body_of_curl(command.as_str().unwrap());
    let answer = server.http().post("/v1/events", "application/json", body.as_bytes()).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text());
    let arrived = format!(
        "return [...document.querySelectorAll('#rows .text')]
            .some((row) => row.textContent === {});",
        json!(text)
    );
    browser.wait_for(&arrived, STEP_LIMIT);
    assert_eq!(browser.console_errors(), [""; 0]);
}

#[test]
fn an_event_that_got_no_answer_can_be_sent_again() {
    let mut server = Server::start(&[]);
    let browser = open(&server);
    server.kill9();
    browser.wait_for(&state_is("lost"), STEP_LIMIT);
    browser.run("document.getElementById('send').requestSubmit();", json!([]));
    browser.wait_for(&text_holds("sent", "it may be stored"), STEP_LIMIT);
    server.restart_in_place();
    browser.wait_for(&state_is("live"), STEP_LIMIT);
    browser.run("document.getElementById('send-again').click();", json!([]));
    let rows = "document.querySelectorAll('#rows .type').length";
    let arrived = format!("return {rows} === {};", DEMO_CHANNELS.len());
    browser.wait_for(&arrived, STEP_LIMIT);
}

#[test]
fn a_channel_written_with_needless_escapes_receives_its_events() {
    let server = Server::start(&[]);
    let browser = open(&server);
    focus(&browser, "channel");
    type_line(&browser, "posts:%79ou");
    browser.wait_for(&text_holds("channels", "posts:you"), STEP_LIMIT);
    browser.run("document.getElementById('send').requestSubmit();", json!([]));
    let received = "return tidewire.channels.get('posts:you').received === 1;";
    browser.wait_for(received, STEP_LIMIT);
    assert_eq!(browser.console_errors(), [""; 0]);
}

/// Lets a shell parse the command, and returns its last argument, the body.
fn body_of_curl(command: &str) -> String {
    let script = format!("curl() {{ for last; do :; done; printf %s \"$last\"; }}\n{command}");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let body = String::from_utf8(output.stdout).unwrap();
    let event: Result<Value, _> = serde_json::from_str(&body);
    assert!(output.status.success() && event.is_ok(), "{command}\n{body}");
    body
}

#[test]
fn every_channel_that_the_page_suggests_carries_events_of_the_demo() {
    let server = Server::start(&["--demo"]);
    let browser = open(&server);
    let subscribe = "const buttons = () => document.querySelectorAll('#suggestions button');
        const count = buttons().length;
        while (buttons().length > 0) buttons()[0].click();
        return count;";
    let suggested = browser.run(subscribe, json!([])).as_u64().unwrap();
    assert!(suggested >= 5, "{suggested} suggestions");
    let all_received = "const all = [...tidewire.channels.values()];
        return all.every(({ received }) => received > 0);";
    browser.wait_for(all_received, RARE_EVENT_LIMIT);
    assert_eq!(browser.run("return tidewire.channels.size;", json!([])), suggested + 2);
    assert_eq!(browser.console_errors(), [""; 0]);
}

#[test]
fn every_link_of_the_page_leads_somewhere() {
    let server = Server::start(&[]);
    let browser = open(&server);
    let follow = "const links = [...document.querySelectorAll('nav a')];
        return Promise.all(links.map(async ({ href }) => [href, (await fetch(href)).status]));";
    let answers = browser.run(follow, json!([]));
    let answers = answers.as_array().unwrap();
    assert!(answers.len() >= 5 && answers.iter().all(|of| of[1] == 200), "{answers:#?}");
}

/// Opens the page and waits until it is connected.
fn open(server: &Server) -> Browser {
    let browser = Browser::start();
    browser.open(&format!("http://{}/", server.addr()));
    browser.wait_for(&state_is("live"), STEP_LIMIT);
    browser
}

/// Disconnects until the pipeline has processed something, reconnects, and returns the page's
/// text about it.
fn disconnect_and_reconnect(browser: &Browser) -> String {
    let press = "document.getElementById('connection').click();";
    browser.run(press, json!([]));
    browser.wait_for(&state_is("disconnected"), STEP_LIMIT);
    browser.wait_for(&text_holds("away", "The pipeline goes on"), STEP_LIMIT);
    browser.run(press, json!([]));
    let resumed = "const result = document.getElementById('resumed');
        return result.hidden ? null : result.textContent;";
    browser.wait_for(resumed, STEP_LIMIT).as_str().unwrap().to_owned()
}

fn focus(browser: &Browser, id: &str) {
    for _ in 0..TABS_MAX {
        if browser.run(FOCUS, json!([]))[0] == id {
            return;
        }
        browser.press(&[keys::TAB]);
    }
    panic!("Tab does not reach #{id}");
}

fn type_line(browser: &Browser, text: &str) {
    let keys: Vec<char> = text.chars().chain([keys::ENTER]).collect();
    browser.press(&keys);
}

fn state_is(wanted: &str) -> String {
    format!("return document.getElementById('state').dataset.state === '{wanted}';")
}

fn text_holds(id: &str, part: &str) -> String {
    let (id, part) = (json!(id), json!(part));
    format!(
        "const element = document.getElementById({id});
        return element.checkVisibility() && element.innerText.includes({part});"
    )
}

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}
