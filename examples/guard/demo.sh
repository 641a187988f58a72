#!/usr/bin/env bash
# The heads that `genwright serve` reads, then the same task as a project: an encoder with a head. Prints no row.
#
#     ./demo.sh BIN                 BIN is the folder with python and genwright
set -euo pipefail

bin=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

"$bin/python" train.py --out model
[[ -f data/turns.jsonl ]] || "$bin/python" make_data.py
[[ -d ../transfer/model ]] || "$bin/python" ../transfer/make_model.py
"$bin/genwright" apply
"$bin/genwright" report
printf '\n== done in %s min %s s\n' $((SECONDS / 60)) $((SECONDS % 60))
