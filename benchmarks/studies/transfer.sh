#!/bin/sh
# What representations learned from real, generated and both Fashion-MNIST are worth on scikit-learn's
# digits (1,797 images of 8 px, shipped with scikit-learn): files in results/fashion-mnist/transfer/.
#
#     benchmarks/studies/transfer.sh              100 images a class, 400 steps, seeds 0, 1, 2
#     benchmarks/studies/transfer.sh 50 200       the committed results: 10 minutes on two busy cores
#     benchmarks/studies/transfer.sh 6000 4000    all of Fashion-MNIST: hours on two CPU cores
#
# All classifiers take as many steps of as many images; "both" has twice as many different images.
set -eu
cd "$(dirname "$0")/../.."
. .venv/bin/activate
per_class=${1:-100}
steps=${2:-400}
real=releases/fashion-mnist-real
made=releases/fashion-mnist-32
digits=releases/digits-real
out=results/fashion-mnist/transfer
runs=runs/transfer-$per_class-$steps
mkdir -p "$runs" "$out"
if [ ! -d $digits ]; then
    python benchmarks/studies/digits_folder.py runs/digits
    build-dataset --real runs/digits --test-share 0.4 --split-seed 0 --views 32 --out $digits
fi
build-dataset --real fashion-mnist
build-dataset --recipe fashion-mnist --res 32 --per-class "$per_class" --out $made
train() { # arm, what to train on
    arm=$1
    shift
    for seed in 0 1 2; do
        train-classifier "$@" --per-class "$per_class" --steps "$steps" --test $real \
            --recipe fashion-mnist-small --seed $seed \
            --out "$runs/$arm-seed$seed.json" --save "$runs/$arm-seed$seed.safetensors"
    done
}
train real --train $real
train generated --train $made
train both --train $real --train $made
evaluate-representation "$runs" --on $digits:32 --out $out
python benchmarks/studies/transfer_summary.py $out
