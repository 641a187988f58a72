#!/usr/bin/env bash
# Four adapters on one base, and one MultiLoRA for all four fields; then the four behind model = "auto". Run again, it reuses
# every stage.
#
#     ./demo.sh BIN                 BIN is the folder with python and genwright
set -euo pipefail

bin=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

"$bin/genwright" models pull smollm2-135m-instruct
[[ -f data/all.jsonl ]] || "$bin/python" make_data.py
for project in az aws python interface all; do
    printf '\n== %s\n' "$project"
    "$bin/genwright" --project "$project" apply
done
"$bin/python" table.py

printf '\n== served: model = "auto"\n'
port=${PORT:-8642}
"$bin/genwright" --project az serve --port "$port" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
"$bin/python" ask.py "http://127.0.0.1:$port"
kill "$server"
wait "$server" || true
"$bin/genwright" --project az usage --by expert
printf '\n== done in %s min %s s\n' $((SECONDS / 60)) $((SECONDS % 60))
