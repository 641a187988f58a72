#!/usr/bin/env bash
# A small encoder-decoder learns to translate from nothing, beside a large decoder that is shown examples. Run again, it reuses every stage.
#
#     ./demo.sh BIN                 BIN is the folder with python and genwright
set -euo pipefail

bin=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

[[ -f data/ui.jsonl ]] || "$bin/python" make_data.py
[[ -d model ]] || "$bin/python" make_model.py
for project in . decoder; do
    "$bin/genwright" --project "$project" apply
    "$bin/genwright" --project "$project" report
done
"$bin/python" table.py
printf '\n== done in %s min %s s\n' $((SECONDS / 60)) $((SECONDS % 60))
