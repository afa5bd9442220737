#!/usr/bin/env bash
# Other people's clients read a platform of its own, started for them: `make peers` (README.md).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
bin=${MILLRACE_BIN:-$root/bin/millrace}
broker=${BROKER:-auto}
export MILLRACE_CACHE=${MILLRACE_CACHE:-$root/.cache}
export PYTHONDONTWRITEBYTECODE=1
events=20000 seed=11 patience=90

dir=$(mktemp -d "${TMPDIR:-/tmp}/millrace-peers.XXXXXX")
data=$dir/data
results=$dir/results.out
: >"$results"

say() { echo "== $*"; }
pass() { echo "PASS $*" | tee -a "$results"; }
fail() { echo "FAIL $*" | tee -a "$results"; }
die() {
  fail "$*"
  exit 1
}

# However the run ends, the platform is ended, its data removed, and the last line counts the checks.
finished=false
cleanup() {
  local status=$? passed failed
  trap - EXIT
  trap '' INT TERM
  if ((status != 0)) && [[ $finished == false ]] && ! grep -q '^FAIL ' "$results"; then
    fail "the run ended early, with status $status"
  fi
  if [[ -e $data ]] && ! timeout 180 "$bin" down --data "$data" >"$dir/down.out" 2>&1; then
    fail "millrace down: $(<"$dir/down.out")"
  fi
  passed=$(grep -c '^PASS ' "$results") || true
  failed=$(grep -c '^FAIL ' "$results") || true
  rm -rf "$dir"
  echo "$passed passed, $failed failed"
  ((failed == 0 && passed > 0)) || exit 1
  exit 0
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

[[ -x $bin ]] || die "$bin is not there: run make build"
python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || die "python3, 3.11 or newer with venv and pip, is needed"

# The peers are installed once for each content of requirements.txt and each version of Python.
key=$({ python3 -c 'import sys; print(sys.version, sys.platform)'; cat "$here/requirements.txt"; } | sha256sum | cut -c1-12)
venv=$MILLRACE_CACHE/peers-$key
py=$venv/bin/python
mkdir -p "$MILLRACE_CACHE"
exec 9>"$MILLRACE_CACHE/.peers.lock"
flock 9
if [[ ! -e $venv/.complete ]]; then
  say "installing the peers into $venv"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$py" -m pip install --quiet --only-binary=:all: --require-hashes -r "$here/requirements.txt"
  touch "$venv/.complete"
fi
exec 9>&-

say "a platform on $data"
"$bin" up --detach --no-simulate --data "$data" --broker "$broker" >"$dir/up.out" || die "millrace up did not start the platform"
say "$events events"
"$bin" simulate --events "$events" --seed "$seed" --data "$data" >"$dir/summary.json" 2>"$dir/simulate.err" || die "millrace simulate: $(<"$dir/simulate.err")"

settled() {
  "$bin" query --data "$data" --output json "SELECT toString(count()) AS rows, toString(uniqExact(tenant, source, event_id)) AS ids,
    leftPad(lower(hex(sum(xxHash64(event_id)))), 16, '0') AS hash, toString((SELECT count() FROM failed_events)) AS failed FROM events" >"$dir/clickhouse.json" &&
    "$bin" tables --data "$data" --output json >"$dir/tables.json" &&
    "$py" "$here/settled.py" "$dir/summary.json" "$dir/clickhouse.json" "$dir/tables.json"
}
started=$SECONDS
until settled >"$dir/settled.out" 2>&1; do
  if ((SECONDS - started >= patience)); then
    "$bin" status --data "$data" || true
    die "the stores do not hold what was acknowledged after $patience s: $(<"$dir/settled.out")"
  fi
  sleep 1
done
say "the stores hold what was acknowledged, $((SECONDS - started)) s after the traffic"

# A reader that fails has said why; what it did not read fails again in the comparison.
for reader in readers confluent; do
  status=0
  "$py" "$here/$reader.py" "$data/endpoints.json" >"$dir/$reader.json" || status=$?
  if ((status == 0)); then pass "$reader.py read everything"; else fail "$reader.py ended with status $status"; fi
done
"$py" "$here/compare.py" "$data/endpoints.json" "$dir/summary.json" "$dir/readers.json" "$dir/confluent.json" | tee -a "$results" || fail "compare.py did not make every check"

# docs/query.md's Python is run as it is written there.
awk '/^```/ { inside = ($0 == "```python"); next } inside' "$root/docs/query.md" >"$dir/as-written.py"
sed "s|\.millrace/|$data/|g" "$dir/as-written.py" >"$dir/snippet.py"
want=$("$bin" query --data "$data" --output csv 'SELECT count() FROM events_purchase' | tail -n 1)
if cmp -s "$dir/as-written.py" "$dir/snippet.py"; then
  fail "the Python of docs/query.md reads nothing in .millrace/"
elif ! got=$("$py" "$dir/snippet.py" 2>&1); then
  fail "the Python of docs/query.md: $got"
elif [[ $got != "$want" ]]; then
  fail "the Python of docs/query.md prints $got; ClickHouse has $want rows"
else
  pass "the Python of docs/query.md prints $got, as ClickHouse does"
fi
finished=true
