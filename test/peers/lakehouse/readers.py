"""Reads a table of the lakehouse with PyIceberg, DuckDB, Polars and Spark, SELECT *, and says what each has read.

usage: readers.py SPARK_JARS MORE_JARS

Each line of standard input is a question, one JSON object:
  catalog_uri, catalog_name, warehouse, store   as they are configured
  table                                         namespace.table
  metadata_location                             for readers without a catalog
The answer is one line of JSON, {reader: sums}, with the fields of sums.go, or {"error": ...} for a reader that failed. Engines are started once.
"""

import importlib
import json
import os
import pathlib
import sys
import time
import traceback

os.environ.setdefault("POLARS_ICEBERG_PLANNER", "pyiceberg")
os.environ.setdefault("AWS_REGION", "us-east-1")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import duckdb
import polars
import pyarrow
import pyarrow.compute
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog

from sums import Sums


def over(table):
    """What sums.go adds up, over an Arrow table."""
    sums, nulls, times, texts = Sums(), {}, {}, {}
    for name in table.schema.names:
        column = table.column(name)
        nulls[name] = column.null_count
        if pyarrow.types.is_timestamp(column.type):
            values = pyarrow.compute.cast(pyarrow.compute.cast(column, pyarrow.timestamp("us", column.type.tz)), pyarrow.int64())
            times[name] = str(sum(v for v in values.to_pylist() if v is not None))
        elif pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type) or pyarrow.types.is_string_view(column.type):
            length = pyarrow.compute.sum(pyarrow.compute.binary_length(column.cast(pyarrow.large_string()))).as_py()
            if length is not None:
                texts[name] = length
    for batch in table.to_batches(max_chunksize=10_000):
        if batch.num_rows > 0:
            sums.add({name: batch.column(i).to_pylist() for i, name in enumerate(batch.schema.names)})
    return {**sums.result(), "columns": table.schema.names, "nulls": nulls, "times": times, "texts": texts}


def catalog_of(at):
    if at["catalog_uri"].startswith("http"):
        return RestCatalog(at["catalog_name"], uri=at["catalog_uri"], **at["store"])
    return SqlCatalog(at["catalog_name"], uri=at["catalog_uri"], warehouse=at["warehouse"], init_catalog_tables="false", **at["store"])


def by_pyiceberg(at):
    return catalog_of(at).load_table(at["table"]).scan().to_arrow()


def by_polars(at):
    options = None
    if s3 := at["store"]:
        options = {
            "aws_endpoint_url": s3["s3.endpoint"], "aws_allow_http": "true", "aws_region": s3["s3.region"],
            "aws_access_key_id": s3["s3.access-key-id"], "aws_secret_access_key": s3["s3.secret-access-key"],
        }
    return polars.scan_iceberg(catalog_of(at).load_table(at["table"]), storage_options=options).collect().to_arrow()


class DuckDB:
    def __init__(self):
        self.duck = duckdb.connect()
        for name in ("avro", "httpfs", "iceberg"):  # from the wheels: no network
            module = importlib.import_module("duckdb_extension_" + name)
            self.duck.execute(f"LOAD '{next(pathlib.Path(module.__file__).parent.rglob(name + '.duckdb_extension'))}'")

    def __call__(self, at):
        if s3 := at["store"]:
            self.duck.execute(
                f"""CREATE OR REPLACE SECRET (TYPE s3, KEY_ID '{s3["s3.access-key-id"]}', SECRET '{s3["s3.secret-access-key"]}', REGION '{s3["s3.region"]}',
                ENDPOINT '{s3["s3.endpoint"].removeprefix("http://")}', URL_STYLE 'path', USE_SSL false)"""
            )
        got = self.duck.execute(f"SELECT * FROM iceberg_scan('{at['metadata_location']}')").to_arrow_table()
        return got


class Spark:
    def __init__(self, jars):
        self.jars, self.spark = jars, None

    def start(self):
        from pyspark.sql import SparkSession

        self.spark = (
            SparkSession.builder.master("local[2]").appName("readers")
            .config("spark.jars", ",".join(self.jars)).config("spark.driver.memory", "1g").config("spark.ui.enabled", "false")
            .config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.session.timeZone", "UTC").config("spark.sql.shuffle.partitions", "2")
            .config("spark.sql.extensions", "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions")
            .getOrCreate()
        )
        self.spark.sparkContext.setLogLevel("ERROR")

    def __call__(self, at):
        if self.spark is None:
            self.start()
        name = f"spark.sql.catalog.{at['catalog_name']}"
        settings = {"": "org.apache.iceberg.spark.SparkCatalog", ".cache-enabled": "false", ".warehouse": at["warehouse"]}
        if at["catalog_uri"].startswith("http"):
            settings |= {".type": "rest", ".uri": at["catalog_uri"]}
        else:
            settings |= {".type": "jdbc", ".uri": "jdbc:sqlite:" + at["catalog_uri"].removeprefix("sqlite:///"), ".jdbc.schema-version": "V1"}
        if s3 := at["store"]:
            settings |= {
                ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO", ".s3.endpoint": s3["s3.endpoint"], ".s3.path-style-access": "true", ".client.region": s3["s3.region"],
                ".s3.access-key-id": s3["s3.access-key-id"], ".s3.secret-access-key": s3["s3.secret-access-key"],
            }
        for key, value in settings.items():
            self.spark.conf.set(name + key, value)
        return self.spark.sql(f"SELECT * FROM {at['catalog_name']}.{at['table']}").toArrow()


def main(jars, more):
    wanted = [str(p) for p in pathlib.Path(jars).glob("*.jar")]
    wanted += [str(p) for p in pathlib.Path(more).glob("*.jar") if p.name.startswith(("sqlite-jdbc-", "iceberg-aws-bundle-"))]
    readers = {"pyiceberg": by_pyiceberg, "duckdb": DuckDB(), "polars": by_polars, "spark": Spark(wanted)}
    for line in sys.stdin:
        at, out = json.loads(line), {}
        at["store"] = at["store"] or {}
        for name, read in readers.items():
            began = time.monotonic()
            try:
                out[name] = over(read(at))
            except Exception as error:  # the others read all the same
                traceback.print_exc()
                out[name] = {"error": f"{type(error).__name__}: {error}"[:600]}
            out[name]["millis"] = int(1000 * (time.monotonic() - began))
        print(json.dumps(out), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(sys.argv[1], sys.argv[2])
