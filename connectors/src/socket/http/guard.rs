//! The guard: checks `Host` and `Origin` of every request before its handler.
//!
//! Clients have no tokens in this version. So a page of any web site could reach a developer's
//! gateway through the browser, across origins or by pointing its own name at 127.0.0.1 (DNS
//! rebinding). `Host` therefore has to be a loopback name or a listed one. `Origin`, which browsers
//! always send with WebSockets and with requests that change something, has to be the same host or
//! a listed one.
//!
//! Browsers send no `Origin` for an image or a script, and a page of another site could so open
//! streams in the name of any user. Such a request is refused by `Sec-Fetch-Site`, unless the user
//! follows a link.
//!
//! Roles without clients serve only monitoring and may be reached from other machines. There it is
//! enough to refuse names of the public web, which contain a dot: the owner of such a name could
//! point it at this server.
//!
//! The guard compares strings and never resolves a name.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Request, Version};

/// What a browser says about the page that a request comes from, and about what the response is
/// for (Fetch Metadata, section 2).
const SEC_FETCH_SITE: &str = "sec-fetch-site";
const SEC_FETCH_MODE: &str = "sec-fetch-mode";
const SEC_FETCH_DEST: &str = "sec-fetch-dest";

/// Which hosts and origins are answered, besides loopback names.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Host names (without port) of this gateway, for example `tidewire.lan`; one that begins with
    /// a dot matches every name that ends with it.
    pub hosts: Vec<String>,
    /// Origins of web pages that may use it, for example `http://localhost:3000`.
    pub origins: Vec<String>,
    /// Which names are accepted without being listed.
    pub unlisted_hosts: UnlistedHosts,
}

/// Which host names are accepted without being listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnlistedHosts {
    /// Loopback names and addresses.
    #[default]
    Loopback,
    /// Those, every IP address, and names without a dot, which exist only inside a network.
    Internal,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// Not exactly one `Host`, or one that is not ASCII text.
    #[error("a request must have exactly one Host header, of ASCII text")]
    NoHost,
    /// The host is not allowed.
    #[error("the host '{0}' is not allowed; use localhost, or add the host to allowed_hosts")]
    Host(String),
    /// The origin is not allowed.
    #[error("the origin '{0}' is not allowed; add it to allowed_origins if its pages may use this")]
    Origin(String),
    /// A page of another site that sends no origin.
    #[error(
        "a page of another site sent this request (Sec-Fetch-Site '{0}'); send it from a page of \
         this server, or list the page's origin in allowed_origins and let it send its origin"
    )]
    Site(String),
}

/// The origin of an allowed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOrigin {
    /// A page of this gateway, or a client that is not a browser.
    SameOrigin,
    /// A page of another, listed origin: responses must name it.
    Allowed(HeaderValue),
}

impl Guard {
    /// Checks a request's head.
    pub fn check<B>(&self, request: &Request<B>) -> Result<RequestOrigin, GuardError> {
        let headers = request.headers();
        let origin = self.check_names(host(request)?, headers)?;
        // An origin that was checked says more than the site, which depends on the URL's scheme.
        let is_known = request.method().is_safe() && headers.contains_key(ORIGIN);
        if origin == RequestOrigin::SameOrigin && !is_known && !is_link(request) {
            check_site(headers)?;
        }
        Ok(origin)
    }

