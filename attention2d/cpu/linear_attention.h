// The kernels of linear attention: what a run of them needs, as raw pointers and strides (in elements), and their targets.
#pragma once

#include <cstdint>

#include <vitrine/attention2d/cpu/attention.h>
#include <vitrine/attention2d/feature_map.h>
#include <vitrine/layers/cpu/isa.h>

namespace vitrine::cpu {

// Token n of head h of image i is the row of elements at data + i * image + h * head + n * token.
struct HeadsView {
  const void* data = nullptr;
  std::int64_t image = 0, head = 0, token = 0;
};

struct LinearAttentionProblem {
  HeadsView q, k, v, out;
  FloatType type = FloatType::f32;  // of all four
  std::int64_t images = 0, heads = 0, queries = 0, keys = 0, dim = 0, value_dim = 0;
  FeatureMap query_map = FeatureMap::identity, key_map = FeatureMap::identity;
  float feature_scale = 1;
  StateRule rule = StateRule::plain;
  float numerator = 1, denominator = 1, eps = 0;
  const float *key_weights = nullptr, *query_weights = nullptr;  // [images, heads, tokens]; null: 1
  const float *sin = nullptr, *cos = nullptr;                    // [tokens, dim]; null: no rotation
};

// Sums over the tokens of one tensor.
struct FeatureProblem {
  HeadsView x;
  FloatType type = FloatType::f32;
  std::int64_t images = 0, heads = 0, tokens = 0, dim = 0;
  FeatureMap map = FeatureMap::identity;
  const float* weights = nullptr;  // of sums: [images, heads, tokens]; null: 1
  const float* vector = nullptr;   // of dots: [images, heads, dim]
  float* result = nullptr;         // sums: [images, heads, chunks, dim]; dots: [images, heads, tokens]
};

// A run is a sequence of stages, each split into items that any thread may run in any range; a stage begins when the one
// before has ended. Results do not depend on the split.
struct LinearAttentionKernels {
  int (*stages)(const LinearAttentionProblem&);
  std::int64_t (*items)(const LinearAttentionProblem&, int stage);
  std::int64_t (*state_floats)(const LinearAttentionProblem&);     // shared by all stages and threads, 64-byte aligned
  std::int64_t (*workspace_bytes)(const LinearAttentionProblem&);  // of one thread, 64-byte aligned
  void (*run)(const LinearAttentionProblem&, int stage, std::int64_t begin, std::int64_t end, float* states, void* workspace);

  std::int64_t (*feature_chunks)(const FeatureProblem&);  // items of either are images x chunks x heads
  std::int64_t (*feature_workspace_bytes)(const FeatureProblem&);
  void (*feature_sums)(const FeatureProblem&, std::int64_t begin, std::int64_t end, void* workspace);
  void (*feature_dots)(const FeatureProblem&, std::int64_t begin, std::int64_t end, void* workspace);

  // x <- |u| u^power / |u^power| with u = (relu(x + added) + 1e-6) inverse_scale, one row. added: null, or as inverse_scale
  // [channels]; workspace [channels].
  void (*focus)(void* x, FloatType type, std::int64_t channels, const float* added, const float* inverse_scale, float power,
                float* workspace);
};

VITRINE_KERNEL_TABLE(LinearAttentionKernels, linear_attention_kernels)

// All stages on the threads of the current context.
void linear_attention(Isa isa, const LinearAttentionProblem& problem);

}  // namespace vitrine::cpu
