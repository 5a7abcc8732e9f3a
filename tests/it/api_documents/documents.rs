//! Both documents are valid, and the validators reject broken ones.

use serde_json::{Value, json};
use tidewire_tests::server::Server;

use super::validator::{Kind, check_document};

fn fetch(server: &Server, kind: Kind) -> Value {
    let response = server.http().get(kind.path()).expect("an answer");
    assert_eq!(response.status, 200, "{}: {}", kind.path(), response.text());
    response.json()
}

/// A change that makes a document invalid, and what the error must name.
struct Mutation {
    kind: Kind,
    what: &'static str,
    change: fn(&mut Value),
    complaint: &'static str,
}

fn mutations() -> Vec<Mutation> {
    [of_asyncapi(), of_openapi()].into_iter().flatten().collect()
}

fn mutation(
    kind: Kind,
    what: &'static str,
    change: fn(&mut Value),
    complaint: &'static str,
) -> Mutation {
    Mutation { kind, what, change, complaint }
}

fn of_asyncapi() -> Vec<Mutation> {
    vec![
        mutation(
            Kind::AsyncApi,
            "an unknown action",
            |document| document["operations"]["ping"]["action"] = json!("recieve"),
            "/operations/ping/action",
        ),
        mutation(
            Kind::AsyncApi,
            "a reference to a schema that is missing",
            |document| {
                document["components"]["schemas"]
                    .as_object_mut()
                    .expect("schemas")
                    .remove("GapFrame");
            },
            "GapFrame",
        ),
        mutation(
            Kind::AsyncApi,
            "a schema of an unknown type",
            |document| {
                document["components"]["schemas"]["MoveFrame"]["properties"]["within_ms"]["type"] =
                    json!("number of ms");
            },
            "within_ms",
        ),
    ]
}

fn of_openapi() -> Vec<Mutation> {
    vec![
        mutation(
            Kind::OpenApi,
            "a response without a description",
            |document| {
                document["paths"]["/v1/stats"]["get"]["responses"]["200"]
                    .as_object_mut()
                    .expect("a response")
                    .remove("description");
            },
            "description",
        ),
        mutation(
            Kind::OpenApi,
            "a reference to a schema that is missing",
            |document| {
                document["components"]["schemas"].as_object_mut().expect("schemas").remove("Stats");
            },
            "resolve",
        ),
        mutation(
            Kind::OpenApi,
            "two operations of one name",
            |document| {
                document["paths"]["/healthz"]["get"]["operationId"] = json!("readiness");
            },
            "operationId",
        ),
        mutation(
            Kind::OpenApi,
            "a schema of an unknown type",
            |document| {
                document["components"]["schemas"]["Stats"]["properties"]["version"]["type"] =
                    json!("word");
            },
            "struct",
        ),
        mutation(
            Kind::OpenApi,
            "an example that does not conform",
            |document| {
                let content = &mut document["paths"]["/v1/events"]["post"]["responses"]["202"];
                content["content"]["application/json"]["example"] = json!({ "accepted": "one" });
            },
            "accepted",
        ),
    ]
}

#[test]
fn the_asyncapi_and_the_openapi_document_are_valid_and_broken_ones_are_not() {
    let server = Server::start(&[]);
    for kind in [Kind::AsyncApi, Kind::OpenApi] {
        let document = fetch(&server, kind);
        check_document(kind, &document).unwrap_or_else(|found| panic!("{kind:?}:\n{found}"));
        for mutation in mutations().into_iter().filter(|mutation| mutation.kind == kind) {
            let Mutation { what, change, complaint, .. } = mutation;
            let mut broken = document.clone();
            change(&mut broken);
            let found = check_document(kind, &broken).expect_err(what);
            assert!(found.contains(complaint), "{kind:?}, {what}:\n{found}");
        }
    }
}
