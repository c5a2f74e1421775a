#!/usr/bin/env bash
# Installs the build into a prefix, moves the prefix, takes the build folder out of sight, and builds and runs an example
# against what was installed: nothing of the build or the source tree may be needed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${VITRINE_BUILD_DIR:-$root/build}
work=$(mktemp -d)
hidden=$build.hidden-for-package-test
# shellcheck disable=SC2317  # called by the trap
clean() {
  [ -d "$hidden" ] && mv "$hidden" "$build"
  rm -rf "$work"
}
trap clean EXIT
fail() { echo "package test: $*" >&2; exit 1; }

cmake --install "$build" --prefix "$work/first" >"$work/install.log" || { cat "$work/install.log"; fail "cmake --install failed"; }
mv "$work/first" "$work/moved prefix"
prefix="$work/moved prefix"
mv "$build" "$hidden"

[ "$(find "$prefix" -name 'libdnnl*' | wc -l)" = 1 ] || fail "not one copy of oneDNN: $(find "$prefix" -name 'libdnnl*')"
[ -s "$prefix/share/doc/vitrine/onednn-LICENSE" ] || fail "oneDNN's licence is not installed"
[ -s "$prefix/share/doc/vitrine/NOTICE" ] || fail "NOTICE is not installed"
if grep -rlF "$build" "$prefix/lib/cmake" "$prefix/include" 2>/dev/null; then fail "installed files name the build folder"; fi
for file in "$prefix/bin/vitrine" "$prefix"/lib/*.so; do
  if readelf -d "$file" | grep -E 'R(UN)?PATH' | grep -qF "$root"; then fail "$file has a path of this machine in its RPATH"; fi
done

cmake -S "$root/examples" -B "$work/examples" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release >"$work/configure.log" ||
  { cat "$work/configure.log"; fail "find_package(vitrine) failed"; }
cmake --build "$work/examples" >"$work/build.log" || { cat "$work/build.log"; fail "the example does not build against the package"; }
"$work/examples/example_classify" "$root/examples/images/clothes/bag.png" | tee "$work/out"
grep -q Bag "$work/out" || fail "example_classify did not recognise the bag"
"$prefix/bin/vitrine" classify "$root/examples/images/clothes/sandal.png" --topk 1 --quiet | tee "$work/out"
grep -q Sandal "$work/out" || fail "the installed command did not recognise the sandal"
# The same with the data elsewhere, named by VITRINE_DATA.
mv "$prefix/share/vitrine" "$work/data"
VITRINE_DATA="$work/data" "$prefix/bin/vitrine" classify "$root/examples/images/clothes/sandal.png" --quiet >/dev/null || fail "VITRINE_DATA is not honoured"
echo "package test: passed"
