#!/bin/sh
# Everything that wants an accelerator, on one GPU, within eight minutes; writes docs/gpu.md. No network is needed.
#
#     sh benchmarks/gpu.sh                          # PYTHON=/path/to/python3 picks the interpreter
#     sh benchmarks/gpu.sh --device cpu --quick     # the same on tiny trunks without a GPU: prints the page
set -eu
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
PYTHONPATH=src HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false exec "$PYTHON" benchmarks/gpu/check.py "$@"
