"""Compares what the peers read with ClickHouse and with what the simulator was acknowledged.

usage: compare.py ENDPOINTS_JSON SUMMARY_JSON RESULT_JSON…

A RESULT_JSON is the output of readers.py or confluent.py. Every check prints a line that starts with PASS or FAIL. Exit status: 0 if the checks were made,
whatever they said.
"""

import json
import pathlib
import sys
import urllib.request
from decimal import Decimal

from sums import TOPICS, amounts, text

READERS = ("pyiceberg", "duckdb", "confluent")


class ClickHouse:
    """The HTTP endpoint of endpoints.json."""

    def __init__(self, at):
        self.url = at["http"]
        self.headers = {"X-ClickHouse-User": at["user"], "X-ClickHouse-Key": at["password"], "X-ClickHouse-Database": at["database"]}

    def rows(self, sql):
        request = urllib.request.Request(self.url, data=f"{sql} FORMAT JSONEachRow".encode(), headers=self.headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return [json.loads(line) for line in answer.read().decode().splitlines()]

    def table(self, name):
        """The sums of a table, in the form of Sums.result. Numbers travel as text: JSON's are floating point."""
        columns = {row["name"] for row in self.rows(f"DESCRIBE TABLE {name}")}
        event, items = "row_hash" in columns, "items.price" in columns
        identity = "tenant, source, event_id" if event else "failed_id"
        lo, hi = ("toString(sum(bitAnd(row_hash, 4294967295)))", "toString(sum(bitAnd(bitShiftRight(row_hash, 32), 4294967295)))") if event else ("'0'", "'0'")
        lines = "toString(sum(length(`items.item_id`)))" if items else "'0'"
        price = "toString(sum(arraySum(arrayMap(p -> ifNull(p, toDecimal128(0, 6)), `items.price`))))" if items else "'0'"
        got = self.rows(f"SELECT toString(count()) AS n, toString(uniqExact({identity})) AS ids, {lo} AS lo, {hi} AS hi, {lines} AS lines, {price} AS price FROM {name}")[0]
        value, revenue = ({
            row["c"]: row["v"]
            for row in (self.rows(f"SELECT ifNull(currency, '') AS c, toString(sum(value)) AS v FROM {name} WHERE {what} GROUP BY c") if event else ())
        } for what in ("value IS NOT NULL", "value IS NOT NULL AND name = 'purchase'"))
        offsets = self.rows(f"SELECT toString(kafka_partition) AS p, toString(max(kafka_offset)) AS o FROM {name} GROUP BY p")
        return {
            "rows": int(got["n"]), "distinct": int(got["ids"]), "hash_lo": int(got["lo"]), "hash_hi": int(got["hi"]),
            "value": amounts(value), "revenue": amounts(revenue), "items": int(got["lines"]), "item_price": text(got["price"]),
            "offsets": {row["p"]: int(row["o"]) for row in offsets},
        }


def check(what, differences, detail):
    print(f"FAIL {what}: {'; '.join(differences)}" if differences else f"PASS {what}: {detail}")


def differences(got, want):
    if "error" in got:
        return [got["error"]]
    return [f"{field} is {got.get(field)}, ClickHouse has {want[field]}" for field in want if got.get(field) != want[field]]


def compared(sums):
    parts = [f"{sums['rows']} rows with {sums['distinct']} ids", f"offsets of {len(sums['offsets'])} partitions"]
    if sums["hash_lo"]:
        parts.insert(1, f"checksum {sums['hash_lo']}/{sums['hash_hi']}")
    if sums["value"]:
        parts.append("value " + " ".join(f"{v} {c or '(no currency)'}" for c, v in sorted(sums["value"].items())))
    if sums["items"]:
        parts.append(f"{sums['items']} items at {sums['item_price']}")
    return ", ".join(parts)


def acknowledged(tables, summary):
    """What differs between the tables and the summary of the simulator."""
    out = []
    for table in TOPICS:
        if "rows" not in tables.get(table, {}):
            out.append(f"{table} was not read")
    if out:
        return out
    for table in TOPICS:
        category = table.removeprefix("events_")
        want = summary["malformed"] if table == "failed_events" else summary["by_category"].get(category, 0)
        if (tables[table]["rows"], tables[table]["distinct"]) != (want, want):
            out.append(f"{table} has {tables[table]['rows']} rows with {tables[table]['distinct']} ids, acknowledged were {want}")
    want = amounts({currency: Decimal(micros).scaleb(-6) for currency, micros in summary["revenue_micros"].items()})
    if tables["events_purchase"]["revenue"] != want:
        out.append(f"revenue is {tables['events_purchase']['revenue']}, acknowledged was {want}")
    if not want or summary["distinct_ids"] == 0 or summary["malformed"] == 0:
        out.append("the traffic had no revenue, no valid or no malformed events: nothing was compared")
    return out


def main(endpoints, summary, results):
    clickhouse = ClickHouse(json.loads(pathlib.Path(endpoints).read_text())["clickhouse"])
    summary = json.loads(pathlib.Path(summary).read_text())
    read = {}
    for path in results:
        said = pathlib.Path(path).read_text()
        read.update(json.loads(said) if said else {})
    want = {table: clickhouse.table(table) for table in TOPICS}
    check("ClickHouse holds what was acknowledged", acknowledged(want, summary), f"{summary['distinct_ids']} events, {summary['malformed']} failed events")
    for reader in READERS:
        tables = read.get(reader, {})
        for table, topic in TOPICS.items():
            source = topic if reader == "confluent" else table
            check(f"{reader} reads {source} as ClickHouse does", differences(tables.get(table, {"error": "was not read"}), want[table]), compared(want[table]))
        check(f"{reader} reads what was acknowledged", acknowledged(tables, summary), "ids by category, failed events, revenue to the micro")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
