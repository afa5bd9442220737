#!/usr/bin/env bash
# Checks what is in this folder, then against a running platform: `make observability-check`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
export MILLRACE_CACHE=${MILLRACE_CACHE:-$root/.cache} PYTHONDONTWRITEBYTECODE=1
mkdir -p "$MILLRACE_CACHE"

exec 9>"$MILLRACE_CACHE/.observability.lock"
flock 9
programs=$("$here/install.sh")
key=$({ python3 --version; cat "$here/requirements.txt"; } | sha256sum | cut -c1-12)
venv=$MILLRACE_CACHE/observability-$key
if [[ ! -e $venv/.complete ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$here/requirements.txt"
  touch "$venv/.complete"
fi
exec 9>&-

cd "$here"
echo "== rules and configuration"
"$programs/promtool" check config --lint=all --lint-fatal prometheus.yml
"$programs/promtool" test rules rules/tests.yml
echo "== dashboards"
"$venv/bin/python" check_dashboard.py "$programs/promtool" grafana/*.json
# Checks that find nothing prove nothing: each of these must be refused.
bad=$(mktemp -d)
trap 'rm -rf "$bad"' EXIT
sed 's/"gridPos"/"gridpos"/' grafana/millrace.json >"$bad/field.json"
sed 's/sum(millrace_ready) /sum(millrace_ready /' grafana/millrace.json >"$bad/promql.json"
for planted in "$bad"/*.json; do
  if "$venv/bin/python" check_dashboard.py "$programs/promtool" "$planted" >/dev/null; then
    echo "the mistake planted in $(basename "$planted") is not found" >&2
    exit 1
  fi
done
mkdir "$bad/rules"
sed 's/millrace:spool_fill:ratio > 0.8/millrace:spool_fill:ratio > 8/' rules/alerts.yml >"$bad/rules/alerts.yml"
cp rules/recording.yml rules/tests.yml "$bad/rules/"
if "$programs/promtool" test rules "$bad/rules/tests.yml" >/dev/null 2>&1; then
  echo "an alert that never fires passes the tests of the rules" >&2
  exit 1
fi
echo "== a running platform"
cd "$root"
go run ./test/observe -bin "${MILLRACE_BIN:-bin/millrace}" -programs "$programs"
