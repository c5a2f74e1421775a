#!/usr/bin/env bash
# Sets up as examples/quickstart.sh does, builds everything and runs all tests that need no rebuild.
#
#   tests/run.sh [ctest options, such as -L unit or -R safetensors]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../examples/setup.sh"

set_up
say "building (the log is $build/build.log)"
cmake --build "$build" >"$build/build.log" 2>&1 || {
  tail -n 30 "$build/build.log" >&2
  die "the build failed; the whole log is $build/build.log"
}
say "testing"
ctest --test-dir "$build" --output-on-failure -LE slow "$@"
