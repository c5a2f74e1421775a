#!/usr/bin/env bash
# Builds with the address and undefined-behaviour sanitizers and runs the unit and robustness tests.
# Needs the set-up of tests/run.sh to have run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${VITRINE_BUILD_DIR:-$root/build}
cmake -S "$root" -B "$build/sanitize" -G Ninja -DVITRINE_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-O1 -g1" \
  -DVITRINE_CUDA=OFF -DVITRINE_BUILD_EXAMPLES=OFF -DCMAKE_PREFIX_PATH="$build/venv" >/dev/null
cmake --build "$build/sanitize"
ctest --test-dir "$build/sanitize" -L 'unit|robustness' -LE slow --output-on-failure
