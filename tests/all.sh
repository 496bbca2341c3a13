#!/bin/sh
# Runs every test there is, from anywhere: sh tests/all.sh
#
# Installs what the tests talk to (mosquitto and its clients, the proxies microsocks and tinyproxy, and
# openssl) and what a plugin for mosquitto is compiled with, from the packages of Debian, when one of them is
# missing and this machine lets it; otherwise it says what to install and ends with 1. Debian may start what it installs as a service; the tests do not
# use those services, they start their own.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "tests/all.sh: $*" >&2
    exit 1
}

# Debian puts servers where only root looks, and rustup installs where a plain shell may not look.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:${HOME:-/root}/.cargo/bin"
export PATH

command -v cargo >/dev/null || fail "cargo is missing: install Rust, for example from https://rustup.rs"

missing() {
    for tool in mosquitto mosquitto_pub mosquitto_sub mosquitto_rr mosquitto_passwd microsocks tinyproxy openssl cc; do
        command -v "$tool" >/dev/null || return 0
    done
    # The headers, in whatever place the compiler looks for them.
    ! printf '#include <mosquitto.h>\n#include <mosquitto_broker.h>\n#include <mosquitto_plugin.h>\n' |
        cc -E -x c - >/dev/null 2>&1
}

if missing; then
    packages="mosquitto mosquitto-clients mosquitto-dev libmosquitto-dev gcc libc6-dev microsocks tinyproxy openssl"
    install="apt-get install -y --no-install-recommends $packages"
    wanted="the tests need programs or headers that are missing; install them with: $install"
    command -v apt-get >/dev/null || fail "$wanted (or what your system has instead of apt-get)"
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        fail "$wanted (as root)"
    fi
    echo "tests/all.sh: installing $packages, as far as they are missing"
    # Both unquoted on purpose: they are lists of words.
    $as_root apt-get update </dev/null || fail "apt-get update failed; $wanted"
    $as_root env DEBIAN_FRONTEND=noninteractive $install </dev/null || fail "$wanted"
    missing && fail "$wanted"
fi

run() {
    echo
    echo "== $*"
    "$@" </dev/null
}

# Unit tests, the tests in this folder, and the code in the documentation and in the README.
run cargo test --all-features
# Against a broker on tokio: a package of its own.
run cargo test --locked --manifest-path tests/mqtt5/Cargo.toml
# The tests always have everything. This is the library as programs get it that ask for less.
run cargo build
run cargo build --no-default-features

# Each example ends by itself when no broker is named.
run cargo build --examples
for example in publish subscribe many_tasks reconnect tls aws_iot websocket proxy own_transport own_store authenticate request; do
    run cargo run --quiet --example "$example"
done
run cargo run --release --example tour

echo
echo "tests/all.sh: everything passed"
