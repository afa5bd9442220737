#!/usr/bin/env bash
# Brings Prometheus and promtool into the cache, without root: Debian's package, checked against its digest. Prints the folder of the programs.
set -euo pipefail

version=2.42.0+ds-5+deb12u1
declare -A sums=(
  [amd64]=81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55
)

cache=${MILLRACE_CACHE:?is the folder of what is installed}
arch=$(dpkg --print-architecture)
want=${sums[$arch]:-}
if [[ -z $want ]]; then
  echo "no digest of prometheus $version is known for $arch" >&2
  exit 1
fi
dir=$cache/prometheus-$version-$arch
if [[ ! -x $dir/usr/bin/promtool ]]; then
  work=$(mktemp -d "$cache/prometheus.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/tree"
  options=(-q -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=)
  apt-get "${options[@]}" update >&2 # package lists of its own: the system's may be absent
  (cd "$work" && apt-get "${options[@]}" download "prometheus=$version" >&2)
  deb=("$work"/prometheus_*.deb)
  echo "$want  ${deb[0]}" | sha256sum --check --quiet >&2
  dpkg-deb -x "${deb[0]}" "$work/tree"
  rm -rf "$dir"
  mv "$work/tree" "$dir"
fi
echo "$dir/usr/bin"
