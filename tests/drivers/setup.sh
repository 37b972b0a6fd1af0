#!/bin/sh
# Makes the drivers' environments under target/drivers: a Python venv and a node_modules. Ruby's are packages of the system.
# Does nothing when they are there.
set -eu
cd "$(dirname "$0")"
drivers=${1:-../../target/drivers}
mkdir -p "$drivers"
drivers=$(cd "$drivers" && pwd)
exec 9>"$drivers/lock"
flock 9

want=$(cat requirements.txt package.json | cksum)
if [ "$(cat "$drivers/made" 2>/dev/null)" = "$want" ]; then
    exit 0
fi

missing=
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
ruby -e 'require "active_record"; require "pg"' 2>/dev/null || missing="$missing ruby ruby-activerecord ruby-pg"
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086 # a list of words
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing
    else
        echo "the driver tests need:$missing (Debian: sudo apt-get install$missing)" >&2
        exit 1
    fi
fi

rm -rf "$drivers/venv" "$drivers/node" "$drivers/made"
python3 -m venv "$drivers/venv"
"$drivers/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
mkdir "$drivers/node"
cp package.json "$drivers/node/"
npm install --prefix "$drivers/node" --no-audit --no-fund --loglevel=error
printf '%s\n' "$want" >"$drivers/made"
