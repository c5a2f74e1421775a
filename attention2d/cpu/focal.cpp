// Focal modulation's gathering in one pass: it is bound by reading the levels, each of which is read once.
#include <vitrine/attention2d/cpu/focal.h>

#include <vitrine/attention2d/cpu/tile.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

constexpr i64 kTokens = 16;  // of an item

inline i64 items_of_image(const FocalProblem& p) { return (p.tokens + kTokens - 1) / kTokens; }

template <typename T>
void gather(const FocalProblem& p, i64 image, i64 token, float* gates) {
  const i64 row = image * p.tokens + token;
  const T* stored = static_cast<const T*>(p.gates) + row * (p.levels + 1);
  for (i64 l = 0; l <= p.levels; l += kLanes) {
    const int n = p.levels + 1 - l < kLanes ? static_cast<int>(p.levels + 1 - l) : kLanes;
    store_part(gates + l, mul(load_part(stored + l, n), set1(p.scale)), n);
  }
  const T* whole = static_cast<const T*>(p.whole) + image * p.channels;
  T* out = static_cast<T*>(p.out) + row * p.channels;
  for (i64 c = 0; c < p.channels; c += kLanes) {
    const int n = p.channels - c < kLanes ? static_cast<int>(p.channels - c) : kLanes;
    Vf sum = mul(load_part(whole + c, n), set1(gates[p.levels]));
    for (i64 l = 0; l < p.levels; ++l)
      sum = fma(load_part(static_cast<const T*>(p.level[l]) + row * p.channels + c, n), set1(gates[l]), sum);
    store_part(out + c, sum, n);
  }
}

template <typename T>
void run_typed(const FocalProblem& p, i64 begin, i64 end, float* gates) {
  const i64 pieces = items_of_image(p);
  for (i64 item = begin; item < end; ++item) {
    const i64 image = item / pieces, first = item % pieces * kTokens;
    for (i64 token = first; token < first + kTokens && token < p.tokens; ++token) gather<T>(p, image, token, gates);
  }
}

i64 items(const FocalProblem& p) { return p.images * items_of_image(p); }

i64 workspace_bytes(const FocalProblem& p) { return (p.levels + 1) * static_cast<i64>(sizeof(float)); }

void run(const FocalProblem& p, i64 begin, i64 end, void* workspace) {
  float* gates = static_cast<float*>(workspace);
  switch (p.type) {
    case FloatType::f32:
      return run_typed<float>(p, begin, end, gates);
    case FloatType::bf16:
      return run_typed<Bf16>(p, begin, end, gates);
    case FloatType::f16:
      return run_typed<F16>(p, begin, end, gates);
  }
}

}  // namespace

FocalKernel focal_kernel() { return {items, workspace_bytes, run}; }

}  // namespace vitrine::cpu::VITRINE_TARGET
