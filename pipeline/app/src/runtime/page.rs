//! The web page at `/`: three files that are compiled into the binary.
//!
//! It loads nothing from other servers, has no build step, and uses the native protocol like any
//! client.

use bytes::Bytes;
use tidewire_connectors::socket::http::routes::Asset;

/// The files and where they are served.
pub fn assets() -> Vec<Asset> {
    let asset = |path: &str, kind, content: &'static str| Asset {
        path: path.to_owned(),
        kind,
        content: Bytes::from_static(content.as_bytes()),
    };
    vec![
        asset("/", "text/html; charset=utf-8", include_str!("page/page.html")),
        asset("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
        asset("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_other_servers() {
        for asset in assets() {
            let text = String::from_utf8(asset.content.to_vec()).expect("text");
            for scheme in ["http://", "https://", "src=\"//", "url("] {
                assert!(!text.contains(scheme), "{} contains {scheme}", asset.path);
            }
        }
    }
}
