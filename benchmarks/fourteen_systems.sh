#!/bin/sh
# The systems of docs/generators.md on one measured board, in the background, one after another; run
# it again to go on. On one CPU core about two hours a system.
#
#     benchmarks/fourteen_systems.sh                        40 minutes of training a system
#     benchmarks/fourteen_systems.sh --budget 7200 --work runs/longer --out runs/longer/results
#                                                           two hours
#     benchmarks/fourteen_systems.sh --systems rin,dit      some of them
#
# Log: runs/systems/log.txt. Results: results/fashion-mnist/systems/, the table in systems.md there.
set -eu
cd "$(dirname "$0")/.."
mkdir -p runs/systems
OMP_NUM_THREADS=1 PATH="$PWD/.venv/bin:$PATH" \
    nohup nice python benchmarks/fourteen_systems.py "$@" >>runs/systems/log.txt 2>&1 &
echo "runs as process $!; log: runs/systems/log.txt"
