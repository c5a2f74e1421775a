#!/usr/bin/env bash
# All the work for a GPU in one go, for a machine that has one and a CUDA toolkit: builds for its architecture (or takes a build that
# was carried there), runs the tests and reference cases on it in f32, f16 and bf16, NVIDIA's checkers on a small set, and the
# benchmarks beside PyTorch. Results are files in OUT, with the GPU named.
#
#   tests/gpu.sh OUT                     builds in build/gpu, needs the set-up of tests/run.sh
#   tests/gpu.sh --pack FILE.tar.xz      on a machine that has built for the GPU's architecture: what the other one lacks, in one file
#   tests/gpu.sh --packed FILE.tar.xz OUT
#
# Every part runs, whatever failed before it; the exit status is 1 where one did.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
shared=${VITRINE_SHARED_DIR:-$root/../shared}

die() { printf 'gpu.sh: %s\n' "$*" >&2; exit 1; }

# The command, the tests, the libraries that they need and a GPU machine may lack, the models and the reference cases.
pack() {
  local file=$1 build=$root/build folder wanted
  for wanted in vitrine test_cuda_gpu libvitrine_cuda.so; do
    [ -e "$build/$wanted" ] || die "build/$wanted is not there: cmake --build build first"
  done
  folder=$(mktemp -d) || die "no temporary folder"
  mkdir -p "$folder/lib" "$folder/data" "$folder/shared"
  cp "$build/vitrine" "$build/test_cuda_gpu" "$folder/"
  cp -L "$build/libvitrine.so.0" "$build/libvitrine_cuda.so" "$folder/lib/"
  # All but what every machine with a driver has, and the toolkit's large ones.
  ldd "$build/vitrine" "$build/test_cuda_gpu" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libdl|libpthread|librt|ld-linux[^/]*|libcuda|libcublas[^/]*|libvitrine[^/]*)\.so' |
    xargs -I{} cp -L {} "$folder/lib/"
  strip --strip-debug "$folder"/lib/*.so* "$folder/vitrine" "$folder/test_cuda_gpu" 2>/dev/null
  cp -r "$root/weights/shipped" "$folder/data/weights"
  cp -r "$root/weights/labels" "$folder/data/labels"
  for wanted in goldens images; do
    [ -d "$shared/$wanted" ] && cp -r "$shared/$wanted" "$folder/shared/"
  done
  tar -C "$folder" -cJf "$file" . || die "$file could not be written"
  rm -rf "$folder"
  ls -l "$file"
}

if [ "${1:-}" = --pack ]; then
  [ $# = 2 ] || die "usage: tests/gpu.sh --pack FILE.tar.xz"
  pack "$2"
  exit
fi
packed=
if [ "${1:-}" = --packed ]; then
  [ $# = 3 ] || die "usage: tests/gpu.sh --packed FILE.tar.xz OUT"
  packed=$2
  shift 2
fi
out=${1:-}
[ -n "$out" ] || die "usage: tests/gpu.sh [--packed FILE.tar.xz] OUT"
mkdir -p "$out" || die "$out cannot be made"
command -v nvidia-smi >/dev/null || die "there is no nvidia-smi: this is for a machine with a GPU"
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -n 1)
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
[ -n "$gpu" ] || die "nvidia-smi names no GPU"
date -u "+%F, $gpu" | tee "$out/machine.txt"

if [ -n "$packed" ]; then
  bin=$(mktemp -d)
  tar -C "$bin" -xf "$packed" || die "$packed cannot be unpacked"
  export VITRINE_DATA=$bin/data VITRINE_SHARED_DIR=$bin/shared
  shared=$bin/shared
  # cuBLASLt and cuDNN: of the toolkit, or of PyTorch's packages.
  export LD_LIBRARY_PATH=$bin/lib:${LD_LIBRARY_PATH:-}
  for library in libcublasLt.so.1 libcudnn.so.9; do
    found=$(ldconfig -p | awk -v name="$library" 'index($1, name) {print $NF; exit}')
    [ -n "$found" ] || found=$(find / -name "$library*" -not -path '/proc/*' 2>/dev/null | head -n 1)
    LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$(dirname "${found:-/none}")
  done
else
  bin=$root/build/gpu
  arch=$capability
  [ "$capability" = 90 ] && arch=90a
  cmake -S "$root" -B "$bin" -G Ninja -DVITRINE_CUDA=ON -DVITRINE_CUDA_ARCHITECTURES="$arch" -DVITRINE_BUILD_EXAMPLES=OFF \
    -DCMAKE_PREFIX_PATH="$root/build/venv" >"$out/build.log" 2>&1 &&
    cmake --build "$bin" --target vitrine_command vitrine_cuda test_cuda_gpu >>"$out/build.log" 2>&1 || die "the build failed: $out/build.log"
fi

failed=()
started=$SECONDS
# part NAME SECONDS COMMAND...: its output in OUT/NAME.txt.
part() {
  local name=$1 limit=$2
  shift 2
  printf '\n== %s (after %d s)\n' "$name" $((SECONDS - started))
  timeout "$limit" "$@" >"$out/$name.txt" 2>&1 || failed+=("$name")
  tail -n 6 "$out/$name.txt"
}

part info 30 "$bin/vitrine" info --device cuda
part tests 150 "$bin/test_cuda_gpu"
# What cuDNN took of these.
VITRINE_CUDNN=0 part tests_own 60 "$bin/test_cuda_gpu" "global attention*,attention with*,convolutions*"
for cases in attention backbones generation; do
  for dtype in f32 f16 bf16; do
    [ -e "$shared/goldens/$cases/cases.json" ] &&
      part "verify_${cases}_$dtype" 60 "$bin/vitrine" verify "$shared/goldens/$cases/cases.json" --device cuda --dtype "$dtype"
  done
done
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    VITRINE_CUDNN=0 part "sanitizer_$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 1 "$bin/test_cuda_gpu" "global attention on the device,*for 9.0"
  done
fi
python=${VITRINE_PYTHON:-python3}
peers=$root/../shared/peers
ours="$bin/vitrine benchmark {case} --dtype {dtype} --batch-size {batch} --seconds {seconds} --device cuda --json"
# peers SCRIPT NAME SECONDS OPTIONS...: the shared peers and ours in turns.
peers() {
  local script=$1 name=$2 limit=$3
  shift 3
  [ -e "$peers/$script.py" ] &&
    part "$name" "$limit" "$python" "$peers/$script.py" --device cuda --dtype bf16 --seconds 1 --rounds 2 --exec "$ours" --exec-name ours \
      --json "$out/$name.json" "$@"
}
if "$python" -c 'import torch, timm; assert torch.cuda.is_available()' 2>/dev/null; then
  part bench_models 150 "$python" "$root/tests/bench/gpu_models.py" --vitrine "$bin/vitrine" --out "$out/bench_models.md"
  # Neighborhoods beside flex attention and beside our own kernels for all GPUs; what full attention takes at the same size.
  peers bench_attention bench_neighborhoods 90 --peers flex --exec "$ours --impl cuda_tiles" --exec-name tiles \
    --cases na2d_256x256_h24_d128_k80,na1d_32768_h1_d128_k2047,na2d_64x64_h4_d64_k13,na3d_16x28x28_h2_d64_k7,na2d_56x56_h2_d32_k7
  peers bench_attention bench_full 60 --peers eager --exec "$ours --impl cuda_sm90" --exec-name sm90 --exec "$ours --impl cuda_flash" \
    --exec-name flash --cases sdpa_h24_n65536_d128,sdpa_h1_n32768_d128,sdpa_h12_n197_d64,sdpa_h24_n4608_d128
  peers bench_attention bench_layers 90 --peers compile \
    --cases swin_56x56_c96_h3_w7_s3,bra_56x56_c64_h2_p7_t1,agent_56x56_c96_h3_a7,hilo_28x28_c192_h6_w2_a5,linear_n4096_c384_h12
  peers bench_generation bench_dit 60 --peers compile --only '^dit_xl_2$' --batch 1
else
  printf '\nno PyTorch with timm that sees the GPU: only our own times\n'
  for model in vit_base_patch16_224 swin_tiny_patch4_window7_224 nat_mini dit_xl_2; do
    part "bench_$model" 40 "$bin/vitrine" benchmark "$model" --device cuda --dtype bf16 --batch-size 64 --seconds 3
  done
  for impl in cuda_sm90 cuda_tiles; do
    part "bench_neighborhoods_$impl" 40 "$bin/vitrine" benchmark na2d_256x256_h24_d128_k80 na1d_32768_h1_d128_k2047 --impl "$impl" --device cuda \
      --dtype bf16 --seconds 1
  done
  for impl in cuda_cudnn cuda_sm90 cuda_flash; do
    part "bench_full_$impl" 40 "$bin/vitrine" benchmark sdpa_h24_n65536_d128 sdpa_h1_n32768_d128 --impl "$impl" --device cuda --dtype bf16 \
      --seconds 1
  done
fi

printf '\n== %d s; ' $((SECONDS - started))
if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failed[*]}" | tee "$out/failed.txt"
  exit 1
fi
printf 'all parts passed\n'
