// y = gate act(x W^T + b) + residual for one thread: register blocks over packed panels of W.
//
//            one panel: 3 vectors (48 columns with AVX-512)
//             +-----+            A panel holds, for each k, its columns' weights in a row. bf16 weights are in pairs of k.
//        k    |  W  |  <- a slice of at most kSteps k stays in the L2 cache while all rows of a chunk pass
//             +-----+
//   +-----+   +-----+
//   |  x  |   |sums |  <- a block of kRows rows x 3 vectors is in registers: for each k, 3 loads of W and kRows broadcasts
//   +-----+   +-----+     of x feed 3 kRows multiply-adds
//
// While a slice is in use, the next one is fetched into L2, a line every few k: a model's weights come from memory once a
// batch, and would otherwise be waited for (vit_base, f32, 197 rows: 84% of the peak without, 94% with).
//
// int8 weights are packed alike. A slice of them is widened to x's type before the rows of a chunk pass over it, which is exact
// (bf16 has 8 bits); the columns' scales multiply the finished sums.
#include <vitrine/layers/cpu/linear_kernels.h>

#include <vitrine/layers/cpu/activations.h>
#include <vitrine/layers/cpu/vectors.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

#if defined(VITRINE_TARGET_AVX512)
constexpr int kRows = 8, kPanel = 3;  // 24 of the 32 registers are sums
#elif defined(VITRINE_TARGET_AVX2)
constexpr int kRows = 4, kPanel = 3;  // 12 of 16
#else
constexpr int kRows = 4, kPanel = 2;
#endif
constexpr i64 kSteps = 768;  // of a slice: 147 KB with AVX-512
constexpr i64 kChunk = 200;  // rows that pass over a slice, so that their part of x stays in L2 too

// A step multiplies 4 bytes of each row of x: one float, or two bf16.
struct FloatStep {
  using Element = float;
  static constexpr int kValues = 1;
  static Vf broadcast(const char* x) { return set1(*reinterpret_cast<const float*>(x)); }
  static Vf broadcast_last(const char* x) { return broadcast(x); }
  static Vf multiply_add(Vf x, Vf w, Vf sum) { return fma(x, w, sum); }
  static constexpr i64 kWidened = Vf::kLanes;  // values at a time
  static void widen(const std::int8_t* from, float* to) { store(to, load_i8(from)); }
};

#if defined(VITRINE_TARGET_BF16)
struct Bf16Step {
  using Element = Bf16;
  static constexpr int kValues = 2;
  static Vf broadcast(const char* x) {
    std::int32_t pair;
    __builtin_memcpy(&pair, x, 4);
    return {_mm512_castsi512_ps(_mm512_set1_epi32(pair))};
  }
  static Vf broadcast_last(const char* x) {  // a row of an odd number of values ends in half a pair
    std::uint16_t value;
    __builtin_memcpy(&value, x, 2);
    return {_mm512_castsi512_ps(_mm512_set1_epi32(value))};
  }
  static Vf multiply_add(Vf x, Vf w, Vf sum) {
    return {_mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(x.v), reinterpret_cast<__m512bh>(w.v))};
  }
  static constexpr i64 kWidened = 2 * Vf::kLanes;
  static void widen(const std::int8_t* from, float* to) {
    _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load_i8(from + Vf::kLanes).v, load_i8(from).v)));
  }
};
#endif

inline void prefetch_near(const void* p) { __builtin_prefetch(p, 0, 3); }
inline void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }
inline void prefetch_write(const void* p) { __builtin_prefetch(p, 1, 3); }

// The factors of the block's columns, as its rows pass from one image to the next.
struct Gate {
  const float* at;  // null: none
  i64 left;         // rows of the image from here on
  i64 rows, stride;
  // Factors of the next row.
  inline const float* next() {
    if (left == 0) {
      at += stride;
      left = rows;
    }
    --left;
    return at;
  }
};

// A slice of a panel and the rows that pass over it.
struct Slice {
  const char* x;  // first row of the block
  i64 x_stride;
  const float* w;
  i64 steps;
  bool half_step;      // one more step, of half a pair
  const float* bias;   // what sums start from; null: from `sums`
  const float* scale;  // of the columns, for int8 weights; null: none
  float* sums;         // [rows, columns of a whole panel]
  void* y;             // where a whole block without activation goes straight from the registers; null: to sums
  const void* residual;
  i64 y_stride;
  Gate gate;
  const char* next;    // prefetched, a line every four steps; null: nothing
  const char* next_x;  // likewise the rows of the next block, two lines every four steps
};

