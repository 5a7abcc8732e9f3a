//! Tests of the built-in catalogue as a whole, of deliveries, and of the errors of invalid files.
//!
//! `check` compares the deliveries of an event. The last test also writes the reference page, if
//! `TIDEWIRE_UPDATE` is set.

mod compare;
mod own;
mod routes;

use super::*;
use crate::Priority;
use crate::event::Event;

fn catalogue() -> &'static Catalogue {
    Catalogue::builtin()
}

fn event(event_type: &str, data: &str) -> Event {
    Event {
        event_id: "e1".into(),
        event_type: event_type.into(),
        account_id: "acc".into(),
        timestamp_ms: 0,
        correlation_id: "e1".into(),
        priority: Priority::Normal,
        key: "k".into(),
        source: None,
        alias: None,
        data: data.into(),
    }
}

/// Deliveries as `channel class [key]`.
fn delivered(event: &Event) -> Vec<String> {
    let deliveries = catalogue().deliveries(&event.view()).expect("an event of the catalogue");
    let text = |delivery: Delivery| match delivery.state_key {
        Some(key) => format!("{} {} [{key}]", delivery.channel, delivery.class.as_str()),
        None => format!("{} {}", delivery.channel, delivery.class.as_str()),
    };
    deliveries.into_iter().map(text).collect()
}

fn check(event_type: &str, data: &str, expected: &[&str]) {
    assert_eq!(delivered(&event(event_type, data)), expected, "{event_type} {data}");
}

#[test]
fn the_catalogue_has_its_domains_kinds_and_operators() {
    let count = |domain: &str| catalogue().types().iter().filter(|t| t.domain == domain).count();
    let counts: Vec<(&str, usize)> =
        catalogue().domains().iter().map(|(domain, _)| (domain.as_str(), count(domain))).collect();
    let expected = [
        ("posts", 23),
        ("users", 10),
        ("accounts", 13),
        ("messages", 13),
        ("notifications", 13),
        ("trends", 5),
        ("outreach", 38),
        ("commands", 18),
        ("internal", 5),
    ];
    assert_eq!(counts, expected);
    assert_eq!(catalogue().channel_kinds().len(), 43);
    assert_eq!(catalogue().operators().len(), 26);
    assert_eq!(catalogue().reserved().len(), 5);
    let outreach =
        |prefix: &str| catalogue().types().iter().filter(|t| t.name.starts_with(prefix)).count();
    let counts = ["campaign.", "email.", "scraper.", "ai.", "demo.", "lead."].map(outreach);
    assert_eq!(counts, [8, 6, 9, 7, 6, 2]);
}

/// The built-in files with the text `from` replaced in the file `name`.
fn hash_with(name: &str, from: &str, to: &str) -> u64 {
    let texts: Vec<(&str, String)> = FILES
        .iter()
        .map(|(file, text)| {
            assert!(*file != name || text.contains(from), "{name} has no `{from}`");
            (*file, if *file == name { text.replacen(from, to, 1) } else { (*text).to_owned() })
        })
        .collect();
    let files: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, &text[..])).collect();
    Catalogue::load(&files).unwrap_or_else(|errors| panic!("{errors}")).hash()
}

#[test]
fn the_hash_covers_the_meaning_and_not_how_it_is_written() {
    for (file, from, to) in [
        ("internal", "title = \"Custom and internal\"", "# A comment.\ntitle   =   \"Other\""),
        ("internal", "internal = true\nbroadcast = true", "broadcast = true\ninternal = true"),
        ("channels", "carries = \"", "carries = \"more, "),
    ] {
        assert_eq!(hash_with(file, from, to), catalogue().hash(), "{from}");
    }
    for (file, from, to) in [
        ("internal", "priority = 3", "priority = 2"),
        ("internal", "key = [\"gateway_id\"]", "key = [\"account_id\"]"),
        ("internal", "channels = [\"account\"]", "channels = []"),
        ("internal", "broadcast = true\n", ""),
        ("internal", "data = \"gateway_id, expires_at:t\"", "data = \"gateway_id / expires_at:t\""),
    ] {
        assert_ne!(hash_with(file, from, to), catalogue().hash(), "{from}");
    }
}

