#!/usr/bin/env bash
# Builds with the address and undefined-behaviour sanitizers and runs the unit and robustness tests.
# Needs the set-up of tests/run.sh to have run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${VITRINE_BUILD_DIR:-$root/build}
# -Og: half the time of -O1 to compile, and no slower to test.
cmake -S "$root" -B "$build/sanitize" -G Ninja -DVITRINE_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-Og -g1" \
  -DVITRINE_CUDA=OFF -DVITRINE_BUILD_EXAMPLES=OFF -DCMAKE_PREFIX_PATH="$build/venv" >/dev/null
which=(-L 'unit|robustness' -LE slow)
# A test NAME is the target test_NAME: vitrine_test in tests/CMakeLists.txt.
mapfile -t tests < <(ctest --test-dir "$build/sanitize" "${which[@]}" -N | sed -n 's/^ *Test *#[0-9]*: */test_/p')
cmake --build "$build/sanitize" --target "${tests[@]}"
ctest --test-dir "$build/sanitize" "${which[@]}" --output-on-failure
