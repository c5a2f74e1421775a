#!/usr/bin/env bash
# From a clean Debian 12 or Ubuntu 24.04 machine to pictures: sets up, builds, segments the photographs of
# examples/images, classifies its clothes and draws ten more. Run it again at any time: what is done is not done again.
#
#   examples/quickstart.sh [OUTPUT FOLDER]        default: quickstart-output
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
out=${1:-quickstart-output}

set_up
say "building (the log is $build/build.log)"
cmake --build "$build" --target vitrine_command >"$build/build.log" 2>&1 || {
  tail -n 30 "$build/build.log" >&2
  die "the build failed; the whole log is $build/build.log"
}

say "what in the photographs draws the eye?"
"$build/vitrine" segment "$root"/examples/images/*.png "$root"/examples/images/*.jpg --out "$out"

say "which clothes are these?"
"$build/vitrine" classify "$root/examples/images/clothes" --topk 2

say "and ten that nobody has made"
"$build/vitrine" generate --class all --seed 1 --zoom 4 --out "$out/drawn.png"

say "done"
printf 'pictures to look at: %s\n' "$(cd "$out" && pwd)"
ls "$out"/*.overlay.png "$out"/drawn.png
printf 'the command:         %s --help\n' "$build/vitrine"
