//! The two documents as files that the server serves with its web page.

use bytes::Bytes;
use serde_json::{Value, json};
use tidewire_connectors::socket::http::state::Asset;

use super::{asyncapi, openapi};

/// Where the AsyncAPI document is served.
pub const ASYNCAPI_PATH: &str = "/asyncapi.json";

/// Where the OpenAPI document is served.
pub const OPENAPI_PATH: &str = "/openapi.json";

/// The files and where they are served.
pub fn assets() -> Vec<Asset> {
    let asset = |path: &str, document: Value| Asset {
        path: path.to_owned(),
        kind: "application/json",
        content: Bytes::from(document.to_string()),
    };
    vec![asset(ASYNCAPI_PATH, asyncapi::document()), asset(OPENAPI_PATH, openapi::document())]
}

/// What both documents say of themselves.
pub(super) fn info(title: &str, description: &str) -> Value {
    json!({
        "title": title,
        "version": env!("CARGO_PKG_VERSION"),
        "description": description,
        "license": {
            "name": "Apache-2.0",
            "url": "https://www.apache.org/licenses/LICENSE-2.0",
        },
    })
}
