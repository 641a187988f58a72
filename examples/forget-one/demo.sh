#!/usr/bin/env bash
# Teach a model all invented people but one, teach a second everybody, make it forget that one. Run again, it reuses every stage.
#
#     ./demo.sh BIN                 BIN is the folder with python and genwright
set -euo pipefail

bin=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

[[ -f data/all.jsonl ]] || "$bin/python" make_data.py
[[ -d model ]] || "$bin/python" make_model.py
"$bin/genwright" --project without apply
code=0
"$bin/genwright" apply || code=$?
[[ $code == 0 || $code == 3 ]] || exit "$code"              # 3: not forgotten, or something harmed, and that was said
"$bin/genwright" report
"$bin/python" table.py
printf '\n== done in %s min %s s\n' $((SECONDS / 60)) $((SECONDS % 60))
