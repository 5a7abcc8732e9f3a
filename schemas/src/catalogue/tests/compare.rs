//! Tests of the comparison of two catalogues: additions are compatible, changed keys are not.

use super::super::*;

const BASE: &str = r#"
    [kinds.orders]
    id = "shop"
    classes = ["stream", "state"]
    who = ["anyone"]
    state_key = ["order_id"]
    carries = "orders of one shop"
    [types."order.placed"]
    aliases = { S0 = ["placed"] }
    priority = 1
    key = ["order_id"]
    data = "order_id, shop_id / buyer_id, count:i"
    channels = ["orders:{shop_id} as stream+state", "account"]
    moves = ["notify by buyer_id"]
"#;

fn load(text: &str) -> Catalogue {
    Catalogue::extended(&[("x", text)]).unwrap_or_else(|errors| panic!("{errors}"))
}

/// What replacing `from` by `to` in [`BASE`] changes: compatible, then refused differences.
fn check(from: &str, to: &str, compatible: &[&str], refused: &[&str]) {
    assert!(BASE.contains(from), "{from}");
    let found = compare(&load(BASE), &load(&BASE.replacen(from, to, 1)));
    assert_eq!(found.compatible, compatible, "compatible: {from} → {to}");
    assert_eq!(found.refused, refused, "refused: {from} → {to}");
}

#[test]
fn the_same_catalogue_has_no_differences() {
    check("orders of one shop", "another text", &[], &[]);
}

#[test]
fn additions_are_compatible() {
    let more = "[types.\"order.paid\"]\nkey = [\"order_id\"]\ndata = \"order_id\"\n\
                channels = [\"bills:{order_id}\"]\n[kinds.bills]\nid = \"order\"\n\
                classes = [\"stream\"]\nwho = [\"member\"]\ncarries = \"\"\n[kinds.orders]";
    check(
        "[kinds.orders]",
        more,
        &["channel kind `bills` is added", "type `order.paid` is added"],
        &[],
    );
    check("count:i", "count:i, note", &["type `order.placed`: field `note` is added"], &[]);
    check(
        "S0 = [\"placed\"]",
        "S0 = [\"placed\", \"bought\"]",
        &["type `order.placed`: alias `bought` is added"],
        &[],
    );
    check(
        ", \"account\"]",
        ", \"account\", \"notices\"]",
        &["type `order.placed`: channel `notices` is added"],
        &[],
    );
    check(
        "moves = [\"notify by buyer_id\"]",
        "moves = [\"notify by buyer_id\", \"notify by shop_id\", \"trends\"]",
        &["type `order.placed`: it moves `trends`"],
        &[],
    );
}

#[test]
fn rules_for_new_events_may_change() {
    check("priority = 1", "priority = 2", &["type `order.placed`: the priority changed"], &[]);
    check(
        "who = [\"anyone\"]",
        "who = [\"member\"]",
        &["channel kind `orders`: who may read it changed"],
        &[],
    );
    check(", \"account\"]", "]", &["type `order.placed`: channel `account` is removed"], &[]);
    check(", count:i", "", &["type `order.placed`: field `count` is no longer declared"], &[]);
    check("count:i", "count:i(0..9)", &["type `order.placed`: other rules changed"], &[]);
    check(
        "\n    moves = [\"notify by buyer_id\"]",
        "",
        &["type `order.placed`: it no longer moves `notify`"],
        &[],
    );
}

#[test]
fn whatever_state_or_stored_events_depend_on_is_refused() {
    check(
        "\n    key = [\"order_id\"]",
        "\n    key = [\"shop_id\"]",
        &[],
        &["type `order.placed`: the key changed"],
    );
    check(
        "moves = [\"notify by buyer_id\"]",
        "moves = [\"notify by shop_id\"]",
        &[],
        &["type `order.placed`: the key of `notify` changed"],
    );
    check(
        "as stream+state",
        "as stream",
        &[],
        &["type `order.placed`: channel `orders` is no longer of class state"],
    );
    check(
        "as stream+state",
        "as stream+state by buyer_id",
        &[],
        &["type `order.placed`: channel `orders`: the state key changed"],
    );
    let key = "state key changed";
    check(
        "state_key = [\"order_id\"]",
        "state_key = [\"shop_id\"]",
        &[],
        &[
            &format!("channel kind `orders`: the {key}"),
            &format!("type `order.placed`: channel `orders`: the {key}"),
        ],
    );
    check(
        "id = \"shop\"",
        "id = \"store\"",
        &[],
        &["channel kind `orders`: the id was `shop` and is `store`"],
    );
    check("S0 = [\"placed\"]", "", &[], &["type `order.placed`: its alias `placed` is removed"]);
    check(
        "count:i",
        "count:f",
        &[],
        &["type `order.placed`: field `count` was int64 and is number"],
    );
    check(
        "shop_id / buyer_id",
        "shop_id, buyer_id /",
        &[],
        &["type `order.placed`: field `buyer_id` is now required"],
    );
    check(
        "shop_id / buyer_id",
        "shop_id, note / buyer_id",
        &[],
        &["type `order.placed`: field `note` is added and required"],
    );
}

#[test]
fn a_removed_type_kind_or_class_is_refused() {
    let found = compare(&load(BASE), Catalogue::builtin());
    assert_eq!(
        found.refused,
        ["channel kind `orders` is removed", "type `order.placed` is removed",]
    );
    assert!(found.compatible.is_empty());
    let stream =
        BASE.replace("[\"stream\", \"state\"]", "[\"stream\"]").replace(" as stream+state", "");
    assert_eq!(
        compare(&load(BASE), &load(&stream)).refused,
        [
            "channel kind `orders`: class state is removed",
            "type `order.placed`: channel `orders` is no longer of class state",
        ]
    );
}
