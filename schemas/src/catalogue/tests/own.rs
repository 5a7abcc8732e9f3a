//! Tests of files that add to the built-in catalogue: what they may add and what is refused.
//!
//! `check_refused` loads one file beside the built-in ones and expects exactly the given errors,
//! so that a refused entry causes no others.

use super::super::*;
use super::event;

const ORDERS: &str = r#"
    title = "Orders"
    [kinds.orders]
    id = "shop"
    classes = ["stream", "state"]
    who = ["anyone"]
    state_key = ["order_id"]
    carries = "orders of one shop"
    [types."order.placed"]
    key = ["order_id"]
    data = "order_id, shop_id, item_count / buyer_id, tags:s[]"
    channels = ["orders:{shop_id} as stream+state"]
    moves = ["notify by buyer_id"]
    [types."order.note.*"]
    key = ["account_id"]
    data = "/ text"
    channels = ["account"]
    [[rename]]
    types = ["order.*"]
    fields = { items = "item_count" }
"#;

fn orders() -> Catalogue {
    Catalogue::extended(&[("shop/orders", ORDERS)]).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn files_add_types_channels_and_rules() {
    let catalogue = orders();
    let builtin = Catalogue::builtin();
    assert_eq!(catalogue.types().len(), builtin.types().len() + 2);
    assert_eq!(catalogue.channel_kinds().len(), builtin.channel_kinds().len() + 1);
    assert_ne!(catalogue.hash(), builtin.hash());
    let placed = event("order.placed", r#"{"order_id":7,"shop_id":"s","item_count":"2"}"#);
    let found = catalogue.deliveries(&placed.view()).expect("an event of the catalogue");
    let found: Vec<_> =
        found.iter().map(|d| (d.channel.as_str(), d.state_key.as_deref())).collect();
    assert_eq!(found, [("orders:s", None), ("orders:s", Some("7"))]);
    assert!(catalogue.resolve("order.note.private").is_some());
    let renames = &catalogue.resolve("order.placed").expect("a type").renames;
    assert!(renames.iter().any(|rename| rename.from == "items"));
}

#[test]
fn no_file_at_all_is_the_built_in_catalogue() {
    let empty = Catalogue::extended(&[]).expect("valid");
    assert_eq!(empty.hash(), Catalogue::builtin().hash());
}

#[test]
fn the_hash_does_not_depend_on_how_the_entries_are_split_over_files() {
    let (kinds, types) = ORDERS.split_at(ORDERS.find("[types").expect("types"));
    let types = format!("title = \"T\"\n{types}");
    let split = Catalogue::extended(&[("a", kinds), ("b", &types)]).expect("valid");
    assert_eq!(split.hash(), orders().hash());
}

#[test]
fn records_of_own_types_are_decoded_by_their_schemas() {
    use crate::codec::typed_schemas::TypedSchemas;
    let catalogue = orders();
    let schemas = TypedSchemas::of(&catalogue);
    assert_eq!(schemas.event_type("tidewire.order.Placed"), Some("order.placed"));
    assert_eq!(TypedSchemas::of(Catalogue::builtin()).event_type("tidewire.order.Placed"), None);
}

/// The file `shop/x` gives exactly these errors.
fn check_refused(text: &str, expected: &[&str]) {
    let errors = Catalogue::extended(&[("shop/x", text)]).expect_err(text).0;
    let expected: Vec<String> =
        expected.iter().map(|error| format!("shop/x.toml{error}")).collect();
    assert_eq!(errors, expected, "{text}");
}

#[test]
fn an_entry_that_changes_a_built_in_one_is_refused() {
    let unchanged = "which can't be changed; choose another name";
    let taken = "is a name of a built-in type, which can't be changed; choose another alias";
    check_refused(
        "[types.\"post.created\"]\ndata = \"\"",
        &[&format!(", post.created: `post.created` is a built-in type, {unchanged}")],
    );
    check_refused(
        "[kinds.posts]\nid = \"x\"\nclasses = [\"stream\"]\nwho = [\"user\"]\ncarries = \"\"",
        &[&format!(", posts: `posts` is a built-in channel kind, {unchanged}")],
    );
    check_refused(
        "[types.\"custom.order\"]\ndata = \"\"",
        &[", custom.order: `custom.order` is covered by the built-in type `custom.*`; choose a \
           name that begins otherwise"],
    );
    check_refused(
        "[types.\"a.b\"]\nkey = [\"account_id\"]\ndata = \"\"\naliases = { S0 = [\"mention\"] }",
        &[&format!(", a.b: `mention` {taken}")],
    );
    for alias in ["custom.invoice", "post.created if lang=de", "typing(is_typing=false)"] {
        let entry = "key = [\"account_id\"]\ndata = \"lang\"";
        let name = alias.split([' ', '(']).next().expect("a name");
        check_refused(
            &format!("[types.\"a.b\"]\n{entry}\naliases = {{ S0 = [\"{alias}\"] }}"),
            &[&format!(", a.b: `{name}` {taken}")],
        );
    }
    check_refused(
        "[[default]]\ntypes = [\"*\"]\nfields = { region = \"x\" }",
        &[
            ": the pattern `*` covers the built-in type `engagement.reported`, which can't be changed; \
           name your own types",
        ],
    );
    check_refused(
        "reserved = [\"x\"]\n[lift.post]\nx = [\"y\"]\n[operators]\nmine = { stage = \"derive\" }",
        &[
            ": `operators` can only be built in; remove it",
            ": `reserved` can only be built in; remove it",
            ": `lift` can only be built in; remove it",
        ],
    );
}

#[test]
fn reserved_names_and_words_are_refused() {
    let entry = "key = [\"account_id\"]\ndata = \"\"";
    check_refused(
        &format!("[types.\"a.b\"]\n{entry}\naliases = {{ S0 = [\"ping\"] }}"),
        &[", a.b: `ping` is reserved for a protocol frame"],
    );
    for (word, rest) in [("internal", ""), ("broadcast", "")] {
        check_refused(
            &format!("[types.\"a.b\"]\n{entry}\n{word} = true{rest}"),
            &[&format!(", a.b: `{word}` is for events of Tidewire's own processes; remove it")],
        );
    }
    for name in ["order", "Order.placed", "order.", "order.place d", "order.*.x", "*", "a.b__c"] {
        let errors = Catalogue::extended(&[("x", &format!("[types.\"{name}\"]\n{entry}"))]);
        let text = errors.expect_err(name).to_string();
        assert!(text.contains(&format!("`{name}` is no type name")), "{name}: {text}");
    }
    let long = format!("[types.\"a.{}\"]\n{entry}", "b".repeat(63));
    assert!(Catalogue::extended(&[("x", &long)]).is_err());
}

#[test]
fn all_errors_of_all_files_are_reported_together() {
    let one = "[types.\"a.b\"]\ndata = \"x:q\"\n[types.\"post.created\"]\ndata = \"\"";
    let two = "[types.\"a.c\"]\nkey = [\"no_id\"]\ndata = \"\"\nmoves = [\"dance\"]";
    let errors = Catalogue::extended(&[("one", one), ("two", two)]).expect_err("wrong").0;
    for place in ["one.toml, a.b: ", "one.toml, post.created: ", "two.toml, a.c: "] {
        assert!(errors.iter().any(|error| error.starts_with(place)), "{place}: {errors:#?}");
    }
    // A file that is no TOML hides what other files mean, but not that they are no TOML either.
    let errors = Catalogue::extended(&[("one", "a ="), ("two", "b =")]).expect_err("wrong").0;
    assert_eq!(errors.len(), 2, "{errors:?}");
    let errors = Catalogue::extended(&[("one", ORDERS), ("two", ORDERS)]).expect_err("twice").0;
    let text = errors.join("\n");
    for part in [
        "two.toml, orders: there is a channel kind with this name already",
        "two.toml, order.placed: there is a type with this name in one.toml",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn two_patterns_must_not_cover_the_same_names() {
    let entry = "key = [\"account_id\"]\ndata = \"\"";
    check_refused(
        &format!("[types.\"a.*\"]\n{entry}\n[types.\"a.b.*\"]\n{entry}"),
        &[", a.b.*: `a.*` and `a.b.*` cover the same names"],
    );
}

#[test]
fn a_line_that_groups_multiply_is_refused() {
    let group = "f, ".repeat(10_000);
    let line = "@g, ".repeat(10_000);
    let text = format!(
        "[groups]\ng = \"{group}\"\n[types.\"a.b\"]\nkey = [\"account_id\"]\ndata = \"{line}\"\n"
    );
    let errors = Catalogue::extended(&[("shop/x", &text)]).expect_err("too long").0;
    assert!(errors[0].contains("over 65536 bytes with its groups"), "{errors:?}");
    let many: Vec<String> = (0..20).map(|n| format!("f{n}")).collect();
    let line = format!("[types.\"a.b\"]\nkey = [\"account_id\"]\ndata = \"{}\"", many.join("|"));
    let errors = Catalogue::extended(&[("shop/x", &line)]).expect_err("too many").0;
    assert!(errors[0].contains("over 16 alternatives"), "{errors:?}");
}
