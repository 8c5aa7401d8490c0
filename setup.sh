#!/bin/sh
# Set up this checkout in .venv. With --test, also what the tests and checks need.
set -eu
cd "$(dirname "$0")"

debian_install() {
    command -v apt-get >/dev/null || { echo "setup: install $1 with your system's packages" >&2; exit 2; }
    root=$([ "$(id -u)" = 0 ] || echo sudo)
    $root apt-get -qq update && $root apt-get -qq -o DPkg::Lock::Timeout=300 install --yes "$1" >/dev/null
}

# tests/cards/board/test_leaderboard_page.py skips, and says so, where there is no browser.
browser_there() {
    command -v chromium || command -v chromium-browser || command -v google-chrome
} >/dev/null

gigabytes=$([ "${1:-}" = --test ] && echo 7.1 || echo 6.6)
echo "setup: packages go into .venv, about $gigabytes GB on disk on Linux, most of it torch with CUDA; minutes, by your network"

# Debian splits venv's pip from python3 and forbids pip outside an environment.
if [ ! -x .venv/bin/pip ]; then
    python3 -m venv --clear .venv >/dev/null 2>&1 || { debian_install python3-venv; python3 -m venv --clear .venv; }
fi
.venv/bin/pip install --quiet uv

install=".venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --constraint constraints.txt"
if [ "${1:-}" = --test ]; then
    $install --editable . --group dev
    [ -d /usr/share/datasets/fashion-mnist ] || debian_install dataset-fashion-mnist
    browser_there || ! command -v apt-get >/dev/null || debian_install chromium
    next="pytest"
else
    $install --editable .
    next="build-dataset --recipe fashion-mnist --res 32 --per-class 100"
fi
echo "setup: done. Next: source .venv/bin/activate && $next"
