//! Properties from D-Bus: by name with a type, as text for people, as JSON for programs.

use std::collections::HashMap;

use serde_json::Value as Json;
use zbus::{OwnedVariant, Variant};

use super::escape;

/// All properties of one interface of one object.
#[derive(Debug, Default)]
pub struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    #[must_use]
    pub fn new(values: HashMap<String, OwnedVariant>) -> Self {
        Self(values)
    }

    /// The value as a person reads it, escaped; empty when the daemon does not have it.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        self.0.get(name).map(|value| text(value)).unwrap_or_default()
    }

    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        let value: &Variant<'_> = self.0.get(name)?;
        if let Variant::U32(value) = value {
            return Some((*value).into());
        }
        if let Variant::U64(value) = value { Some(*value) } else { None }
    }

    /// A property that D-Bus carries as `u`.
    #[must_use]
    pub fn small(&self, name: &str) -> Option<u32> {
        self.number(name).and_then(|value| value.try_into().ok())
    }

    #[must_use]
    pub fn is_true(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| matches!(**value, Variant::Bool(true)))
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Names in the given order, then those that the order does not know, sorted: a newer daemon
    /// has more properties, and none of them is hidden.
    #[must_use]
    pub fn names<'a>(&'a self, order: &[&'a str]) -> Vec<&'a str> {
        let known = order.iter().copied().filter(|name| self.has(name));
        let mut rest: Vec<&str> =
            self.0.keys().map(String::as_str).filter(|name| !order.contains(name)).collect();
        rest.sort_unstable();
        known.chain(rest).collect()
    }

    /// An object with the properties' names in `snake_case`.
    #[must_use]
    pub fn json(&self) -> serde_json::Map<String, Json> {
        self.0.iter().map(|(name, value)| (snake(name), json(value))).collect()
    }
}

/// `QueueHighWater` is `queue_high_water` in JSON.
#[must_use]
pub fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for (index, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// Bytes of a path or value without the NUL that some senders end them with.
#[must_use]
pub fn trimmed(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\0").unwrap_or(bytes)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only some types of D-Bus have a form of their own"
)]
fn text(value: &Variant<'_>) -> String {
    match value {
        Variant::Bool(true) => "yes".to_owned(),
        Variant::Bool(false) => "no".to_owned(),
        Variant::Str(value) => escape::text(value.as_str()),
        Variant::ObjectPath(value) => value.to_string(),
        Variant::Array(values) => match octets(values) {
            Some(bytes) => escape::bytes(trimmed(&bytes)),
            None => values.iter().map(text).collect::<Vec<_>>().join(" "),
        },
        Variant::Structure(fields) => {
            fields.fields().iter().map(text).collect::<Vec<_>>().join(":")
        }
        other => number(other).map_or_else(|| escape::text(&other.to_string()), |n| n.to_string()),
    }
}

/// Bytes become text: what is not UTF-8 in them becomes `\xHH`.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only some types of D-Bus have a form of their own"
)]
fn json(value: &Variant<'_>) -> Json {
    match value {
        Variant::Bool(value) => (*value).into(),
        Variant::Str(value) => value.as_str().into(),
        Variant::ObjectPath(value) => value.as_str().into(),
        Variant::Variant(value) => json(value),
        Variant::Array(values) => match octets(values) {
            Some(bytes) => utf8(&bytes).into(),
            None => values.iter().map(json).collect(),
        },
        Variant::Structure(fields) => fields.fields().iter().map(json).collect(),
        Variant::Dict(entries) => {
            entries.iter().map(|(key, value)| (text(key), json(value))).collect()
        }
        other => number(other).map_or_else(|| other.to_string().into(), Json::Number),
    }
}

/// Bytes for JSON, whose strings are Unicode: only what is no UTF-8 is escaped.
#[must_use]
pub fn utf8(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in trimmed(bytes).utf8_chunks() {
        shown.push_str(chunk.valid());
        shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    shown
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only some types of D-Bus have a form of their own"
)]
fn number(value: &Variant<'_>) -> Option<serde_json::Number> {
    Some(match value {
        Variant::U8(value) => (*value).into(),
        Variant::I16(value) => (*value).into(),
        Variant::U16(value) => (*value).into(),
        Variant::I32(value) => (*value).into(),
        Variant::U32(value) => (*value).into(),
        Variant::I64(value) => (*value).into(),
        Variant::U64(value) => (*value).into(),
        Variant::F64(value) => serde_json::Number::from_f64(*value)?,
        _ => return None,
    })
}

/// The bytes of an `ay`; an empty one counts, an empty array of anything else does not.
fn octets(values: &zbus::wire::Array<'_>) -> Option<Vec<u8>> {
    if *values.element_signature() != zbus::Signature::U8 {
        return None;
    }
    let byte = |value: &Variant<'_>| if let Variant::U8(byte) = value { Some(*byte) } else { None };
    values.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::{Properties, snake};
    use std::collections::HashMap;
    use zbus::{OwnedVariant, Variant};

    fn owned<'a>(value: impl Into<Variant<'a>>) -> OwnedVariant {
        value.into().try_into_owned().unwrap()
    }

    fn sample() -> Properties {
        let values = [
            ("Node", owned(b"/dev/s\xff\x1b".to_vec())),
            ("Major", owned(8u32)),
            ("Tags", owned(vec!["uaccess", "seat"])),
            ("Acl", owned(vec![("user", "al", 6u32)])),
            ("Initialized", owned(true)),
            ("Novelty", owned(1u64 << 40)),
        ];
        Properties::new(HashMap::from(values.map(|(name, value)| (name.to_owned(), value))))
    }

    #[test]
    fn people_see_text_and_never_a_raw_byte_of_a_device() {
        let sample = sample();
        assert_eq!(sample.text("Node"), "/dev/s\\xff\\x1b");
        assert_eq!(sample.text("Tags"), "uaccess seat");
        assert_eq!(sample.text("Acl"), "user:al:6");
        assert_eq!(sample.text("Initialized"), "yes");
        assert_eq!(sample.text("Absent"), "");
    }

    #[test]
    fn programs_see_types() {
        let json = serde_json::Value::Object(sample().json());
        let expected = serde_json::json!({
            "node": "/dev/s\\xff\u{1b}", "major": 8, "tags": ["uaccess", "seat"],
            "acl": [["user", "al", 6]], "initialized": true, "novelty": 1u64 << 40,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_property_of_a_newer_daemon_comes_last_and_is_not_hidden() {
        let sample = sample();
        let names = sample.names(&["Major", "Missing", "Node"]);
        assert_eq!(names, ["Major", "Node", "Acl", "Initialized", "Novelty", "Tags"]);
    }

    #[test]
    fn names_are_snake_case_in_json() {
        assert_eq!(snake("QueueHighWater"), "queue_high_water");
        assert_eq!(snake("Mode"), "mode");
    }
}