template <typename Step, int R, int V>
[[gnu::noinline]] void block(const Slice& s) {
  constexpr i64 kLanes = Vf::kLanes, kStride = kPanel * kLanes;
  Vf sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = load(s.bias ? s.bias + v * kLanes : s.sums + r * kStride + v * kLanes);
  }
  const char* x = s.x;
  const float* w = s.w;
  const i64 x_stride = s.x_stride;
  const auto step = [&](auto broadcast, i64 u) __attribute__((always_inline)) {
    Vf b[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) b[v] = load(w + (u * V + v) * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vf a = broadcast(x + r * x_stride + u * 4);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = Step::multiply_add(a, b[v], sum[r][v]);
    }
  };
  const char *next = s.next, *next_x = s.next_x;
  i64 k = 0;
  for (; k + 4 <= s.steps; k += 4) {
    if (next) {
      prefetch_far(next);
      next += 64;
    }
    if (next_x) {
      prefetch_far(next_x);
      prefetch_far(next_x + x_stride);
      next_x += (k & 12) == 12 ? 64 - 6 * x_stride : 2 * x_stride;
    }
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      if constexpr (kLanes == 16) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) prefetch_near(w + ((u + 8) * V + v) * kLanes);
      }
      step(Step::broadcast, u);
    }
    x += 16;
    w += 4 * V * kLanes;
  }
  for (; k < s.steps; ++k) {
    step(Step::broadcast, 0);
    x += 4;
    w += V * kLanes;
  }
  if (s.half_step) step(Step::broadcast_last, 0);
  if (s.y) {
    using T = typename Step::Element;
    T* y = static_cast<T*>(s.y);
    const T* residual = static_cast<const T*>(s.residual);
    Gate gate = s.gate;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const float* factors = gate.at ? gate.next() : nullptr;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        if (s.scale) sum[r][v] = mul(sum[r][v], load(s.scale + v * kLanes));
        if (factors) sum[r][v] = mul(sum[r][v], load(factors + v * kLanes));
        if (residual) sum[r][v] = add(sum[r][v], load(residual + v * kLanes));
        store(y + v * kLanes, sum[r][v]);
      }
      y += s.y_stride;
      if (residual) residual += s.y_stride;
    }
    return;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(s.sums + r * kStride + v * kLanes, sum[r][v]);
  }
}

template <typename Step, int V>
void block_of(int rows, const Slice& s) {
  switch (rows) {
    case 1:
      return block<Step, 1, V>(s);
    case 2:
      return block<Step, 2, V>(s);
    case 3:
      return block<Step, 3, V>(s);
    case 4:
      return block<Step, 4, V>(s);
#if defined(VITRINE_TARGET_AVX512)
    case 5:
      return block<Step, 5, V>(s);
    case 6:
      return block<Step, 6, V>(s);
    case 7:
      return block<Step, 7, V>(s);
    case 8:
      return block<Step, 8, V>(s);
#endif
  }
}

// y = gate act(scale sums) + residual, or act(scale sums + residual)
template <typename Act, typename T>
void finish(const float* sums, const float* scale, i64 rows, i64 columns, T* y, const T* residual, i64 y_stride,
            bool activate_sum, Gate gate) {
  constexpr i64 kStride = kPanel * Vf::kLanes;
  const bool before = residual && activate_sum, after = residual && !activate_sum;
  for (i64 r = 0; r < rows; ++r, sums += kStride, y += y_stride) {
    const float* factors = gate.at ? gate.next() : nullptr;
    for_vectors(columns, [&](i64 c, int n) {
      Vf v = load_lanes(sums + c, n);
      if (scale) v = mul(v, load_lanes(scale + c, n));
      if (before) v = add(v, load_lanes(residual + c, n));
      v = Act::apply(v);
      if (factors) v = mul(v, load_lanes(factors + c, n));
      if (after) v = add(v, load_lanes(residual + c, n));
      store_lanes(y + c, v, n);
    });
    if (residual) residual += y_stride;
  }
}

template <typename T>
using Finish = void (*)(const float* sums, const float* scale, i64 rows, i64 columns, T* y, const T* residual, i64 y_stride,
                        bool activate_sum, Gate gate);

template <typename T>
Finish<T> finish_for(Activation activation) {
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      return finish<Relu, T>;
    case Activation::gelu:
      return finish<FusedGelu<T>, T>;
    case Activation::gelu_tanh:
      return finish<FusedGeluTanh<T>, T>;
    case Activation::quick_gelu:
      return finish<QuickGelu, T>;
    case Activation::silu:
      return finish<Silu, T>;
    case Activation::sigmoid:
      return finish<Sigmoid, T>;
    case Activation::tanh:
      return finish<Tanh, T>;
    case Activation::hardswish:
      return finish<HardSwish, T>;
    case Activation::leaky_relu:
      return finish<LeakyRelu, T>;
  }
  return finish<None, T>;
}

// The lines that a block will be stored to: asked for before its sums are made, they are there after.
template <typename T>
void fetch_results(const T* y, i64 rows, i64 columns, i64 y_stride) {
  for (i64 r = 0; r < rows; ++r)
    for (i64 c = 0; c < columns; c += static_cast<i64>(64 / sizeof(T))) prefetch_write(y + r * y_stride + c);
}

inline i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }

