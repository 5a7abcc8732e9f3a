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
    check("count:i", "count:i{number}", &[], &[]);
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

/// What replacing `from` by `to` in a catalogue refuses.
fn check_refused(base: &str, [from, to]: [&str; 2], refused: &[&str]) {
    assert!(base.contains(from), "{from}");
    let found = compare(&load(base), &load(&base.replacen(from, to, 1)));
    assert_eq!(found.refused, refused, "{from} → {to}");
}

#[test]
fn narrower_values_are_refused_and_wider_ones_are_not() {
    let base = BASE.replace("count:i", "count:i(0..9), size(s|m)");
    let narrower = |field: &str| {
        format!("type `order.placed`: field `{field}` no longer allows all its values")
    };
    let (count, size) = (narrower("count"), narrower("size"));
    check_refused(BASE, ["count:i", "count:i(0..9)"], &[&count]);
    check_refused(&base, ["0..9", "0..8"], &[&count]);
    check_refused(&base, ["0..9", "1..99"], &[&count]);
    check_refused(&base, ["s|m", "s|l"], &[&size]);
    check_refused(&BASE.replace("count:i", "size"), ["size", "size(s|m)"], &[&size]);
    for (from, to) in [("0..9", "-1..9"), ("(0..9)", ""), ("s|m", "l|m|s"), ("(s|m)", "")] {
        check_refused(&base, [from, to], &[]);
    }
    let one_of = "type `order.placed`: one of the fields `buyer_id`, `note` is now required";
    check_refused(BASE, ["shop_id / buyer_id", "shop_id, buyer_id|note /"], &[one_of]);
    let either = BASE.replace("shop_id / buyer_id", "shop_id, buyer_id|note /");
    check_refused(&either, ["buyer_id|note", "buyer_id|note|guest"], &[]);
    check_refused(
        &BASE.replace("shop_id / buyer_id", "shop_id, buyer_id /"),
        ["buyer_id /", "buyer_id|note /"],
        &[],
    );
    check_refused(
        &BASE.replace("priority = 1", "unchecked = true"),
        ["unchecked = true", ""],
        &["type `order.placed`: its fields are checked now"],
    );
}

#[test]
fn names_that_get_another_meaning_are_refused() {
    let shop = "key = [\"shop_id\"]\ndata = \"shop_id\"\nunchecked = true";
    let pattern = format!("{BASE}[types.\"shop.*\"]\n{shop}\n");
    let kinds = "[kinds.orders]";
    let more = |name: &str, alias: &str| {
        let data = "key = [\"order_id\"]\ndata = \"order_id / express:b\"";
        format!("[types.\"{name}\"]\naliases = {{ S0 = [{alias}] }}\n{data}\n{kinds}")
    };
    check_refused(
        &pattern,
        [kinds, &more("shop.opened", "")],
        &["name `shop.opened`: it meant `shop.*` and means `shop.opened`"],
    );
    check_refused(
        &pattern,
        [kinds, &more("order.paid", "\"shop.paid\"")],
        &["name `shop.paid`: it meant `shop.*` and means `order.paid`"],
    );
    let express = more("order.express", "\"placed if express=true\"");
    check_refused(
        BASE,
        [kinds, &express],
        &["name `placed`: it meant `order.placed` and means `order.express` on a condition, else \
           `order.placed`"],
    );
    check_refused(BASE, [kinds, &more("order.express", "\"bought\"")], &[]);
    let conditional = BASE.replacen(kinds, &express, 1);
    check_refused(&conditional, ["\"placed\"", "\"placed\", \"bought\""], &[]);
    let found = compare(&load(&conditional), &load(&conditional.replace("=true", "=false")));
    assert_eq!(found.refused.len(), 1, "another condition: {found:?}");
}
