"""Prints every event and failed event of the lakehouse, one JSON object a line, as PyIceberg reads it.

usage: iceberg_rows.py ENDPOINTS_JSON
"""

import datetime
import json
import pathlib
import sys

from pyiceberg.catalog.sql import SqlCatalog

COLUMNS = ("source", "event_id", "name", "category", "occurred_at", "value", "currency", "order_id", "product_ids", "properties", "visitor_id", "user_id")
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def event(row):
    row["at"] = (row.pop("occurred_at") - EPOCH) // datetime.timedelta(microseconds=1)
    row["value"] = None if row["value"] is None else str(row["value"])
    row["product_ids"] = row["product_ids"] or []
    row["properties"] = row["properties"] or ""
    return row


def failure(row):
    return {"source": row["source"], "failure": f"{row['reason']} {row['error_path']}: {row['error']} {row['payload']}"}


def main(path):
    at = json.loads(pathlib.Path(path).read_text())["iceberg"]
    catalog = SqlCatalog(at["catalog_name"], uri=at["catalog_uri"], warehouse=at["warehouse"], init_catalog_tables="false")
    for name in sorted(table[-1] for table in catalog.list_tables(at["namespace"])):
        if name.startswith("events_"):
            columns, write = COLUMNS, event
        elif name == "failed_events":
            columns, write = ("source", "reason", "error_path", "error", "payload"), failure
        else:
            continue
        for batch in catalog.load_table(f"{at['namespace']}.{name}").scan(selected_fields=columns).to_arrow_batch_reader():
            for row in batch.to_pylist():
                print(json.dumps(write(row)))


if __name__ == "__main__":
    main(*sys.argv[1:])
