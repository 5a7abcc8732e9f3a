//! Tests of types that are delivered to channels with both a stream and a state.

use super::super::*;
use super::event;

const SHOPS: &str = r#"
    title = "Shops"
    [kinds.shop]
    id = "shop"
    classes = ["stream", "state"]
    who = ["anyone"]
    state_key = ["item_id"]
    carries = "the items of one shop"
    [defaults]
    priority = 1
    key = ["shop_id"]
    [types."item.both"]
    data = "shop_id, item_id"
    channels = ["shop:{shop_id} as stream+state"]
    [types."item.apart"]
    data = "shop_id / item_id"
    channels = ["shop:{shop_id} as stream", "shop:{shop_id} as state if item_id"]
    [types."item.sometimes"]
    data = "shop_id, item_id / text"
    channels = ["shop:{shop_id} as stream if text", "shop:{shop_id} as state"]
    [types."item.elsewhere"]
    data = "shop_id, item_id, other_shop_id"
    channels = ["shop:{other_shop_id} as stream", "shop:{shop_id} as state"]
    [types."item.stream"]
    data = "shop_id, item_id"
    channels = ["shop:{shop_id} as stream"]
    [types."item.state"]
    data = "shop_id, item_id"
    channels = ["shop:{shop_id} as state"]
    [types."item.any.*"]
    data = "shop_id, item_id"
    channels = ["shop:{shop_id} as stream+state"]
"#;

fn shops() -> Catalogue {
    Catalogue::extended(&[("shop/items", SHOPS)]).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn a_state_is_streamed_if_each_change_of_it_is_an_event_of_the_stream() {
    let catalogue = shops();
    let check = |event_type: &str, kind: &str, expected: bool| {
        let actual = catalogue.resolve(event_type).expect("a type").is_state_streamed(kind);
        assert_eq!(actual, expected, "{event_type} {kind}");
    };
    check("item.both", "shop", true);
    check("item.both", "orders", false);
    check("item.apart", "shop", true);
    check("item.any.x", "shop", true);
    // A change that is not in the stream must be shown.
    check("item.sometimes", "shop", false);
    check("item.elsewhere", "shop", false);
    check("item.state", "shop", false);
    // An operator may write what the catalogue does not.
    check("item.stream", "shop", false);
    check("notification.created", "notifications", false);
}

#[test]
fn an_event_has_a_state_key_in_the_channels_whose_state_it_changes() {
    let catalogue = shops();
    let check = |event_type: &str, data: &str, expected: Option<&str>| {
        let event = event(event_type, data);
        let event_type = catalogue.resolve(event_type).expect("a type");
        let actual = event_type.state_key_in("shop:s%2C1", &event.view());
        assert_eq!(actual.as_deref(), expected, "{event_type:?} {data}");
    };
    let item = r#"{"shop_id":"s,1","item_id":"i1"}"#;
    check("item.both", item, Some("i1"));
    check("item.apart", item, Some("i1"));
    check("item.apart", r#"{"shop_id":"s,1"}"#, None);
    check("item.any.x", item, Some("i1"));
    check("item.both", r#"{"shop_id":"s2","item_id":"i1"}"#, None);
    check("item.both", r#"{"shop_id":"s,1"}"#, None);
    check("item.both", "[]", None);
    check("item.stream", item, None);
}
