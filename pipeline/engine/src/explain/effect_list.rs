//! Arranges the items of an entry: effects under their operator's call and their emission.
//!
//! ```text
//! entry ─▶ call of an operator ─▶ emitted event ─▶ where it goes
//!   │            └──────────────▶ timers, updates, fields, what it dropped
//!   └────▶ copies for other keys, failures, dead letters
//! ```

use serde_json::{Value, json};

/// The name of the list of effects in a node.
pub(super) const EFFECTS: &str = "effects";

/// The effects of an entry, or of an emission that is processed in it.
#[derive(Default)]
pub(super) struct EffectList {
    list: Vec<Value>,
    call: Option<Value>,
    emission: Option<Value>,
}

impl EffectList {
    /// Begins the call of an operator.
    pub(super) fn begin_call(&mut self, operator: &str) {
        self.end_call();
        self.call = Some(json!({ "kind": "call", "operator": operator, EFFECTS: [] }));
    }

    /// Begins an emitted event.
    pub(super) fn begin_emission(&mut self, emitted: Value) {
        self.end_emission();
        self.emission = Some(emitted);
    }

    /// Adds where an event goes: the emitted one, or without one the event itself.
    pub(super) fn add_way(&mut self, effect: Value) {
        match &mut self.emission {
            Some(emission) => push(emission, effect),
            None => self.add_to_call(effect),
        }
    }

    /// Adds an effect of the call itself.
    pub(super) fn add(&mut self, effect: Value) {
        self.end_emission();
        self.add_to_call(effect);
    }

    /// Adds an effect of no call.
    pub(super) fn add_after_calls(&mut self, effect: Value) {
        self.end_call();
        self.list.push(effect);
    }

    /// Ends the list.
    pub(super) fn end(mut self) -> Vec<Value> {
        self.end_call();
        self.list
    }

    fn add_to_call(&mut self, effect: Value) {
        match &mut self.call {
            Some(call) => push(call, effect),
            None => self.list.push(effect),
        }
    }

    fn end_emission(&mut self) {
        if let Some(emission) = self.emission.take() {
            self.add_to_call(emission);
        }
    }

    fn end_call(&mut self) {
        self.end_emission();
        self.list.extend(self.call.take());
    }
}

/// Adds an effect to a node.
pub(super) fn push(node: &mut Value, effect: Value) {
    match node[EFFECTS].as_array_mut() {
        Some(effects) => effects.push(effect),
        None => node[EFFECTS] = json!([effect]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_under_their_call_and_their_emission() {
        let mut list = EffectList::default();
        list.begin_call("one");
        list.begin_emission(json!({ "kind": "emitted", "id": "a" }));
        list.add_way(json!("fact"));
        list.begin_emission(json!({ "kind": "emitted", "id": "b" }));
        list.add_way(json!("channel"));
        list.add(json!("timer"));
        list.begin_call("delivery");
        list.add_way(json!("channel of the event"));
        list.add_after_calls(json!("copy"));
        let expected = json!([
            { "kind": "call", "operator": "one", "effects": [
                { "kind": "emitted", "id": "a", "effects": ["fact"] },
                { "kind": "emitted", "id": "b", "effects": ["channel"] },
                "timer",
            ] },
            { "kind": "call", "operator": "delivery", "effects": ["channel of the event"] },
            "copy",
        ]);
        assert_eq!(json!(list.end()), expected);
    }
}
