#!/bin/sh
# Cuts real connections between two clients and mosquitto, from anywhere:
#
#     sh tests/cuts.sh [cuts [first seed]]
#
# Without arguments 10,000 cuts, which takes some minutes. Then a tenth of them while mosquitto is stopped and
# started again, and a tenth while it is killed. Installs nothing, and leaves nothing behind: each round starts a
# mosquitto of its own on a free port of this machine, in a directory of its own.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "tests/cuts.sh: $*" >&2
    exit 1
}

# Debian puts servers where only root looks, and rustup installs where a plain shell may not look.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:${HOME:-/root}/.cargo/bin"
export PATH

command -v cargo >/dev/null || fail "cargo is missing: install Rust, for example from https://rustup.rs"
command -v mosquitto >/dev/null || fail "mosquitto is missing: install it, for example with apt-get install mosquitto"

cuts=${1:-10000}
seed=${2:-0}
for number in "$cuts" "$seed"; do
    case $number in
    '' | *[!0-9]*) fail "not a number: $number" ;;
    esac
done
tenth=$(((cuts + 9) / 10))

run() {
    name=$1
    echo "== $2 cuts: $name"
    SEED=$seed CUTS=$2 cargo test --quiet --release --test cuts "$name" -- --nocapture --test-threads 1 </dev/null
}

mosquitto -h | head -n 1
run network "$cuts"
run restarts "$tenth"
run killed "$tenth"
