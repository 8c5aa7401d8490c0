#!/bin/sh
# The embedded generator's Classification Accuracy Score beside real baselines of the same recipe:
# result files and predictions, and from them cas.json, in results/fashion-mnist/. About an hour and
# a half on two CPU cores, two thirds of it for the 20,000 generated images.
set -eu
cd "$(dirname "$0")/.."
. .venv/bin/activate
real=releases/fashion-mnist-real
made=releases/fashion-mnist-32
out=results/fashion-mnist
build-dataset --real fashion-mnist
build-dataset --recipe fashion-mnist --res 32 --per-class 2000
train-classifier --train $made --test $real --seeds 0,1,2 --out $out/cas-20000.json
train-classifier --train $real --per-class 2000 --test $real --seeds 0,1,2 --out $out/real-20000.json
train-classifier --train $real --test $real --seed 0 --out $out/real-60000.json
score-release $made:32 --real $real --out $out
python benchmarks/cas_summary.py $out --n 20000 --made $made
