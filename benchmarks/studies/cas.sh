#!/bin/sh
# The embedded generator's Classification Accuracy Score beside real baselines of the same recipe:
# result files and predictions, and from them cas.json, in results/fashion-mnist/embedded-cascade-now/.
#
#     benchmarks/studies/cas.sh                 20,000 images: on two CPU cores an hour and a half
#     benchmarks/studies/cas.sh 6000 --gpu      60,000: minutes on a GPU, in batches that fill it
set -eu
cd "$(dirname "$0")/../.."
. .venv/bin/activate
per_class=${1:-2000}
n=$((10 * per_class))
real=releases/fashion-mnist-real
made=releases/fashion-mnist-32
out=results/fashion-mnist/embedded-cascade-now
recipe=fashion-mnist
workers=
jobs=1
if [ "${2:-}" = --gpu ]; then
    recipe=runs/fashion-mnist.toml
    workers="--workers 3"
    jobs=7
    mkdir -p runs
    sed "s/^batch = .*/batch = 250/" builder/recipes/fashion-mnist.toml >$recipe
fi
train() { # result, seed, what to train on
    result=$1 seed=$2
    shift 2
    echo train-classifier "$@" --test $real --seed "$seed" --out "$out/$result.json"
}
build-dataset --real fashion-mnist
build-dataset --recipe $recipe --res 32 --per-class "$per_class" --out $made $workers
{
    for seed in 0 1 2; do
        train "cas-$n-seed$seed" $seed --train $made
        train "real-$n-seed$seed" $seed --train $real --per-class "$per_class"
    done
    [ "$n" = 60000 ] || train real-60000 0 --train $real
} | xargs -d '\n' -P $jobs -I{} sh -c '{}'
python benchmarks/studies/cas_summary.py $out --n $n --made $made
score-release $made:32 --real $real --out $out
