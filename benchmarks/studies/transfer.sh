#!/bin/sh
# What representations learned from five classes of Fashion-MNIST, real, generated and both, are worth
# on its five other classes and on scikit-learn's digits (1,797 images of 8 px, shipped with
# scikit-learn): learned from labels, and by SimCLR without. Files in results/fashion-mnist/transfer/.
#
#     benchmarks/studies/transfer.sh                   100 images a class, 200 steps, seeds 0, 1, 2
#     benchmarks/studies/transfer.sh 6000 4000         all of Fashion-MNIST: hours on two CPU cores
#     benchmarks/studies/transfer.sh 10 5 5 /tmp/tiny  5 steps of fine-tuning; results in /tmp/tiny
#
# All arms take as many steps of 128 images, or of 128 views of 64; "both" has twice as many different
# images. Each network is probed with its features frozen, and fine-tuned: all of its weights take
# as many steps of 64 images, by default as many as it was trained. Started again it goes on.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PWD/.venv/bin:$PATH
per_class=${1:-100}
steps=${2:-200}
tuning_steps=${3:-$steps}
seen=t-shirt,trouser,pullover,dress,coat
real=releases/fashion-mnist-real
made=releases/fashion-mnist-32
unseen=releases/fashion-mnist-unseen-real
digits=releases/digits-real
out=${4:-results/fashion-mnist/transfer}
runs=runs/transfer-$per_class-$steps
mkdir -p "$runs" "$out"
[ -d $real ] || build-dataset --real fashion-mnist --out $real
[ -d $made ] || build-dataset --recipe fashion-mnist --res 32 --per-class "$per_class" --out $made
if [ ! -d $digits ]; then
    python benchmarks/studies/digits_folder.py runs/digits
    build-dataset --real runs/digits --test-share 0.4 --split-seed 0 --views 32 --out $digits
fi
if [ ! -d $unseen ]; then
    python benchmarks/studies/class_folders.py $real:32 benchmarks/studies/unseen.csv runs/unseen \
        --per-class 200
    build-dataset --real runs/unseen --classes-from benchmarks/studies/unseen.csv --views 32 \
        --out $unseen
fi
train() { # objective, recipe, arm, what to train on
    name=$1-$3 recipe=$2
    shift 3
    train-classifier "$@" --classes $seen --per-class "$per_class" --steps "$steps" --test $real \
        --recipe "$recipe" --set batch=128 --seeds 0,1,2 --out "$runs/$name.json" --save "$runs/$name.safetensors"
}
for pair in labels:fashion-mnist-small simclr:fashion-mnist-simclr; do
    objective=${pair%:*} recipe=${pair#*:}
    train "$objective" "$recipe" real --train $real
    train "$objective" "$recipe" generated --train $made
    train "$objective" "$recipe" both --train $real --train $made
    evaluate-representation "$runs" --on $unseen:32 --on $digits:32 --seeds 0,1,2 --workers 1 \
        --evaluations all,fine_tuning --tuning-steps "$tuning_steps" --tuning-rates 0.001,0.01,0.1 --out "$out"
    python benchmarks/studies/transfer_summary.py "$out"
done
