//! Parses the settings of the schema registry: its addresses, our login and its authorities.
//!
//! Passwords and tokens are checked but never printed, not even when they are wrong.

use std::fs;

use tidewire_connectors::registry::{Config, Credentials, QueryPolicy};

use super::values::list;
use crate::config::settings::{Settings, redacted};

/// More addresses than one registry has.
const URLS_MAX: usize = 16;

/// The registry, if one is configured. Problems are added to the settings.
pub(super) fn read(settings: &mut Settings) -> Option<Config> {
    let credentials = credentials(settings);
    let authorities = authorities(settings);
    let given = settings.value("registry.url").clone();
    if given.text.is_empty() {
        return None;
    }
    let config = |urls| Config { urls, credentials, authorities, policy: QueryPolicy::default() };
    match urls(&given.text).map(config) {
        Ok(config) => {
            if let Err(wrong) = config.certificates() {
                let given = settings.value("registry.ca").clone();
                settings.add_problem(format!("{given}: {:?}: {wrong}", given.text));
            }
            Some(config)
        }
        Err(right) => {
            settings.add_problem(format!("{given}: {:?}: {right}", redacted(&given.text)));
            None
        }
    }
}

/// The content of the file of authorities, if one is named.
fn authorities(settings: &mut Settings) -> Option<String> {
    let given = settings.value("registry.ca").clone();
    if given.text.is_empty() {
        return None;
    }
    match fs::read_to_string(&given.text) {
        Ok(pem) => Some(pem),
        Err(error) => {
            settings.add_problem(format!(
                "{given}: {:?}: the file cannot be read ({error}); give a PEM file with the \
                 authorities' certificates",
                given.text
            ));
            None
        }
    }
}

fn urls(text: &str) -> Result<Vec<String>, String> {
    let urls: Vec<String> = list(text).map(|url| url.trim_end_matches('/').to_owned()).collect();
    if text.contains('@') {
        return Err("credentials are not accepted in a URL; give registry.username and \
                    registry.password, or registry.token"
            .into());
    }
    let right = || {
        Err(format!(
            "give 1 to {URLS_MAX} addresses such as http://127.0.0.1:8081, separated by commas"
        ))
    };
    if urls.is_empty() || urls.len() > URLS_MAX || !urls.iter().all(|url| is_address(url)) {
        return right();
    }
    Ok(urls)
}

/// A host, optionally with a port and a path. A query is refused: paths are appended to the URL.
fn is_address(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else { return false };
    let (host, _) = rest.split_once('/').unwrap_or((rest, ""));
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '"' | '<' | '>' | '\\');
    !name.is_empty() && rest.chars().all(plain)
}

fn credentials(settings: &mut Settings) -> Credentials {
    let given = |key: &str| settings.value(key).clone();
    let [username, password, token] =
        ["registry.username", "registry.password", "registry.token"].map(given);
    let visible = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
    let printable = |text: &str| !text.chars().any(char::is_control);
    let problem = if !token.text.is_empty() && !username.text.is_empty() {
        Some(format!("{token}: registry.username is given too; give only one of the two"))
    } else if username.text.is_empty() && !password.text.is_empty() {
        Some(format!("{password}: there is no user for it; give registry.username"))
    } else if username.text.contains(':') || !printable(&username.text) {
        Some(format!("{username}: give a name without colon and control characters"))
    } else if !printable(&password.text) {
        Some(format!("{password}: a control character in it is not valid; is it a line break?"))
    } else if !visible(&token.text) {
        Some(format!("{token}: only visible ASCII is valid; is there a line break in it?"))
    } else {
        None
    };
    if let Some(problem) = problem {
        settings.add_problem(problem);
        return Credentials::None;
    }
    match (username.text, token.text) {
        (username, token) if username.is_empty() && token.is_empty() => Credentials::None,
        (username, token) if token.is_empty() => {
            Credentials::Basic { username, password: password.text }
        }
        (_, token) => Credentials::Bearer(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &[(&'static str, &str)]) -> Result<Option<Config>, String> {
        let mut settings = Settings::defaults();
        for (key, text) in given {
            settings.add_flag(key, &format!("--{key}"), Some((*text).into()));
        }
        let config = read(&mut settings);
        match settings.problems() {
            [] => Ok(config),
            problems => Err(problems.join("\n")),
        }
    }

    fn refused(given: &[(&'static str, &str)], part: &str) {
        let problems = check(given).expect_err("wrong");
        assert!(problems.contains(part), "{problems}");
        assert!(!problems.contains("s3cret"), "{problems}");
    }

    const URL: (&str, &str) = ("registry.url", "http://a:8081");

    #[test]
    fn without_an_address_there_is_no_registry() {
        assert_eq!(check(&[]), Ok(None));
        assert_eq!(check(&[("registry.token", "t")]), Ok(None), "a flag may give the address");
    }

    #[test]
    fn addresses_are_separated_by_commas_and_logins_are_of_one_kind() {
        let several = ("registry.url", "http://a:8081/, https://b.example/registry");
        let config = check(&[several]).expect("right").expect("a registry");
        assert_eq!(config.urls, ["http://a:8081", "https://b.example/registry"]);
        assert_eq!(config.credentials, Credentials::None);
        let user = [("registry.username", "ann"), ("registry.password", "s3cret")];
        let config = check(&[URL, user[0], user[1]]).expect("right").expect("a registry");
        let basic = Credentials::Basic { username: "ann".into(), password: "s3cret".into() };
        assert_eq!(config.credentials, basic);
        let config = check(&[URL, ("registry.token", "t")]).expect("right").expect("a registry");
        assert_eq!(config.credentials, Credentials::Bearer("t".into()));
    }

    #[test]
    fn a_problem_says_what_is_valid_and_contains_no_secret() {
        for url in ["a:8081", "ftp://a", "http://", "http://:8081", "http://a?b", "http://a b", ","]
        {
            refused(&[("registry.url", url)], "give 1 to 16 addresses such as");
        }
        refused(&[("registry.url", "http://ann:s3cret@a:8081")], "credentials are not accepted");
        refused(&[URL, ("registry.password", "s3cret")], "give registry.username");
        let both = [URL, ("registry.username", "ann"), ("registry.token", "s3cret")];
        refused(&both, "give only one of the two");
        refused(&[URL, ("registry.token", "s3cret\n")], "is there a line break in it?");
        let user = ("registry.username", "ann");
        refused(&[URL, user, ("registry.password", "s3cret\r\n")], "is it a line break?");
        refused(&[URL, ("registry.username", "a:b")], "without colon");
        refused(&[URL, ("registry.ca", "absent.pem")], "cannot be read");
        refused(&[URL, ("registry.ca", "Cargo.toml")], "certificate");
    }
}
