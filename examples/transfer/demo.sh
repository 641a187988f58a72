#!/usr/bin/env bash
# A pre-trained encoder sorts cloud tasks into services, three ways. Run again, it reuses every stage.
#
#     ./demo.sh BIN                 BIN is the folder with python and genwright
set -euo pipefail

bin=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

[[ -f data/services.jsonl ]] || "$bin/python" make_data.py
[[ -d model ]] || "$bin/python" make_model.py
"$bin/genwright" apply
"$bin/genwright" report
printf '\n== done in %s min %s s\n' $((SECONDS / 60)) $((SECONDS % 60))
