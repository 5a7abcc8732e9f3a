//! The paths of the two documents, and the `info` object that both contain.
//!
//! Its own file, because each document names the path of the other.

use serde_json::{Value, json};

/// Where the AsyncAPI document is served.
pub const ASYNCAPI_PATH: &str = "/asyncapi.json";

/// Where the OpenAPI document is served.
pub const OPENAPI_PATH: &str = "/openapi.json";

/// Title, version, description and licence.
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