    fn check_names(
        &self,
        host: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<RequestOrigin, GuardError> {
        if let Some(host) = host
            && !host_name(host).is_some_and(|name| self.accepts_host(name))
        {
            return Err(GuardError::Host(shorten(host)));
        }
        if !headers.contains_key(ORIGIN) {
            return Ok(RequestOrigin::SameOrigin);
        }
        let origin = single(headers, ORIGIN.as_str()).unwrap_or("null");
        let own = ["http://", "https://"].iter().any(|scheme| {
            let rest = origin.strip_prefix(scheme).zip(host);
            rest.is_some_and(|(rest, host)| rest.eq_ignore_ascii_case(host))
        });
        match &headers.get(ORIGIN) {
            _ if own => Ok(RequestOrigin::SameOrigin),
            Some(value) if self.origins.iter().any(|o| o.eq_ignore_ascii_case(origin)) => {
                Ok(RequestOrigin::Allowed((*value).clone()))
            }
            _ => Err(GuardError::Origin(shorten(origin))),
        }
    }

    fn accepts_host(&self, name: &str) -> bool {
        let unlisted = match self.unlisted_hosts {
            UnlistedHosts::Loopback => is_loopback_name(name),
            UnlistedHosts::Internal => is_loopback_name(name) || is_internal_name(name),
        };
        unlisted || self.hosts.iter().any(|listed| is_listed(name, listed))
    }
}

/// The host that a request is for. In a request for a whole URL it is the URL's, and `Host` counts
/// for nothing (RFC 9112, section 3.2.2). HTTP/1.0 need not name one, and no browser speaks it.
fn host<B>(request: &Request<B>) -> Result<Option<&str>, GuardError> {
    let headers = request.headers();
    if request.version() < Version::HTTP_11 && !headers.contains_key(HOST) {
        return Ok(request.uri().authority().map(|authority| authority.as_str()));
    }
    let sent = single(headers, HOST.as_str()).ok_or(GuardError::NoHost)?;
    Ok(Some(request.uri().authority().map_or(sent, |authority| authority.as_str())))
}

/// Whether a browser shows the response in a tab of its own, so that the user sees it.
fn is_link<B>(request: &Request<B>) -> bool {
    let says = |name, value| single(request.headers(), name) == Some(value);
    request.method().is_safe()
        && says(SEC_FETCH_MODE, "navigate")
        && says(SEC_FETCH_DEST, "document")
}

/// Refuses a request that a page of another site made. Clients that are no browsers send nothing.
fn check_site(headers: &HeaderMap) -> Result<(), GuardError> {
    for site in headers.get_all(SEC_FETCH_SITE) {
        let site = site.to_str().unwrap_or("unreadable");
        if !["same-origin", "none"].contains(&site) {
            return Err(GuardError::Site(shorten(site)));
        }
    }
    Ok(())
}

fn is_listed(name: &str, listed: &str) -> bool {
    if !listed.starts_with('.') {
        return name.eq_ignore_ascii_case(listed);
    }
    let begins = name.len().saturating_sub(listed.len());
    begins > 0 && name.get(begins..).is_some_and(|end| end.eq_ignore_ascii_case(listed))
}

/// Names that no DNS record of the public web can point here: addresses, and names without a dot.
fn is_internal_name(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok() || (!name.is_empty() && !name.contains('.'))
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(only), None) => only.to_str().ok(),
        _ => None,
    }
}

