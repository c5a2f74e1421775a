# Set-up that quickstart.sh and ../tests/run.sh share; sourced, not run. Debian 12 or Ubuntu 24.04, as root or with sudo.
# Leaves: the system packages, oneDNN in build/venv (where CUDA is compiled the headers of cuDNN's frontend, too), the trained
# weights in build/weights, build/ configured.
# Every step is skipped where its result is there already.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${VITRINE_BUILD_DIR:-$root/build}

say() { printf '\n== %s\n' "$*"; }
die() { printf 'set-up: %s\n' "$*" >&2; exit 1; }

install_packages() {
  local wanted=(g++ cmake ninja-build ccache python3 python3-venv ca-certificates libgomp1 libopencv-dev libstb-dev nlohmann-json3-dev
    libcli11-dev libfmt-dev catch2 zlib1g-dev libcurl4-openssl-dev libutf8proc-dev libsentencepiece-dev dataset-fashion-mnist)
  local missing=() package
  for package in "${wanted[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || die "needs apt-get (Debian 12, Ubuntu 24.04); elsewhere install by hand: ${missing[*]}"
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "run as root, or install sudo, or have an administrator install: ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# oneDNN and numpy come from PyPI into a virtual environment of their own: Debian's Python refuses to install outside one.
install_onednn() {
  local done_mark=$build/venv/.requirements-$(sha256sum "$root/examples/requirements.txt" | cut -c1-16)
  [ -e "$done_mark" ] && return
  say "installing oneDNN into $build/venv"
  python3 -m venv "$build/venv" || die "python3 -m venv $build/venv failed"
  "$build/venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$root/examples/requirements.txt" ||
    die "pip could not install examples/requirements.txt"
  touch "$done_mark"
}

# Headers that a build with CUDA can do without.
install_cudnn_frontend() {
  local wanted=$root/examples/requirements-cuda.txt
  local done_mark=$build/venv/.requirements-cuda-$(sha256sum "$wanted" | cut -c1-16)
  if [ -e "$done_mark" ]; then return; fi
  say "installing headers of cuDNN's frontend into $build/venv"
  if "$build/venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r "$wanted"; then
    touch "$done_mark"
  else
    say "there are none: the build will have our own kernels only"
  fi
}

install_weights() {
  "$build/venv/bin/python" "$root/weights/convert_focus.py" "$build/weights/vit_small_patch14_focus.safetensors" ||
    die "the photograph model could not be fetched and converted"
}

has_gpu() { [ -e /dev/nvidia0 ] && command -v nvcc >/dev/null; }
wants_cuda() { has_gpu || [[ ${VITRINE_CMAKE_ARGS:-} == *-DVITRINE_CUDA=ON* ]]; }

configure() {
  local cuda=OFF
  has_gpu && cuda=ON
  # shellcheck disable=SC2086  # VITRINE_CMAKE_ARGS holds several words
  cmake -S "$root" -B "$build" -G Ninja -DVITRINE_CUDA=$cuda ${VITRINE_CMAKE_ARGS:-} >"$build/configure.log" 2>&1 || {
    tail -n 20 "$build/configure.log" >&2
    die "cmake failed; the whole log is $build/configure.log"
  }
}

set_up() {
  mkdir -p "$build"
  install_packages
  install_onednn
  if wants_cuda; then install_cudnn_frontend; fi
  install_weights
  configure
}
