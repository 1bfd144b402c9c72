#!/bin/sh
# Makes the environment of the peers that our benchmarks compare with (`.venv-peers` at the repository's root): PyTorch in a Python
# environment, and where there is a cargo the program `burn_step`.
# Usage: benches/peers/setup.sh. Nothing in the build or the tests needs it.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
venv="$root/.venv-peers"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
# A CPU-only wheel is enough; the default index may only have the larger one, which works as well.
"$venv/bin/pip" install --disable-pip-version-check --timeout 120 --retries 10 torch numpy
"$venv/bin/python" -c 'import torch; print("torch", torch.__version__, "threads", torch.get_num_threads())'
if command -v cargo >/dev/null; then
    # Burn has no run-time choice of instructions for most of its operations: build for this processor.
    RUSTFLAGS="-C target-cpu=native" cargo build --release --locked --manifest-path "$root/benches/peers/burn_step/Cargo.toml" \
        --target-dir "$venv/burn"
    # A new file, because a running program cannot be overwritten.
    cp "$venv/burn/release/burn_step" "$venv/bin/burn_step.new"
    mv "$venv/bin/burn_step.new" "$venv/bin/burn_step"
else
    echo "no cargo: burn-flex is left out" >&2
fi
