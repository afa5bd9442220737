"""Looks for persons in the lakehouse with other engines: DuckDB reads, PyIceberg says what there is.

usage: scan.py refs|files CATALOG_URI CATALOG_NAME WAREHOUSE NAMESPACE SUBJECTS

SUBJECTS is a file with a visitor_id a line. Standard output is one JSON object:
  refs   {table: {ref: rows of the subjects}}, by iceberg_scan at the snapshot of each branch and tag, or by PyIceberg where DuckDB's extension cannot
  files  {table: rows of the subjects in all Parquet files below the table's folder, whether anything names them or not}
"""

import importlib
import json
import pathlib
import sys

import duckdb
from pyiceberg.catalog.sql import SqlCatalog


def main(mode, uri, name, warehouse, namespace, subjects):
    catalog = SqlCatalog(name, uri=uri, warehouse=warehouse, init_catalog_tables="false")
    duck = duckdb.connect()
    for extension in ("avro", "iceberg"):  # from the wheels: no network
        module = importlib.import_module("duckdb_extension_" + extension)
        duck.execute(f"LOAD '{next(pathlib.Path(module.__file__).parent.rglob(extension + '.duckdb_extension'))}'")
    duck.execute(f"CREATE TABLE subjects AS SELECT column0 AS id FROM read_csv('{subjects}', header=false, columns={{'column0': 'VARCHAR'}}, delim='\\t')")
    out = {}
    for table in sorted(t[-1] for t in catalog.list_tables(namespace)):
        loaded = catalog.load_table(f"{namespace}.{table}")
        if "visitor_id" not in {f.name for f in loaded.schema().fields}:
            continue
        if mode == "refs":
            out[table] = {}
            for ref, at in loaded.metadata.refs.items():
                rows = duck.execute(
                    f"SELECT count(*) FROM iceberg_scan('{loaded.metadata_location}', snapshot_from_id={at.snapshot_id}) WHERE visitor_id IN (SELECT id FROM subjects)"
                ).fetchone()[0]
                out[table][ref] = rows
        else:
            files = sorted(str(p) for p in pathlib.Path(loaded.location().removeprefix("file://")).rglob("*.parquet"))
            out[table] = 0
            if files:
                out[table] = duck.execute("SELECT count(*) FROM read_parquet($1, union_by_name=true) WHERE visitor_id IN (SELECT id FROM subjects)", [files]).fetchone()[0]
    json.dump(out, sys.stdout)
    print()


if __name__ == "__main__":
    if len(sys.argv) != 7 or sys.argv[1] not in ("refs", "files"):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(*sys.argv[1:])
