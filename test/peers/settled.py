"""Says whether ClickHouse and Iceberg hold exactly what the simulator was acknowledged.

usage: settled.py SUMMARY_JSON CLICKHOUSE_JSON TABLES_JSON

CLICKHOUSE_JSON is run.sh's query, TABLES_JSON is `millrace tables --output json`. Exit status: 0 if they do, 1 if not (yet).
"""

import json
import pathlib
import sys


def main(*paths):
    summary, clickhouse, iceberg = (json.loads(pathlib.Path(path).read_text()) for path in paths)
    if summary["unacknowledged"]:
        print(f"{summary['unacknowledged']} events have no known outcome")
        return 1
    row = clickhouse[0]
    have = [int(row["rows"]), int(row["ids"]), row["hash"], int(row["failed"])]
    want = [summary["distinct_ids"], summary["distinct_ids"], summary["id_hash"], summary["malformed"]]
    rows = {table["name"].split(".")[-1]: table["rows"] for table in iceberg}
    lake = [sum(n for name, n in rows.items() if name.startswith("events_")), rows.get("failed_events", 0)]
    print(f"acknowledged: rows, ids, hash, failed {want}; ClickHouse has {have}; Iceberg has rows, failed {lake}")
    return int(have != want or lake != [want[0], want[3]])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(main(*sys.argv[1:]))