#[test]
fn every_name_and_alias_resolves_to_its_type() {
    for event_type in catalogue().types().iter().filter(|t| !t.name.ends_with('*')) {
        assert_eq!(catalogue().resolve(&event_type.name), Some(event_type));
        for alias in event_type.aliases.iter().filter(|alias| alias.when.is_none()) {
            assert_eq!(catalogue().resolve(&alias.name), Some(event_type), "{}", alias.name);
        }
    }
    assert_eq!(catalogue().resolve("custom.order").map(|t| t.name.as_str()), Some("custom.*"));
    assert_eq!(catalogue().resolve("custom.*"), None);
    assert_eq!(catalogue().resolve("typing").map(|t| t.name.as_str()), Some("typing.start"));
    let ours = |name: &str| catalogue().resolve(name).map(|t| t.name.clone());
    assert_eq!(ours("campaign:launched").as_deref(), Some("campaign.launched"));
    assert_eq!(ours("dashboard:post:update").as_deref(), Some("post.updated"));
}

#[test]
fn only_the_known_types_are_ephemeral() {
    let passing = catalogue().types().iter().filter(|t| t.is_ephemeral());
    let passing: Vec<&str> = passing.map(|t| t.name.as_str()).collect();
    assert_eq!(passing, ["reaction.live", "presence.activity", "typing.start", "typing.stop"]);
}

