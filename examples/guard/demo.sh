#!/usr/bin/env bash
# The guard that `genwright serve` reads: rows out of packages, an encoder trained on them, heads and thresholds. Prints no row.
#
#     ./demo.sh BIN                 BIN is the folder with python and genwright
set -euo pipefail

bin=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

[[ -f data/turns.jsonl ]] || "$bin/python" make_data.py
[[ -d ../transfer/model ]] || "$bin/python" ../transfer/make_model.py
"$bin/genwright" apply
"$bin/genwright" report
"$bin/python" train.py --out model
printf '\n== done in %s min %s s\n' $((SECONDS / 60)) $((SECONDS % 60))
