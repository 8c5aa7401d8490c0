#!/bin/sh
# A short run of a ResNet, a ResNet-RS, a ViT and a DeiT recipe of the paper on 1,000 images of
# Fashion-MNIST at 32 px, from the original bytes: that the recipes train, not what they reach.
# Learning rates are scaled down with the batch. Result files in $1. On 2 cores some 30 minutes.
set -eu
cd "$(dirname "$0")/../.."
. .venv/bin/activate
out=${1:-results/fashion-mnist/recipes}
real=releases/fashion-mnist-real
build-dataset --real fashion-mnist
run() {
    recipe=$1
    shift
    train-classifier --recipe "$recipe" --set resolution=32 --set batch=64 "$@" \
        --train $real:original:train --per-class 100 --test $real:original:test \
        --out "$out/$recipe.json"
}
patches="--set model_args.patch_size=4"
run imagenet-resnet50 --set epochs=5 --set learning_rate=0.05
run imagenet-resnetrs50-160 --set epochs=5 --set learning_rate=0.05 --set ema=0.99
run imagenet-vit-s16 --set epochs=30 --set learning_rate=3e-4 $patches
run imagenet-deit-s --set epochs=30 --set learning_rate=3e-4 $patches
