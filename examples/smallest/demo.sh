#!/usr/bin/env bash
# A first look: the data, a model made on the spot, plan, apply, report, one question. Run again, it reuses every stage.
#
#     bash demo.sh BIN        BIN is the folder with python and genwright
set -euo pipefail

bin=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

[[ -f data/summaries.jsonl ]] || "$bin/python" make_data.py
[[ -f model/config.json ]] || "$bin/python" make_model.py
"$bin/genwright" plan
"$bin/genwright" apply
"$bin/genwright" report
"$bin/genwright" chat --ask "suffixes(self)"
