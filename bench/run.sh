#!/usr/bin/env bash
# The benchmark: direct Postgres, PgBouncer and presplit under pgbench, interleaved. See bench/README.md and --help.
set -euo pipefail
cd "$(dirname "$0")/.."

build=yes
for flag in "$@"; do
    case $flag in --no-build | --binary | --binary=* | -h | --help) build=no ;; esac
done
if [ $build = yes ]; then
    cargo build --release --bin presplit
fi
exec python3 bench/run.py "$@"
