//! The web page at `/`: a few files that are compiled into the binary.
//!
//! It loads nothing from other servers, has no build step, and uses the native protocol like any
//! client. Its modules import each other by the paths they are served at.

use bytes::Bytes;
use tidewire_connectors::socket::http::state::Asset;

const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The files and where they are served.
pub fn assets() -> Vec<Asset> {
    let asset = |path: &str, kind, content: &'static str| Asset {
        path: path.to_owned(),
        kind,
        content: Bytes::from_static(content.as_bytes()),
    };
    vec![
        asset("/", HTML, include_str!("page/page.html")),
        asset("/page.css", CSS, include_str!("page/page.css")),
        asset("/page.js", JAVASCRIPT, include_str!("page/page.js")),
        asset("/page/channels.js", JAVASCRIPT, include_str!("page/channels.js")),
        asset("/page/chart.js", JAVASCRIPT, include_str!("page/chart.js")),
        asset("/page/history.js", JAVASCRIPT, include_str!("page/history.js")),
        asset("/page/list.js", JAVASCRIPT, include_str!("page/list.js")),
        asset("/page/meter.js", JAVASCRIPT, include_str!("page/meter.js")),
        asset("/page/send.js", JAVASCRIPT, include_str!("page/send.js")),
        asset("/page/stream.js", JAVASCRIPT, include_str!("page/stream.js")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn text(asset: &Asset) -> &str {
        std::str::from_utf8(&asset.content).expect("text")
    }

    #[test]
    fn the_page_loads_nothing_from_other_servers() {
        for asset in assets() {
            for scheme in ["http://", "https://", "src=\"//", "url("] {
                assert!(!text(&asset).contains(scheme), "{} contains {scheme}", asset.path);
            }
        }
    }

    #[test]
    fn every_file_that_the_page_loads_is_served_and_no_other() {
        let assets = assets();
        let served: BTreeSet<&str> = assets.iter().map(|asset| asset.path.as_str()).collect();
        let mut loaded = BTreeSet::from(["/"]);
        for asset in &assets {
            for before in ["from \"", "src=\"", "rel=\"stylesheet\" href=\""] {
                let parts = text(asset).split(before).skip(1);
                loaded.extend(parts.filter_map(|part| part.split('"').next()));
            }
        }
        assert_eq!(loaded, served);
    }
}
