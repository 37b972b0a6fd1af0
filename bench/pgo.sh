#!/usr/bin/env bash
# target/pgo/presplit: a release whose code is laid out by what runs (profile-guided optimisation). It is built twice, with a short
# load of bench/run.py and bench/stream.py in between. Needs llvm-profdata of rustc's LLVM: `rustup component add llvm-tools`, or
# Debian's package llvm-NN, NN as `rustc -vV` says.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
profdata=
for found in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" "$(command -v "llvm-profdata-$llvm" || true)"; do
    if [ -x "$found" ]; then profdata=$found && break; fi
done
if [ -z "$profdata" ]; then
    echo "llvm-profdata of LLVM $llvm is missing: rustup component add llvm-tools, or apt-get install llvm-$llvm" >&2
    exit 1
fi

raw=$PWD/target/pgo/raw
rm -rf "$raw"
# Named by its target, so that programs that run at build time are built as ever.
build() { RUSTFLAGS="$1" cargo build --release --bin presplit --target "$host" --target-dir "target/pgo/$2"; }

build "-Cprofile-generate=$raw" counting
counting=target/pgo/counting/$host/release/presplit
python3 bench/run.py --binary "$counting" --only presplit --clients 32 --seconds 2 --rounds 1 --json target/pgo/run.json
python3 bench/stream.py --binary "$counting" --targets presplit --rounds 1 --mb 20
"$profdata" merge -o target/pgo/presplit.profdata "$raw"
build "-Cprofile-use=$PWD/target/pgo/presplit.profdata" guided
cp "target/pgo/guided/$host/release/presplit" target/pgo/presplit
ls -l target/pgo/presplit