template <typename Step, bool kInt8 = false>
void run(const LinearTile& t) {
  using T = typename Step::Element;
  constexpr i64 kLanes = Vf::kLanes, kStepBytes = kInt8 ? Step::kValues : 4;  // of a column
  alignas(64) float sums[kChunk * kPanel * kLanes];
  alignas(64) float widened[kInt8 ? kSteps * kPanel * kLanes : 1];  // a slice
  const i64 vectors = ceil_div(t.out, kLanes), panels = ceil_div(vectors, kPanel);
  const i64 whole = t.in / Step::kValues;            // steps
  const i64 packed = ceil_div(t.in, Step::kValues);  // with the half one
  const i64 slices = ceil_div(packed, kSteps), rows = t.row_end - t.row_begin, chunks = ceil_div(rows, kChunk);
  const Finish<T> finish_block = finish_for<T>(t.activation);
  const auto panel_at = [&](i64 p) {
    return static_cast<const char*>(t.weight) + vectors * p / panels * packed * kLanes * kStepBytes;
  };
  for (i64 chunk = 0; chunk < chunks; ++chunk) {
    const i64 begin = t.row_begin + rows * chunk / chunks, end = t.row_begin + rows * (chunk + 1) / chunks;
    const i64 blocks = ceil_div(end - begin, kRows);
    for (i64 p = t.panel_begin; p < t.panel_end; ++p) {
      const i64 first = vectors * p / panels, width = vectors * (p + 1) / panels - first;
      const i64 columns = t.out - first * kLanes < width * kLanes ? t.out - first * kLanes : width * kLanes;
      const bool straight = t.activation == Activation::none && columns == width * kLanes;
      for (i64 slice = 0; slice < slices; ++slice) {
        const i64 k = packed * slice / slices, k_end = packed * (slice + 1) / slices;
        const bool last = slice + 1 == slices;
        // Slices and panels follow each other in memory; after a chunk's last one its first is needed again.
        const char* next = panel_at(p) + k_end * width * kLanes * kStepBytes;
        if (last && p + 1 == t.panel_end) next = chunk + 1 < chunks ? panel_at(t.panel_begin) : nullptr;
        const i64 lines = (k_end - k) * width * kLanes * kStepBytes / 64,
                  fetched = (k_end - k) / 4;  // of the next slice; by a block
        const char* weights = panel_at(p) + k * width * kLanes * kStepBytes;
        if constexpr (kInt8) {
          const auto* from = reinterpret_cast<const std::int8_t*>(weights);
          for (i64 i = 0; i < (k_end - k) * width * kLanes * Step::kValues; i += Step::kWidened)
            Step::widen(from + i, widened + i / Step::kValues);
          weights = reinterpret_cast<const char*>(widened);
        }
        for (i64 b = 0; b < blocks; ++b) {
          const i64 r = begin + (end - begin) * b / blocks, r_end = begin + (end - begin) * (b + 1) / blocks;
          const i64 at = r * t.y_stride + first * kLanes;
          T* y = static_cast<T*>(t.y) + at;
          const T* residual = t.residual ? static_cast<const T*>(t.residual) + at : nullptr;
          const char* x = static_cast<const char*>(t.x) + r * t.x_stride + k * 4;
          Gate gate{nullptr, 0, t.gate_rows, t.gate_stride};
          if (t.gate && last) {
            const i64 image = (t.first_row + r) / t.gate_rows;
            gate.at = t.gate + image * t.gate_stride + first * kLanes;
            gate.left = (image + 1) * t.gate_rows - t.first_row - r;
          }
          const Slice s{.x = x,
                        .x_stride = t.x_stride,
                        .w = reinterpret_cast<const float*>(weights),
                        .steps = (last ? whole : k_end) - k,
                        .half_step = last && whole < packed,
                        .bias = slice == 0 ? t.bias + first * kLanes : nullptr,
                        .scale = kInt8 ? t.scale + first * kLanes : nullptr,
                        .sums = slices == 1 ? sums : sums + (r - begin) * kPanel * kLanes,
                        .y = last && straight ? y : nullptr,
                        .residual = residual,
                        .y_stride = t.y_stride,
                        .gate = gate,
                        .next = next && b * fetched < lines ? next + b * fetched * 64 : nullptr,
                        .next_x = p == t.panel_begin && r_end < end ? x + (r_end - r) * t.x_stride : nullptr};
          if (last) fetch_results(y, r_end - r, columns, t.y_stride);
          switch (width) {
            case 1:
              block_of<Step, 1>(static_cast<int>(r_end - r), s);
              break;
            case 2:
              block_of<Step, 2>(static_cast<int>(r_end - r), s);
              break;
            default:
              block_of<Step, kPanel>(static_cast<int>(r_end - r), s);
              break;
          }
          if (last && !straight) finish_block(s.sums, s.scale, r_end - r, columns, y, residual, t.y_stride, t.activate_sum, gate);
        }
      }
    }
  }
}

constexpr LinearKernels kTable {
  Vf::kLanes, kPanel,
#if defined(VITRINE_TARGET_BF16)
      2, run<FloatStep>, run<Bf16Step>, run<FloatStep, true>, run<Bf16Step, true>,
#else
      0, run<FloatStep>, nullptr, run<FloatStep, true>, nullptr,
#endif
};

}  // namespace

const LinearKernels& linear_kernels() { return kTable; }

}  // namespace vitrine::cpu::VITRINE_TARGET
