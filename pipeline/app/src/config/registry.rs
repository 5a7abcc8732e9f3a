//! The schema registry in the configuration: where it is, and who we are to it.
//!
//! What proves who we are is looked at but never repeated, not even where it is wrong.

use std::fs;

use tidewire_connectors::registry::{Config, Credentials, QueryPolicy};

use super::kafka::redacted;
use super::values::list;
use crate::config::settings::Settings;

/// More addresses of one registry than anybody has.
const URLS_MAX: usize = 16;

/// The registry, if there is one. What is wrong is noted.
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

/// What stands in the file of authorities, if one is named.
fn authorities(settings: &mut Settings) -> Option<String> {
    let given = settings.value("registry.ca").clone();
    if given.text.is_empty() {
        return None;
    }
    match fs::read_to_string(&given.text) {
        Ok(pem) => Some(pem),
        Err(error) => {
            settings.add_problem(format!(
                "{given}: {:?}: it can't be read ({error}); give a PEM file of the authorities' \
                 certificates",
                given.text
            ));
            None
        }
    }
}

fn urls(text: &str) -> Result<Vec<String>, String> {
    let urls: Vec<String> = list(text).map(|url| url.trim_end_matches('/').to_owned()).collect();
    if text.contains('@') {
        return Err("credentials don't stand in the address; give registry.username and \
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

/// A host, perhaps with a port and a path; nothing behind that, for paths are put there.
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
        Some(format!("{token}: there is registry.username too; give one of both"))
    } else if username.text.is_empty() && !password.text.is_empty() {
        Some(format!("{password}: nothing says whose it is; give registry.username"))
    } else if username.text.contains(':') || !printable(&username.text) {
        Some(format!("{username}: a user's name has no colon and no control characters"))
    } else if !printable(&password.text) {
        Some(format!("{password}: a password has no control characters; is a line's end in it?"))
    } else if !visible(&token.text) {
        Some(format!("{token}: a token is visible ASCII; is a line's end in it?"))
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
        let said = check(given).expect_err("wrong");
        assert!(said.contains(part), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }

    const URL: (&str, &str) = ("registry.url", "http://a:8081");

    #[test]
    fn without_an_address_there_is_no_registry() {
        assert_eq!(check(&[]), Ok(None));
        assert_eq!(check(&[("registry.token", "t")]), Ok(None), "for those who name it by a flag");
    }

    #[test]
    fn addresses_stand_between_commas_and_logins_are_of_one_kind() {
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
    fn what_is_wrong_says_what_is_right_and_no_secret() {
        for url in ["a:8081", "ftp://a", "http://", "http://:8081", "http://a?b", "http://a b", ","]
        {
            refused(&[("registry.url", url)], "give 1 to 16 addresses such as");
        }
        refused(&[("registry.url", "http://ann:s3cret@a:8081")], "credentials don't stand");
        refused(&[URL, ("registry.password", "s3cret")], "give registry.username");
        let both = [URL, ("registry.username", "ann"), ("registry.token", "s3cret")];
        refused(&both, "give one of both");
        refused(&[URL, ("registry.token", "s3cret\n")], "is a line's end in it?");
        let user = ("registry.username", "ann");
        refused(&[URL, user, ("registry.password", "s3cret\r\n")], "is a line's end in it?");
        refused(&[URL, ("registry.username", "a:b")], "no colon");
        refused(&[URL, ("registry.ca", "absent.pem")], "it can't be read");
        refused(&[URL, ("registry.ca", "Cargo.toml")], "it contains no certificate");
    }
}
