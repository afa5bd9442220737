"""Reads every table of the lakehouse with PyIceberg and DuckDB, SELECT *, and says what they read.

usage: readers.py ENDPOINTS_JSON

ENDPOINTS_JSON is the platform's endpoints.json. Standard output is one JSON object, {reader: {table: {...}}}, with per table:
  rows, distinct         rows; distinct (tenant, source, event_id), or failed_id in failed_events
  hash_lo, hash_hi       sums of the halves of row_hash
  value, revenue         {currency: sum of value as an exact decimal}, of all events and of purchases
  items, item_price      lines of items and the exact sum of their prices
  offsets                greatest kafka_offset per partition
Exit status: 0 if both readers agree on every table, 1 if not, 2 if a table cannot be read.
"""

import importlib
import json
import pathlib
import sys
import traceback

import duckdb
from pyiceberg.catalog.sql import SqlCatalog

from sums import Sums

NAMESPACE_KEYS = ("catalog_uri", "catalog_name", "warehouse", "namespace")


def over(batches):
    sums = Sums()
    for batch in batches:
        if batch.num_rows > 0:
            sums.add({name: batch.column(i).to_pylist() for i, name in enumerate(batch.schema.names)})
    return sums.result()


def main(path):
    at = json.loads(pathlib.Path(path).read_text())["iceberg"]
    for key in NAMESPACE_KEYS:
        if not at.get(key):
            print(f"{path} has no iceberg.{key}", file=sys.stderr)
            return 2
    catalog = SqlCatalog(at["catalog_name"], uri=at["catalog_uri"], warehouse=at["warehouse"], init_catalog_tables="false")
    tables = sorted(name[-1] for name in catalog.list_tables(at["namespace"]))
    duck = duckdb.connect()
    for name in ("avro", "iceberg"):  # from the wheels: no network
        module = importlib.import_module("duckdb_extension_" + name)
        extension = next(pathlib.Path(module.__file__).parent.rglob(name + ".duckdb_extension"))
        duck.execute(f"LOAD '{extension}'")

    # Both read the same metadata file, so that they agree while the platform commits.
    def pyiceberg(table):
        return over(table.scan().to_arrow_batch_reader())

    def by_duckdb(table):
        if table.current_snapshot() is None:  # which this version of the extension cannot scan
            return over([])
        return over(duck.execute(f"SELECT * FROM iceberg_scan('{table.metadata_location}')").to_arrow_reader(10_000))

    out, status = {"pyiceberg": {}, "duckdb": {}}, 0
    for table in tables:
        loaded = catalog.load_table(f"{at['namespace']}.{table}")
        for reader, read in (("pyiceberg", pyiceberg), ("duckdb", by_duckdb)):
            try:
                out[reader][table] = read(loaded)
            except Exception as error:  # the other tables are read all the same
                traceback.print_exc()
                out[reader][table] = {"error": f"{type(error).__name__}: {error}"}
                status = 2
        if status == 0 and out["pyiceberg"][table] != out["duckdb"][table]:
            print(f"the readers disagree on {table}", file=sys.stderr)
            status = 1
    json.dump(out, sys.stdout, indent=1)
    print()
    return status


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(main(sys.argv[1]))
