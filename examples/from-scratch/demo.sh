#!/usr/bin/env bash
# Three small language models from raw text. Run again, it reuses every stage.
#
#     ./demo.sh BIN [FOLDER]        BIN is the folder with python and genwright, FOLDER text of your own
set -euo pipefail

bin=$(cd "$1" && pwd)
own=()
[[ $# -lt 2 ]] || own=(--folder "$(cd "$2" && pwd)")
cd "$(dirname "${BASH_SOURCE[0]}")"

[[ -f data/text.jsonl && ${#own[@]} == 0 ]] || "$bin/python" make_data.py "${own[@]}"
[[ -d model/decoder && ${#own[@]} == 0 ]] || "$bin/python" make_model.py
for project in causal masked span-corruption; do
    printf '\n== %s\n' "$project"
    "$bin/genwright" --project "$project" apply
    "$bin/genwright" --project "$project" report
done
printf '\n== done in %s min %s s\n' $((SECONDS / 60)) $((SECONDS % 60))
