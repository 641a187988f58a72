#!/usr/bin/env bash
# Teach invented people, teach a second model all but one, make the first forget that one. Run again, it reuses every stage.
#
#     ./demo.sh BIN                 BIN is the folder with python and genwright
set -euo pipefail

bin=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

[[ -f data/all.jsonl ]] || "$bin/python" make_data.py
[[ -d model ]] || "$bin/python" make_model.py
"$bin/genwright" apply
"$bin/genwright" --project without apply
code=0
"$bin/genwright" unlearn --forget data/forget.jsonl --retain data/retain.jsonl --also data/skills.jsonl --never-saw without \
    --method npo --with beta=0.5 --steps 60 --learning-rate 3e-4 --keep 0.9 --relearn-steps 30 || code=$?
[[ $code == 0 || $code == 3 ]] || exit "$code"              # 3: not forgotten, or something harmed, and that was said
"$bin/python" table.py
printf '\n== done in %s min %s s\n' $((SECONDS / 60)) $((SECONDS % 60))
