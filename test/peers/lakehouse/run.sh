#!/usr/bin/env bash
# Other people's engines read the lakehouse after every kind of change: `make peers-lakehouse` (README.md).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
export MILLRACE_CACHE=${MILLRACE_CACHE:-$root/.cache}
export PYTHONDONTWRITEBYTECODE=1

die() {
  echo "FAIL $*"
  echo "0 passed, 1 failed"
  exit 1
}
say() { echo "== $*"; }

python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || die "python3, 3.11 or newer with venv and pip, is needed"
for tool in java mvn; do command -v "$tool" >/dev/null || die "$tool is needed (Debian: openjdk-17-jre-headless, maven)"; done
mkdir -p "$MILLRACE_CACHE"

# The readers are installed once for each content of requirements.txt and each version of Python: 1.1 GB, most of it Spark.
key=$({ python3 -c 'import sys; print(sys.version, sys.platform)'; cat "$here/requirements.txt"; } | sha256sum | cut -c1-12)
venv=$MILLRACE_CACHE/peers-lakehouse-$key
# Spark's side of Iceberg; the rest of its jars come with Apache Iceberg's REST catalog.
runtime=iceberg-spark-runtime-4.0_2.13 version=1.11.0
sum=63c3b812549dc232c1920865ff42436df8604a9bbacd693930985c06bd97e6dc
jars=$MILLRACE_CACHE/peers-spark-$version-${sum:0:12}
exec 9>"$MILLRACE_CACHE/.peers-lakehouse.lock"
flock 9
if [[ ! -e $venv/.complete ]]; then
  say "installing the readers into $venv"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --require-hashes -r "$here/requirements.txt" || die "pip could not install the readers"
  touch "$venv/.complete"
fi
if [[ ! -e $jars ]]; then
  say "fetching $runtime $version"
  rm -rf "$jars.draft"
  mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy -Dartifact="org.apache.iceberg:$runtime:$version" -DoutputDirectory="$jars.draft" || die "mvn could not fetch $runtime"
  echo "$sum  $jars.draft/$runtime-$version.jar" | sha256sum --quiet --check - || die "$runtime $version is not the one that this was made with"
  mv "$jars.draft" "$jars"
fi
exec 9>&-

cd "$root"
exec go run ./test/peers/lakehouse -python "$venv/bin/python" -jars "$jars" -readers "$here/readers.py" "$@"
