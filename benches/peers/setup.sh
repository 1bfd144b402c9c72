#!/bin/sh
# Makes the Python environment of the peers that our benchmarks compare with (`.venv-peers` at the repository's root).
# Usage: benches/peers/setup.sh. Nothing in the build or the tests needs it.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
venv="$root/.venv-peers"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
# A CPU-only wheel is enough; the default index may only have the larger one, which works as well.
"$venv/bin/pip" install --disable-pip-version-check --timeout 120 --retries 10 torch numpy
"$venv/bin/python" -c 'import torch; print("torch", torch.__version__, "threads", torch.get_num_threads())'
