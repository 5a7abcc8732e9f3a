//! The OpenAPI and AsyncAPI documents as files that the server serves.
//!
//! They are built once at the start, from the catalogue in force, and served next to the web page.

use bytes::Bytes;
use serde_json::Value;
use tidewire_connectors::socket::http::state::Asset;
use tidewire_schemas::catalogue::Catalogue;

use super::document_info::{ASYNCAPI_PATH, OPENAPI_PATH};
use super::{asyncapi, openapi};

/// The files and where they are served.
pub fn assets(catalogue: &Catalogue) -> Vec<Asset> {
    let asset = |path: &str, document: Value| Asset {
        path: path.to_owned(),
        kind: "application/json",
        content: Bytes::from(document.to_string()),
    };
    vec![
        asset(ASYNCAPI_PATH, asyncapi::document(catalogue)),
        asset(OPENAPI_PATH, openapi::document(catalogue)),
    ]
}
