//! Parsers of setting values: one function per kind of value.
//!
//! A parser returns the value, or a clause that says what is valid. The caller adds the place and
//! the text of the wrong value.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tidewire_engine::derive::AuditMode;
use tidewire_schemas::catalogue::Catalogue;

use super::AckDurability;

/// Characters of a prefix or an instance: a topic's name, which begins with the prefix, may have
/// 249 on Kafka.
const NAME_CHARS_MAX: usize = 100;
/// The default instance on the embedded log, which has one process only.
const INSTANCE_EMBEDDED: &str = "dev";

/// A value to continue parsing with after a problem was recorded.
pub(super) trait Placeholder {
    /// The value.
    fn placeholder() -> Self;
}

macro_rules! placeholder {
    ($($type:ty => $value:expr),* $(,)?) => {
        $(impl Placeholder for $type { fn placeholder() -> Self { $value } })*
    };
}

placeholder! {
    SocketAddr => SocketAddr::from(([127, 0, 0, 1], 0)),
    PathBuf => PathBuf::new(),
    String => String::new(),
    bool => false,
    u32 => 1,
    usize => 1,
    u64 => 1,
    f64 => 1.0,
    AckDurability => AckDurability::Process,
    AuditMode => AuditMode::On,
    &'static Catalogue => Catalogue::builtin(),
    Option<u16> => None,
    Vec<String> => Vec::new(),
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give an IP address and a port, such as 127.0.0.1:8080".into())
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("give true or false".into()),
    }
}

pub(super) fn unset_or_boolean(text: &str) -> Result<bool, String> {
    if text.is_empty() { Ok(false) } else { boolean(text) }
}

pub(super) fn filter(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("give a level (error, warn, info, debug, trace) or module=level,…".into()),
    }
}

pub(super) fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("give the path of a folder; it is created if it is missing".into());
    }
    if Path::new(text).exists() && !Path::new(text).is_dir() {
        return Err("this is a file; give the path of a folder".into());
    }
    Ok(text.into())
}

pub(super) fn durability(text: &str) -> Result<AckDurability, String> {
    match text {
        "process" => Ok(AckDurability::Process),
        "host" => Ok(AckDurability::Host),
        _ => Err("give process (survives kill -9) or host (survives power loss)".into()),
    }
}

pub(super) fn audit(text: &str) -> Result<AuditMode, String> {
    match text {
        "on" => Ok(AuditMode::On),
        "off" => Ok(AuditMode::Off),
        _ => Err("give on or off".into()),
    }
}

pub(super) fn prefix(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.chars().all(allowed) && text.len() <= NAME_CHARS_MAX {
        Ok(text.to_owned())
    } else {
        Err(format!("give at most {NAME_CHARS_MAX} of the characters a-z A-Z 0-9 . _ -"))
    }
}

/// Becomes part of group member names and of transactional ids.
pub(super) fn instance(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(INSTANCE_EMBEDDED.to_owned()) } else { prefix(text) }
}

/// The entries of a list separated by commas.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|one| !one.is_empty())
}

pub(super) fn host_names(text: &str) -> Result<Vec<String>, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    if let Some(wrong) = list(text).find(|name| !name.chars().all(allowed)) {
        return Err(format!("{wrong:?} is not a host name; give names without a port"));
    }
    Ok(list(text).map(str::to_owned).collect())
}

pub(super) fn origins(text: &str) -> Result<Vec<String>, String> {
    let host = |origin: &str| {
        let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        rest.is_some_and(|host| !host.is_empty() && !host.contains('/'))
    };
    if let Some(wrong) = list(text).find(|origin| !host(origin)) {
        return Err(format!("{wrong:?} is not an origin; give one such as http://localhost:3000"));
    }
    Ok(list(text).map(str::to_owned).collect())
}

pub(super) fn whole_number<T: TryFrom<u64>>(text: &str, min: u64, max: u64) -> Result<T, String> {
    let right = || format!("give a whole number from {min} to {max}");
    let number: u64 = text.trim().parse().map_err(|_| right())?;
    if !(min..=max).contains(&number) {
        return Err(right());
    }
    T::try_from(number).map_err(|_| right())
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("give a share from 0 to 1, such as 0.5".into()),
    }
}

pub(super) fn bytes(text: &str, min: u64, max: u64) -> Result<usize, String> {
    let right =
        || format!("give a size from {} to {}, such as 64 MiB", size_text(min), size_text(max));
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(right()),
    };
    let number: u64 = number.parse().map_err(|_| right())?;
    let size = number.checked_mul(factor).filter(|size| (min..=max).contains(size));
    size.and_then(|size| usize::try_from(size).ok()).ok_or_else(right)
}

/// A size in the largest unit that divides it.
pub fn size_text(size: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, bits) in units {
        if size != 0 && size.is_multiple_of(1 << bits) {
            return format!("{} {unit}", size >> bits);
        }
    }
    format!("{size} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_unit_they_were_given_in() {
        for text in ["1 MiB", "1536 KiB", "64 GiB"] {
            let size = bytes(text, 1 << 20, 64 << 30).expect("in range");
            assert_eq!(size_text(size as u64), text);
        }
    }

    #[test]
    fn lists_are_separated_by_commas_and_each_entry_is_checked() {
        assert_eq!(host_names(" a, .b.example ,"), Ok(vec!["a".into(), ".b.example".into()]));
        assert_eq!(host_names(""), Ok(Vec::new()));
        assert!(host_names("a,http://b").expect_err("a URL").contains("\"http://b\""));
        assert_eq!(origins("http://a:3000"), Ok(vec!["http://a:3000".into()]));
        assert!(origins("a.example").is_err() && origins("http://a/b").is_err());
    }

    #[test]
    fn a_process_without_a_name_gets_the_default_instance() {
        assert_eq!(instance(""), Ok("dev".into()));
        assert_eq!(instance("derive-0.eu"), Ok("derive-0.eu".into()));
        assert!(instance("two words").expect_err("a space").starts_with("give at most 100"));
    }
}