/// A host without its port; an IPv6 address without its brackets. `None` if anything else follows.
fn host_name(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(address) => address.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |rest: &str| {
        rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    (rest.is_empty() || is_port(rest)).then_some(name)
}

fn is_loopback_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn request(method: Method, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    fn check(host: &str, origin: Option<&str>, expected: Result<(), &str>) {
        let guard = Guard {
            hosts: vec!["tidewire.lan".into()],
            origins: vec!["http://localhost:3000".into()],
            unlisted_hosts: UnlistedHosts::Loopback,
        };
        let mut headers = vec![("host", host)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let got = guard.check(&request(Method::GET, "/", &headers));
        match expected {
            Ok(()) => assert!(got.is_ok(), "{host} {origin:?}: {got:?}"),
            Err(part) => {
                let text = got.expect_err("refused").to_string();
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn loopback_names_and_listed_hosts_are_allowed() {
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "tidewire.lan:80"]
        {
            check(host, None, Ok(()));
        }
    }

    #[test]
    fn a_rebound_name_is_refused() {
        check("evil.example:8080", None, Err("evil.example"));
        check("127.0.0.1.evil.example", None, Err("evil.example"));
        check("localhost.evil.example", None, Err("evil.example"));
        check("192.168.0.9:8080", None, Err("192.168.0.9"));
        for host in ["[::1].evil.example", "[::1]evil:80", "[::1", "localhost:80.evil.example"] {
            check(host, None, Err(host));
        }
    }

    #[test]
    fn only_the_same_host_and_listed_origins_are_allowed() {
        check("127.0.0.1:8080", Some("http://127.0.0.1:8080"), Ok(()));
        check("127.0.0.1:8080", Some("http://localhost:3000"), Ok(()));
        check("127.0.0.1:8080", Some("http://127.0.0.1:9"), Err("allowed_origins"));
        check("127.0.0.1:8080", Some("https://evil.example"), Err("evil.example"));
        check("127.0.0.1:8080", Some("null"), Err("null"));
    }

    #[test]
    fn internal_allows_addresses_and_names_without_a_dot_but_no_public_names() {
        let hosts = vec![".tidewire.svc".into()];
        let guard = Guard { hosts, unlisted_hosts: UnlistedHosts::Internal, ..Guard::default() };
        for host in ["10.1.2.3:9100", "[fd00::1]:9100", "derive:9100", "DERIVE-0.tidewire.SVC:9100"]
        {
            assert!(host_name(host).is_some_and(|name| guard.accepts_host(name)), "{host}");
        }
        for host in ["evil.example:9100", "10.1.2.3.evil.example", "evil-tidewire.svc", "a.", ""] {
            assert!(!host_name(host).is_some_and(|name| guard.accepts_host(name)), "{host}");
        }
        assert!(!guard.accepts_host(".tidewire.svc"), "a suffix alone is no name");
    }

    #[test]
    fn two_hosts_are_refused() {
        let two = [("host", "localhost"), ("host", "evil.example")];
        for version in [Version::HTTP_10, Version::HTTP_11] {
            let mut request = request(Method::GET, "/", &two);
            *request.version_mut() = version;
            assert_eq!(Guard::default().check(&request), Err(GuardError::NoHost));
        }
    }

    #[test]
    fn the_host_of_a_whole_url_counts() {
        let check = |uri: &str, host: &str| {
            Guard::default().check(&request(Method::GET, uri, &[("host", host)])).map(drop)
        };
        let refused = |host: &str| Err(GuardError::Host(host.to_owned()));
        assert_eq!(check("http://evil.example/v1/stats", "localhost"), refused("evil.example"));
        assert_eq!(check("http://localhost@evil.example/", "localhost"), {
            refused("localhost@evil.example")
        });
        assert_eq!(check("http://localhost:8080/v1/stats", "evil.example"), Ok(()));
        assert_eq!(check("http://localhost:8080/v1/stats", "localhost:8080"), Ok(()));
    }

    #[test]
    fn only_http_1_0_may_leave_the_host_out() {
        let mut request = request(Method::GET, "/", &[]);
        assert_eq!(Guard::default().check(&request), Err(GuardError::NoHost));
        *request.version_mut() = Version::HTTP_10;
        assert_eq!(Guard::default().check(&request), Ok(RequestOrigin::SameOrigin));
        request.headers_mut().insert(ORIGIN, HeaderValue::from_static("http://localhost"));
        assert!(Guard::default().check(&request).is_err(), "no host is the same as this origin");
    }

    #[test]
    fn a_page_of_another_site_changes_and_opens_nothing() {
        let guard = Guard { origins: vec!["http://a.example".into()], ..Guard::default() };
        let check = |method: Method, site: &str, origin: Option<&'static str>| {
            let mut headers = vec![("host", "localhost"), (SEC_FETCH_SITE, site)];
            headers.extend(origin.map(|origin| ("origin", origin)));
            guard.check(&request(method, "/v1/sse", &headers)).map(drop)
        };
        for site in ["cross-site", "same-site", "", "new-value"] {
            let refused = Err(GuardError::Site(site.to_owned()));
            assert_eq!(check(Method::POST, site, None), refused);
            assert_eq!(check(Method::GET, site, None), refused, "an image");
            assert_eq!(check(Method::GET, site, Some("http://localhost")), Ok(()));
            assert_eq!(check(Method::DELETE, site, Some("http://localhost")), refused);
            assert_eq!(check(Method::POST, site, Some("http://a.example")), Ok(()), "listed");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(check(Method::POST, site, None), Ok(()));
            assert_eq!(check(Method::GET, site, None), Ok(()));
        }
    }

    #[test]
    fn a_link_of_another_site_may_lead_here() {
        let check = |method: Method, mode: &str, dest: &str| {
            let headers = [
                ("host", "localhost"),
                (SEC_FETCH_SITE, "cross-site"),
                (SEC_FETCH_MODE, mode),
                (SEC_FETCH_DEST, dest),
            ];
            Guard::default().check(&request(method, "/", &headers)).is_ok()
        };
        assert!(check(Method::GET, "navigate", "document"));
        assert!(!check(Method::POST, "navigate", "document"), "a form");
        assert!(!check(Method::GET, "navigate", "iframe"));
        assert!(!check(Method::GET, "no-cors", "document"));
        assert!(!check(Method::GET, "no-cors", "image"));
    }
}
