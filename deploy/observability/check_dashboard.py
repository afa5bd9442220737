#!/usr/bin/env python3
"""Checks Grafana dashboards without Grafana.

Grafana ignores fields that it does not know, so a misspelt one is a setting without effect: each file is read into Grafana's own
model (grafana-foundation-sdk) and written again, and what did not survive is reported. Every expression is parsed by promtool.

usage: check_dashboard.py PROMTOOL DASHBOARD...
"""

import json
import subprocess
import sys
import tempfile

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

# What a panel type brings along has no place in the common model.
OF_PANEL_TYPES = (".options.", ".fieldConfig.defaults.custom.")


def lost(source, model, path=""):
    """Yields the path of every field of source that the model has not kept."""
    if isinstance(source, dict):
        for key, value in source.items():
            at = f"{path}.{key}"
            if not isinstance(model, dict) or key not in model:
                if value not in (None, [], {}):
                    yield at
            else:
                yield from lost(value, model[key], at)
    elif isinstance(source, list) and isinstance(model, list):
        for i, (one, kept) in enumerate(zip(source, model)):
            yield from lost(one, kept, f"{path}[{i}]")


def expressions(board):
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m")


def main(promtool, files):
    problems, asked = 0, []
    for name in files:
        with open(name, encoding="utf-8") as file:
            source = json.load(file)
        model = json.loads(json.dumps(Dashboard.from_json(source), cls=JSONEncoder))
        for path in lost(source, model):
            if not any(part in path for part in OF_PANEL_TYPES):
                print(f"{name}: Grafana knows no field {path}")
                problems += 1
        asked += expressions(source)
    rules = [{"record": f"dashboard:expression:{i}", "expr": expr} for i, (_, expr) in enumerate(asked)]
    with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:
        json.dump({"groups": [{"name": "dashboards", "rules": rules}]}, file)
        file.flush()
        check = subprocess.run([promtool, "check", "rules", file.name], capture_output=True, text=True, check=False)
    if check.returncode:
        print(check.stdout + check.stderr)
        problems += 1
    print(f"{len(files)} dashboards, {len(asked)} expressions, {problems} problems")
    return problems > 0 or not asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
