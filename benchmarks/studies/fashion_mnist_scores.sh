#!/bin/sh
# Every metric that needs no download, with intervals: the real test split of Fashion-MNIST against
# train, and the embedded generator's release against both; the score files of results/fashion-mnist/.
# Without a release in releases/fashion-mnist-32 only the real split is scored.
set -eu
cd "$(dirname "$0")/../.."
. .venv/bin/activate
real=releases/fashion-mnist-real
made=releases/fashion-mnist-32
[ -f $real/manifest.json ] || build-dataset --real fashion-mnist
set -- $real:32:test
[ ! -f $made/manifest.json ] || set -- "$@" $made:32
score-release "$@" --real $real --metrics all --out results/fashion-mnist
