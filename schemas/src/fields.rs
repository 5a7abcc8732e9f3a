//! The members of a JSON object by name, decoded as the kinds that fields of events have.
//!
//! An event's `data` is scanned once, however many operators ask for its fields. A member that is
//! null counts as absent, and one of another kind gives `None`: admission has checked the fields
//! that the catalogue names, so nothing here is an error.

use std::borrow::Cow;

use crate::catalogue::FieldLookup;
use crate::json;

/// The members of an object, in the order in which they were sent.
#[derive(Clone, Debug, Default)]
pub struct Fields<'a> {
    members: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Fields<'a> {
    /// No members.
    pub const NONE: Self = Self { members: Vec::new() };

    /// Scans an object; `None` if the text is no JSON object. Of two members of one name the last
    /// one counts.
    pub fn of(object: &'a str) -> Option<Self> {
        let mut members = Vec::with_capacity(8);
        let is_object = object.trim_start().starts_with('{');
        json::each_member(object, |name, value| {
            if value != "null" {
                members.push((name, value));
            }
            true
        })
        .ok()?;
        is_object.then_some(Self { members })
    }

    /// A member as JSON text.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.members.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// A string, or the text of a number: ids are either.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        json::scalar(self.raw(name)?)
    }

    /// A whole number of 64 bits.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.raw(name)?.parse().ok()
    }

    /// A finite number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.raw(name)?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// `true` or `false`.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        self.raw(name)?.parse().ok()
    }

    /// The strings of a list; other elements are left out.
    pub fn texts(&self, name: &str) -> Vec<Cow<'a, str>> {
        let mut texts = Vec::new();
        json::each_element(self.raw(name).unwrap_or("[]"), |element| {
            texts.extend(json::string(element));
        });
        texts
    }

    /// An object of these members and of others, each as JSON text, which replace those of their
    /// names.
    pub fn with(&self, set: &[(String, String)]) -> String {
        let mut out = FieldWriter::default();
        let is_set = |name: &str| set.iter().any(|(other, _)| other == name);
        for (name, value) in self.members.iter().filter(|(name, _)| !is_set(name)) {
            out = out.raw(name, value);
        }
        for (at, (name, value)) in set.iter().enumerate() {
            if !set[at + 1..].iter().any(|(later, _)| later == name) {
                out = out.raw(name, value);
            }
        }
        out.end()
    }

    /// The members of an object in it.
    pub fn object(&self, name: &str) -> Option<Fields<'a>> {
        Fields::of(self.raw(name)?)
    }
}

impl FieldLookup for Fields<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        self.raw(name)
    }
}

/// Bytes for which a writer has room at first: most objects have less.
const WRITER_BYTES: usize = 256;

/// Writes a JSON object member by member. A name that is set again is there twice; readers take the
/// last.
#[derive(Clone, Debug)]
pub struct FieldWriter {
    text: String,
}

impl Default for FieldWriter {
    fn default() -> Self {
        let mut text = String::with_capacity(WRITER_BYTES);
        text.push('{');
        Self { text }
    }
}

impl FieldWriter {
    /// Adds a member whose value is JSON text.
    pub fn raw(mut self, name: &str, json: &str) -> Self {
        self.begin(name);
        self.text.push_str(json);
        self
    }

    /// Adds a string.
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.begin(name);
        json::quote(text, &mut self.text);
        self
    }

    fn begin(&mut self, name: &str) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        json::quote(name, &mut self.text);
        self.text.push(':');
    }

    /// Adds a string if there is one.
    pub fn text_if(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    /// Adds a whole number.
    pub fn integer(self, name: &str, number: i64) -> Self {
        self.raw(name, &number.to_string())
    }

    /// Adds `true` or `false`.
    pub fn boolean(self, name: &str, value: Truth) -> Self {
        self.raw(name, if value == Truth::True { "true" } else { "false" })
    }

    /// The object.
    pub fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// A truth value of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// `true`.
    True,
    /// `false`.
    False,
}

/// The object with these members set, each as JSON text; the others stay as they are.
pub fn with_members(object: &str, set: &[(String, String)]) -> Option<String> {
    Some(Fields::of(object)?.with(set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_are_decoded_as_their_kinds() {
        let data = r#" {"a":"x\n","n":-5,"id":42,"f":1.5,"b":true,"l":["p",1,"q"],
            "o":{"id":7},"null":null,"a":"y"}"#;
        let fields = Fields::of(data).expect("an object");
        assert_eq!(fields.text("a").as_deref(), Some("y"));
        assert_eq!((fields.integer("n"), fields.text("id").as_deref()), (Some(-5), Some("42")));
        assert_eq!((fields.number("f"), fields.boolean("b")), (Some(1.5), Some(true)));
        assert_eq!(fields.texts("l"), ["p", "q"]);
        assert_eq!(fields.object("o").and_then(|o| o.integer("id")), Some(7));
        assert_eq!((fields.raw("null"), fields.raw("none")), (None, None));
        assert_eq!((fields.integer("a"), fields.boolean("n")), (None, None));
        for no_object in ["[1]", "5", "", "{", r#"{"a":}"#] {
            assert!(Fields::of(no_object).is_none(), "{no_object}");
        }
    }

    #[test]
    fn members_are_set_and_the_others_stay() {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let new = with_members(r#"{"a":1,"b":[2]}"#, &[set("a", "9"), set("c", "3")]);
        assert_eq!(new.as_deref(), Some(r#"{"b":[2],"a":9,"c":3}"#));
        let twice = with_members("{}", &[set("a", "1"), set("a", "2")]);
        assert_eq!(twice.as_deref(), Some(r#"{"a":2}"#));
        assert_eq!(with_members("[]", &[]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(name in ".{0,12}", text in ".{0,40}", number: i64) {
            let data = FieldWriter::default()
                .text(&name, &text)
                .integer("n\u{1}", number)
                .boolean("b\u{1}", if number > 0 { Truth::True } else { Truth::False })
                .end();
            let fields = Fields::of(&data).expect("an object");
            let read = fields.text(&name);
            prop_assert_eq!(read.as_deref(), Some(text.as_str()));
            prop_assert_eq!(fields.integer("n\u{1}"), Some(number));
            prop_assert_eq!(fields.boolean("b\u{1}"), Some(number > 0));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,60}") {
            let _ = Fields::of(&text);
            let _ = with_members(&text, &[]);
        }
    }
}
