"""Writes an event in every format, by the libraries people use for it.

formats.py BOOTSTRAP TOPIC REGISTRY SCHEMA EVENTS_URL

SCHEMA is the file of a typed record. One event in each format goes to TOPIC or, by HTTP, to
EVENTS_URL; its id names the format. Ends with 0 when all of them are acknowledged.
"""

import io
import json
import sys
import urllib.request
from datetime import datetime, timezone

import fastavro
from cloudevents.core.bindings import http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Producer
from confluent_kafka.schema_registry import (
    SchemaRegistryClient,
    record_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

NOW = datetime.now(timezone.utc)


def post(name):
    return {
        "event_id": name,
        "account_id": "acc",
        "post_id": "p1",
        "author_id": "ann",
        "text": "Grüße 🌊",
        "hashtags": ["tide"],
        "author": json.dumps({"id": "ann", "name": "Ann"}),
    }


def cloudevent(name):
    return CloudEvent(
        attributes={
            "id": name,
            "source": "/py",
            "type": "post.created",
            "time": NOW,
            "subject": "ann",
            "datacontenttype": "application/json",
            "accountid": "acc",
        },
        data={"post_id": "p1", "author_id": "ann", "text": "Grüße 🌊"},
    )


def typed_records(topic, registry, schema):
    """Confluent's framing, registered by the serializer itself."""
    serializer = AvroSerializer(
        SchemaRegistryClient({"url": registry}),
        schema,
        conf={"subject.name.strategy": record_subject_name_strategy},
    )
    context = SerializationContext(topic, MessageField.VALUE)
    yield serializer(post("confluent"), context), {}
    foreign = json.dumps({
        "type": "record", "name": "Post", "namespace": "com.acme",
        "fields": [
            {"name": "postId", "type": "string"},
            {"name": "authorId", "type": "string"},
            {"name": "text", "type": "string"},
        ],
    })
    serializer = AvroSerializer(
        SchemaRegistryClient({"url": registry}),
        foreign,
        conf={"subject.name.strategy": record_subject_name_strategy},
    )
    record = {"postId": "p1", "authorId": "ann", "text": "Grüße 🌊"}
    headers = {"event_type": b"post.created", "account_id": b"acc", "event_id": b"foreign"}
    yield serializer(record, context), headers


def single_object(schema):
    """C3 01, the fingerprint, the record."""
    parsed = fastavro.parse_schema(json.loads(schema))
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads(schema))
    fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    body = io.BytesIO()
    fastavro.schemaless_writer(body, parsed, post("single-object"))
    return b"\xc3\x01" + fingerprint + body.getvalue()


def send(url, headers, body):
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 202, answer.read()


def main():
    bootstrap, topic, registry, schema_file, url = sys.argv[1:]
    with open(schema_file, encoding="utf-8") as file:
        schema = file.read()
    records = list(typed_records(topic, registry, schema))
    records.append((single_object(schema), {}))
    for name, bind in (("binary", kafka.to_binary), ("structured", kafka.to_structured)):
        message = bind(cloudevent(name), JSONFormat())
        records.append((message.value, message.headers))
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    refused = []
    for value, headers in records:
        producer.produce(
            topic, value=value, headers=list(headers.items()),
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
    assert producer.flush(60) == 0 and not refused, refused

    for name, bind in (("http-binary", http.to_binary), ("http-structured", http.to_structured)):
        message = bind(cloudevent(name), JSONFormat())
        send(url, message.headers, message.body)
    batch = [json.loads(http.to_structured(cloudevent(f"batch-{n}"), JSONFormat()).body)
             for n in range(2)]
    send(url, {"content-type": "application/cloudevents-batch+json"}, json.dumps(batch).encode())
    record = single_object(schema).replace(b"single-object", b"http-avro-one")
    send(url, {"content-type": "application/avro"}, record)


main()
