"""Reads every events.* topic that is a table with Confluent's Python client, decoding through the platform's schema registry.

usage: confluent.py ENDPOINTS_JSON

Standard output is one JSON object, {"confluent": {table: {...}}}, with the fields of readers.py. Read is what is committed at the time, from the first
record on. Exit status: 0 if every record was read and decoded, 2 if not.
"""

import decimal
import json
import pathlib
import sys
import time
import traceback

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from sums import TOPICS, Sums

PATIENCE = 60  # seconds for one topic


def micros(amount):
    return None if amount is None else decimal.Decimal(amount).scaleb(-6)


def columns(records):
    """Decoded records as a batch of Sums: amounts are micros on the topics and decimals in the tables."""
    out = {name: [value.get(name) for _, _, value in records] for name in records[0][2]}
    out["kafka_partition"] = [partition for partition, _, _ in records]
    out["kafka_offset"] = [offset for _, offset, _ in records]
    if "value" in out:
        out["value"] = [micros(v) for v in out["value"]]
    if "items" in out:
        out["items"] = [[{"price": micros(item["price"])} for item in lines] for lines in out["items"]]
    return out


def read(consumer, deserialize, topic):
    sums, deadline = Sums(), time.monotonic() + PATIENCE
    partitions = consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions
    if not partitions:
        raise RuntimeError(f"{topic} does not exist")
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
    unread, context = set(partitions), SerializationContext(topic, MessageField.VALUE)
    while unread:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{topic}: the end of partitions {sorted(unread)} was not reached within {PATIENCE} s")
        records = []
        for message in consumer.consume(1000, timeout=1):
            if message.error() is None:
                records.append((message.partition(), message.offset(), deserialize(message.value(), context)))
            elif message.error().code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition())
            else:
                raise RuntimeError(f"{topic}: {message.error()}")
        if records:
            sums.add(columns(records))
    consumer.unassign()
    return sums.result()


def main(path):
    at = json.loads(pathlib.Path(path).read_text())
    consumer = Consumer({
        "bootstrap.servers": at["kafka"]["brokers"], "group.id": "millrace.peers", "enable.auto.commit": False,
        "isolation.level": "read_committed", "enable.partition.eof": True, "enable.metrics.push": False,
    })
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": at["schema_registry"]}))
    out, status = {}, 0
    for table, topic in TOPICS.items():
        try:
            out[table] = read(consumer, deserialize, topic)
        except Exception as error:  # the other topics are read all the same
            traceback.print_exc()
            out[table] = {"error": f"{type(error).__name__}: {error}"}
            status = 2
    consumer.close()
    json.dump({"confluent": out}, sys.stdout, indent=1)
    print()
    return status


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(main(sys.argv[1]))
