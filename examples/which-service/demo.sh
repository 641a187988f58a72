#!/usr/bin/env bash
# A ladder with an easy target, one with a hard one, always LoRA, and a small encoder; then one table. Run again, it reuses every stage.
#
#     ./demo.sh BIN                 BIN is the folder with python and genwright
set -euo pipefail

bin=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

[[ -f data/services.jsonl ]] || "$bin/python" make_data.py
[[ -d model ]] || "$bin/python" make_model.py
for project in . encoder always-lora harder; do
    code=0
    "$bin/genwright" --project "$project" apply || code=$?
    [[ $code == 0 || $code == 3 ]] || exit "$code"          # 3: the target was not met, and that was said
    "$bin/genwright" --project "$project" report
done
"$bin/python" table.py
printf '\n== done in %s min %s s\n' $((SECONDS / 60)) $((SECONDS % 60))