#[test]
fn posts_are_delivered_to_their_author_and_the_timeline() {
    let post = r#"{"post_id":1,"author_id":"ali,ce","text":"x"}"#;
    let expected = ["account:acc stream", "posts:ali%2Cce stream", "timeline:acc stream"];
    check("post.created", post, &expected);
    let published = r#"{"post_id":1,"author_id":"alice"}"#;
    check("post.published", published, &["dashboard:acc state [post.published/1]"]);
    check("post.updated", r#"{"post_id":"a/b"}"#, &["dashboard:acc state [post.updated/a%2Fb]"]);
    let updated = r#"{"post_id":1,"author_id":"日"}"#;
    let expected =
        ["dashboard:acc state [post.updated/1]", "posts:%E6%97%A5 stream", "timeline:acc stream"];
    check("post.updated", updated, &expected);
    let answered = r#"{"response_id":1,"post":{},"persona":{"x":{"id":0},"id":"bot"}}"#;
    check("post.ai_responded", answered, &["posts:bot stream", "timeline:acc stream"]);
    check("post.reacted", r#"{"post_id":1}"#, &["live_reactions:acc ephemeral"]);
    check("post.unreacted", r#"{"post_id":1}"#, &[]);
}

#[test]
fn conditions_and_absent_fields_select_channels() {
    check("engagement.reported", r#"{"post_id":1}"#, &["account:acc stream"]);
    let account = r#"{"social_account_id":"s","platform":"p/q"}"#;
    check("engagement.reported", account, &["dashboard:acc state [engagement.reported/s/p%2Fq]"]);
    check("engagement.reported", "{}", &["dashboard:acc state [engagement.reported//]"]);
    let counted = r#"{"post_id":1,"reaction_type":"LOVE","count":2}"#;
    check("reaction.counted", counted, &["reactions:1 state [LOVE]"]);
    let thread = r#"{"scope":"t1","user_id":"u"}"#;
    check("typing.start", thread, &["typing:t1 ephemeral", "activity:acc ephemeral"]);
    check("typing.start", r#"{"scope":"user/u2","user_id":"u"}"#, &["typing:user/u2 ephemeral"]);
}

#[test]
fn messages_campaigns_and_tasks_are_delivered_to_their_channels() {
    let message =
        r#"{"message_id":1,"conversation_id":"c","sender_id":2,"text":"","recipient_id":3}"#;
    let expected =
        ["inbox:acc stream", "conversation:c stream", "dm:3 stream", "account:acc stream"];
    check("message.received", message, &expected);
    let expected = [
        "campaigns:acc stream",
        "campaigns:acc state [7]",
        "campaign:7 stream",
        "campaign:7 state [7]",
    ];
    check("campaign.launched", r#"{"campaign_id":7}"#, &expected);
    let mail = r#"{"email_id":1,"campaign_id":7}"#;
    check("email.sent", mail, &["emails:acc stream", "campaign:7 stream"]);
    check("email.sent", r#"{"email_id":1,"campaign_id":null}"#, &["emails:acc stream"]);
    let found = r#"{"scraper_id":1,"lead":{}}"#;
    check(
        "scraper.lead_found",
        found,
        &["scrapers:acc stream", "scraper:1 stream", "leads:acc stream"],
    );
    check("ai.model_trained", r#"{"model":"m"}"#, &["ai:acc stream"]);
    let task = r#"{"task_id":1,"response":"","conversation_id":"c"}"#;
    let expected = [
        "ai:acc stream",
        "ai:acc state [1]",
        "task:1 stream",
        "task:1 state [1]",
        "conversation:c stream",
    ];
    check("ai.response_ready", task, &expected);
    let reply = r#"{"command_id":"c","user_id":"u"}"#;
    check("command.accepted", reply, &["commands:acc stream", "replies:u stream"]);
    check("custom.order", "{}", &["account:acc stream"]);
    check("gateway.lease", "{}", &[]);
}

#[test]
fn types_with_deliver_emitted_are_delivered_from_operators_only() {
    let mut event = event("presence.changed", r#"{"user_id":"u","status":"online"}"#);
    assert_eq!(delivered(&event), Vec::<String>::new());
    event.source = Some("op/presence".into());
    assert_eq!(delivered(&event), ["presence:acc state [u]"]);
}

#[test]
fn an_event_that_admission_rejects_is_an_error() {
    let deliveries = |event_type: &str, data: &str| {
        catalogue().deliveries(&event(event_type, data).view()).map_err(|error| error.to_string())
    };
    for (event_type, data) in [
        ("no.such", "{}"),
        ("post.created", r#"{"post_id":1}"#),
        ("post.created", r#"{"post_id":1"#),
        ("post.created", "[]"),
        ("engagement.updated", r#"{"post_id":{}}"#),
    ] {
        assert!(deliveries(event_type, data).is_err(), "{event_type} {data}");
    }
    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    assert!(deliveries("post.created", &deep).is_err());
}

#[test]
fn an_invalid_catalogue_gives_all_errors() {
    let channels = r#"
        [kinds.account]
        id = "account"
        classes = ["stream"]
        who = ["anyone"]
        carries = "all"
        [kinds.posts]
        id = "author"
        classes = ["stream"]
        who = ["nobody"]
        carries = "posts"
        [kinds.unused]
        id = "user"
        classes = ["stream"]
        who = ["user"]
        carries = "nothing"
        [operators]
        notify = { stage = "derive" }
    "#;
    let types = r#"
        title = "Types"
        [defaults]
        priority = 7
        key = ["account_id"]
        channels = ["account"]
        [types."a.one"]
        aliases = { S0 = ["same"], S9 = ["other"] }
        data = "x_id / y:i"
        key = ["y"]
        moves = ["dance"]
        [types."a.two"]
        aliases = { S0 = ["same", "maybe if z=1"] }
        priority = 1
        data = "x_id, x_id"
        channels = ["+nowhere:{x_id}", "+account as state", "account:{x_id}"]
        [types."a.three"]
        priority = 1
        data = "x:q"
        key = ["missing"]
    "#;
    let errors = Catalogue::load(&[("channels", channels), ("types", types)]).expect_err("wrong");
    let text = errors.to_string();
    for part in [
        "channels.toml, posts: unknown role `nobody`",
        "channels.toml, unused: no type is delivered to it",
        "types.toml, a.one: 7 is not a priority",
        "types.toml, a.one: unknown surface `S9`",
        "types.toml, a.one: a key or a channel can't use `y`",
        "types.toml, a.one: the key may be missing",
        "types.toml, a.one: unknown operator `dance`",
        "types.toml, a.two: field `x_id` is listed twice",
        "types.toml, a.two: unknown channel kind `+nowhere`",
        "types.toml, a.two: `same` is a name of a.one too",
        "types.toml, a.two: no type has the name `maybe`",
        "types.toml, a.three: unknown kind of field `:q`",
        "types.toml, a.three: `missing` is not a field",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_misspelt_key_is_an_error() {
    let text = "[types.\"a.b\"]\ndata = \"\"\nchanels = []\n";
    let errors = Catalogue::load(&[("types", text)]).expect_err("wrong").to_string();
    assert!(errors.contains("chanels"), "{errors}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the one place that may be told to write the page")]
fn the_committed_page_matches_the_catalogue() {
    // A test runs in its package's folder; CARGO_MANIFEST_DIR may be that of another clone.
    let path = "CATALOGUE.md";
    let page = page(catalogue());
    if std::env::var_os("TIDEWIRE_UPDATE").is_some() {
        std::fs::write(path, &page).expect("the page can be written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == page, "schemas/CATALOGUE.md is out of date: run {UPDATE_COMMAND}");
}
