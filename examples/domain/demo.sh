#!/usr/bin/env bash
# Continued pre-training with a mixture, judged on both kinds of text. Run again, it reuses every stage.
#
#     ./demo.sh BIN [SHARE]         BIN is the folder with python and genwright, SHARE the domain's (0.75)
set -euo pipefail

bin=$(cd "$1" && pwd)
share=${2:-0.75}
cd "$(dirname "${BASH_SOURCE[0]}")"
base=../from-scratch

[[ -f $base/data/text.jsonl ]] || "$bin/python" "$base/make_data.py"
[[ -d $base/model/decoder ]] || "$bin/python" "$base/make_model.py"
"$bin/genwright" --project "$base/causal" apply
"$bin/python" make_data.py --domain-share "$share"
"$bin/python" make_model.py
"$bin/genwright" apply
"$bin/genwright" report
"$bin/python" judge.py
printf '\n== done in %s min %s s\n' $((SECONDS / 60)) $((SECONDS % 60))
