#!/bin/sh
# The studies fashion-mnist and fashion-mnist-long and all they take: the generators that see 1,000 and
# 5,000 real images and no others, trained from scratch, what they generate, and the embedded cascade's
# 60,000 images. Reports in $1 and $1-long. Hours on two CPU cores; rerunning goes on.
set -eu
cd "$(dirname "$0")/../.."
. .venv/bin/activate
real=releases/fashion-mnist-real
build-dataset --real fashion-mnist

train() { # size, stage, steps
    OMP_NUM_THREADS=1 finetune-generator --recipe "fashion-mnist-$2" --steps "$3" --threads 1 \
        --data $real --split train --per-class "$1" --out "runs/same-$1-$2" --json
}

generate() { # size: nine generated images for each real one, by the recipe fashion-mnist-fast
    sed -e '/^#/d' -e '/^sha256 = /d' -e '/^\[stage.model\]/,/^$/d' \
        -e "s/^name = .*/name = \"fashion-mnist-same-$1\"/" \
        -e "s/^description = .*/description = \"Of a cascade trained on $1 images of each class\"/" \
        -e "s|builtin:fashion-mnist-\([0-9]*\)|runs/same-$1-\1/checkpoint|" \
        builder/recipes/fashion-mnist-fast.toml >"runs/same-$1.toml"
    build-dataset --recipe "runs/same-$1.toml" --per-class $((9 * $1)) \
        --out "releases/fashion-mnist-same-$1"
}

for size in 100 500; do
    train $size 16 3000 &
    base=$!
    train $size 32 1500
    wait $base
    generate $size
done
out=${1:-results/fashion-mnist/study}
run-study fashion-mnist --out "$out"
run-study fashion-mnist-long --out "$out-long"
