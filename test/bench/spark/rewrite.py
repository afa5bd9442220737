"""Rewrites an Iceberg table with Spark, as it is told.

usage: rewrite.py JARS CATALOG_NAME SQLITE_FILE WAREHOUSE NAMESPACE.TABLE

Prints a line of JSON when the session is there and warm, then reads a request per line and prints what it took: CPU seconds of the JVM (user and system), seconds of
the clock, and the JVM's peak resident memory in MiB.
"""
import json
import os
import sys
import time

from pyspark.sql import SparkSession

jars, catalog, sqlite, warehouse, table = sys.argv[1:6]
conf = {
    "spark.jars": ",".join(os.path.join(jars, j) for j in sorted(os.listdir(jars))),
    "spark.driver.memory": "4g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    f"spark.sql.catalog.{catalog}": "org.apache.iceberg.spark.SparkCatalog",
    f"spark.sql.catalog.{catalog}.type": "jdbc",
    f"spark.sql.catalog.{catalog}.uri": f"jdbc:sqlite:{sqlite}",
    f"spark.sql.catalog.{catalog}.jdbc.schema-version": "V1",
    f"spark.sql.catalog.{catalog}.warehouse": warehouse,
    f"spark.sql.catalog.{catalog}.cache-enabled": "false",  # the table is put back behind its back
}
builder = SparkSession.builder.master("local[2]").appName("bench")
for key, value in conf.items():
    builder = builder.config(key, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
pid = spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid()


def cpu():
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak():
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) // 1024 for line in f if line.startswith("VmHWM"))


def say(answer):
    print(json.dumps(answer), flush=True)


def rewrite(kind, order, target):
    strategy = f", strategy => 'sort', sort_order => '{order}'" if order else ""
    # One partial-progress-free commit, every file, whatever its size.
    row = spark.sql(
        f"CALL {catalog}.system.rewrite_data_files(table => '{catalog}.{table}'{strategy}, "
        f"options => map('rewrite-all', 'true', 'target-file-size-bytes', '{target}', 'max-file-group-size-bytes', '{1 << 40}'))"
    ).collect()[0]
    return {"files_in": row.rewritten_data_files_count, "files": row.added_data_files_count}


# Warm: everything that a rewrite runs through has been loaded, and compiled in part.
spark.sql(f"SELECT count(*), sum(row_hash % 1000) FROM {catalog}.{table}").collect()
say({"ready": True, "cpu": cpu()})
for line in sys.stdin:
    request = json.loads(line)
    before, start = cpu(), time.monotonic()
    try:
        answer = rewrite(request["kind"], request.get("order", ""), request["target"])
    except Exception as e:  # told to whoever asked
        say({"error": str(e)[:2000]})
        continue
    answer.update(cpu=cpu() - before, wall=time.monotonic() - start, peak_mib=peak())
    say(answer)
spark.stop()
