#!/bin/sh
# The embedded generator's Classification Accuracy Score beside real baselines of the same recipe;
# the result files and predictions of results/fashion-mnist/. About half an hour on two CPU cores.
set -eu
cd "$(dirname "$0")/.."
. .venv/bin/activate
real=releases/fashion-mnist-real
made=releases/fashion-mnist-32
out=results/fashion-mnist
build-dataset --real fashion-mnist
build-dataset --recipe fashion-mnist --res 32 --per-class 1000
train-classifier --train $made --test $real --seeds 0,1,2 --out $out/cas-10000.json
train-classifier --train $real --per-class 1000 --test $real --seeds 0,1,2 --out $out/real-10000.json
train-classifier --train $real --test $real --seed 0 --out $out/real-60000.json
score-release $made:32 --real $real --out $out
