// Linear attention: states S = sum_j w_j phi(k_j) v_j^T of chunks of tokens, one sum of them, queries times that.
//
//                  tokens, 32 a step                    a block makes a piece of a state, or of outputs, side x side numbers in
//              +---------------------+                  16 x 16 threads; features are computed as their rows come into shared
//    features  | phi(k)^T  in shared |  x  V  = S       memory, so that phi is never written out
//              +---------------------+
//
// Sums are f32 in all types, chunks are summed in a fixed order. What bounds it: for heads of 32 channels reading k, v, q and
// writing out (16 operations a byte in 16 bits, about what f32 units do in the time of memory); wider heads the f32 units.
#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/math.h>

namespace vitrine::cuda {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kSide = 16, kStep = 32;

// Rows of a tensor [B, L, heads, D].
struct Rows {
  std::int64_t image, token, head, heads, tokens, dim;

  VITRINE_DEVICE std::int64_t at(std::int64_t part, std::int64_t n) const {  // part: image x heads + head
    return part / heads * image + part % heads * head + n * token;
  }
};
Rows rows_of(const Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2), x.size(2), x.size(1), x.size(3)}; }
std::int64_t parts_of(const Tensor& x) { return x.size(0) * x.size(2); }

// What features of a tensor are made of.
struct Features {
  Rows rows;
  FeatureMap map;
  float scale;
  std::int64_t count;
  const float* statistics;  // of a softmax: largest and 1 / sum, by token or channel
  const float *sin, *cos;   // [tokens, dim] or null
  const float* weights;     // [parts, tokens] or null
};

// One feature: a channel, or for taylor maps 1, a channel, the product of two.
struct Feature {
  std::int64_t a, b;  // channels; below zero: none
  float factor;
};
VITRINE_DEVICE Feature feature_at(const Features& p, std::int64_t f) {
  if (p.map != FeatureMap::taylor1 && p.map != FeatureMap::taylor2) return {f, -1, 1.0f};
  if (f <= p.rows.dim) return {f - 1, -1, 1.0f};
  // Pairs a <= b in the order of b (b + 1) / 2 + a. A pair of two counts twice, for which both sides have sqrt(1/2) sqrt(2).
  const auto r = static_cast<std::int64_t>(f - 1 - p.rows.dim);
  auto b = static_cast<std::int64_t>((sqrt_of(8.0f * static_cast<float>(r) + 1.0f) - 1.0f) * 0.5f);
  while (b * (b + 1) / 2 > r) --b;
  while ((b + 1) * (b + 2) / 2 <= r) ++b;
  const std::int64_t a = r - b * (b + 1) / 2;
  return {a, b, a == b ? 0.70710678118654752f : 1.0f};
}

// phi's value of the channel whose scaled value is x.
VITRINE_DEVICE float mapped(const Features& p, std::int64_t part, std::int64_t n, std::int64_t channel, float x) {
  switch (p.map) {
    case FeatureMap::relu:
      return x > 0.0f ? x : 0.0f;
    case FeatureMap::elu1:
      return x > 0.0f ? x + 1.0f : exp_of(x);
    case FeatureMap::leaky_relu:
      return x < 0.0f ? 0.01f * x : x;
    case FeatureMap::exp:
      return exp_of(x);
    case FeatureMap::sigmoid:
      return logistic(x);
    case FeatureMap::channel_softmax: {
      const float* of_token = p.statistics + 2 * (part * p.rows.tokens + n);
      return exp_of(x - of_token[0]) * of_token[1];
    }
    case FeatureMap::token_softmax: {
      const float* of_channel = p.statistics + 2 * (part * p.rows.dim + channel);
      return exp_of(x - of_channel[0]) * of_channel[1];
    }
    default:
      return x;
  }
}

struct Value {
  float plain, turned;  // without and with the rotation
};
// Of token n, whose row begins at x.
template <typename T>
VITRINE_DEVICE Value value_at(const Features& p, const T* x, std::int64_t part, std::int64_t n, const Feature& f) {
  if (f.a < 0) return {1.0f, 1.0f};
  const float first = mapped(p, part, n, f.a, to_float(x[f.a]) * p.scale);
  if (f.b >= 0) {
    const float product = first * to_float(x[f.b]) * p.scale * f.factor;
    return {product, product};
  }
  if (!p.sin) return {first, first};
  const std::int64_t partner = f.a ^ 1, at = n * p.rows.dim + f.a;
  const float other = mapped(p, part, n, partner, to_float(x[partner]) * p.scale);
  return {first, first * p.cos[at] + (f.a % 2 == 0 ? -other : other) * p.sin[at]};
}

// --- statistics of softmax maps ------------------------------------------------------------------------------------------------

// Largest and sum of e^(x - largest), as they go on.
struct SoftmaxSum {
  float largest, sum;

  VITRINE_DEVICE void add(const SoftmaxSum& o) {
    const float next = larger(o.largest, largest);
    if (next == -infinity()) return;
    sum = sum * exp_of(largest - next) + o.sum * exp_of(o.largest - next);
    largest = next;
  }
};

// A warp a token.
template <typename T>
VITRINE_KERNEL(kThreads)
void channel_statistics_kernel(Rows r, std::int64_t parts, float scale, const T* x, float* statistics) {
  const std::int64_t i = std::int64_t{block_index().x} * kWarps + warp_index();
  if (i >= parts * r.tokens) return;
  const T* row = x + r.at(i / r.tokens, i % r.tokens);
  SoftmaxSum mine{-infinity(), 0.0f};
  for (std::int64_t c = lane_index(); c < r.dim; c += kWarp) mine.add({to_float(row[c]) * scale, 1.0f});
  const float largest = warp_max(mine.largest);
  const float sum = warp_sum(mine.sum == 0.0f ? 0.0f : mine.sum * exp_of(mine.largest - largest));
  if (lane_index() == 0) {
    statistics[2 * i] = largest;
    statistics[2 * i + 1] = 1.0f / sum;
  }
}

// A block a head and 32 channels, a lane a channel; warps share the tokens.
template <typename T>
VITRINE_KERNEL(kThreads)
void token_statistics_kernel(Rows r, float scale, const T* x, float* statistics) {
  auto* const shared = reinterpret_cast<SoftmaxSum*>(shared_memory());
  const std::int64_t part = block_index().x, channel = std::int64_t{block_index().y} * kWarp + lane_index();
  SoftmaxSum mine{-infinity(), 0.0f};
  if (channel < r.dim)
    for (std::int64_t n = warp_index(); n < r.tokens; n += kWarps) mine.add({to_float(x[r.at(part, n) + channel]) * scale, 1.0f});
  shared[thread_index()] = mine;
  barrier();
  if (warp_index() != 0 || channel >= r.dim) return;
  for (int w = 1; w < kWarps; ++w) mine.add(shared[w * kWarp + lane_index()]);
  statistics[2 * (part * r.dim + channel)] = mine.largest;
  statistics[2 * (part * r.dim + channel) + 1] = 1.0f / mine.sum;
}

// --- states --------------------------------------------------------------------------------------------------------------------

struct StateArgs {
  Features k;
  Rows v;
  std::int64_t feature_tiles, value_tiles, chunk, chunks;
  float *states, *sums, *totals;  // [part][chunk] x [features][values], [features], [values]
};

// sum[r][c] += a[r] b[c] over the rows of a step in two tiles; of each row a thread reads kOwn numbers, kSide apart, its first
// ones at `a` and `b`.
template <int kOwn>
VITRINE_DEVICE void add_products(float (&sum)[kOwn][kOwn], const float* a, const float* b) {
  constexpr int kPitch = kSide * kOwn + 1;
  for (int j = 0; j < kStep; ++j) {
    float left[kOwn], right[kOwn];
    for (int i = 0; i < kOwn; ++i) {
      left[i] = a[j * kPitch + kSide * i];
      right[i] = b[j * kPitch + kSide * i];
    }
    for (int r = 0; r < kOwn; ++r)
      for (int c = 0; c < kOwn; ++c) sum[r][c] += left[r] * right[c];
  }
}

// kOwn: numbers of a side that a thread has, kSide apart.
template <typename T, int kOwn>
VITRINE_KERNEL(kThreads)
void state_kernel(StateArgs p, const T* k, const T* v) {
  constexpr int kTile = kSide * kOwn, kPitch = kTile + 1, kOfLane = kTile / kWarp;
  auto* const phi = reinterpret_cast<float*>(shared_memory());
  float* const values = phi + kStep * kPitch;
  const std::int64_t tiles = p.feature_tiles * p.value_tiles, part = block_index().x / tiles, tile = block_index().x % tiles;
  const std::int64_t first_feature = tile / p.value_tiles * kTile, first_value = tile % p.value_tiles * kTile;
  const std::int64_t chunk = block_index().y, begin = chunk * p.chunk;
  const std::int64_t end = begin + p.chunk < p.k.rows.tokens ? begin + p.chunk : p.k.rows.tokens;
  const int lane = lane_index(), row = thread_index() / kSide, column = thread_index() % kSide;
  Feature feature[kOfLane];
  float sum[kOfLane] = {}, total[kOfLane] = {}, state[kOwn][kOwn] = {};
  for (int i = 0; i < kOfLane; ++i) feature[i] = feature_at(p.k, first_feature + lane + i * kWarp);
  for (std::int64_t first = begin; first < end; first += kStep) {
    barrier();
    for (int j = warp_index(); j < kStep; j += kWarps) {
      const std::int64_t n = first + j;
      const bool is_there = n < end;
      const T* k_row = k + (is_there ? p.k.rows.at(part, n) : 0);
      const T* v_row = v + (is_there ? p.v.at(part, n) : 0);
      const float weight = is_there && p.k.weights ? p.k.weights[part * p.k.rows.tokens + n] : 1.0f;
      for (int i = 0; i < kOfLane; ++i) {
        const int at = lane + i * kWarp;
        Value of_key{0.0f, 0.0f};
        if (is_there && first_feature + at < p.k.count) of_key = value_at(p.k, k_row, part, n, feature[i]);
        sum[i] += of_key.plain * weight;
        phi[j * kPitch + at] = of_key.turned * weight;
        const float value = is_there && first_value + at < p.v.dim ? to_float(v_row[first_value + at]) : 0.0f;
        total[i] += value;
        values[j * kPitch + at] = value;
      }
    }
    barrier();
    add_products(state, phi + row, values + column);
  }
  const std::int64_t at = part * p.chunks + chunk;
  for (int r = 0; r < kOwn; ++r)
    for (int c = 0; c < kOwn; ++c) {
      const std::int64_t f = first_feature + row + kSide * r, value = first_value + column + kSide * c;
      if (f < p.k.count && value < p.v.dim) p.states[(at * p.k.count + f) * p.v.dim + value] = state[r][c];
    }
  // The warps' sums of phi and of v, one above the other.
  barrier();
  for (int i = 0; i < kOfLane; ++i) {
    phi[warp_index() * kPitch + lane + i * kWarp] = sum[i];
    values[warp_index() * kPitch + lane + i * kWarp] = total[i];
  }
  barrier();
  if (thread_index() >= kTile) return;
  float all = 0, all_values = 0;
  for (int w = 0; w < kWarps; ++w) {
    all += phi[w * kPitch + thread_index()];
    all_values += values[w * kPitch + thread_index()];
  }
  const std::int64_t f = first_feature + thread_index(), value = first_value + thread_index();
  if (first_value == 0 && f < p.k.count) p.sums[at * p.k.count + f] = all;
  if (first_feature == 0 && value < p.v.dim) p.totals[at * p.v.dim + value] = all_values;
}

struct FinishArgs {
  std::int64_t parts, features, values, chunks;
  StateRule rule;
  float numerator, mean;  // mean: 1 / keys
  const float *states, *sums, *totals;
  float *state, *sum, *total;  // of a part: what queries are multiplied with
};

VITRINE_DEVICE float over_chunks(const float* x, std::int64_t part, std::int64_t chunks, std::int64_t size, std::int64_t at) {
  float sum = 0;
  for (std::int64_t c = 0; c < chunks; ++c) sum += x[(part * chunks + c) * size + at];
  return sum;
}

// A thread a number of a state.
VITRINE_KERNEL(kThreads)
void finish_kernel(FinishArgs p) {
  const std::int64_t i = std::int64_t{block_index().x} * kThreads + thread_index(), size = p.features * p.values;
  if (i >= p.parts * size) return;
  const std::int64_t part = i / size, at = i - part * size, f = at / p.values, c = at - f * p.values;
  float state = over_chunks(p.states, part, p.chunks, size, at);
  if (p.rule == StateRule::ratio && c == 0) p.sum[part * p.features + f] = over_chunks(p.sums, part, p.chunks, p.features, f);
  if (p.rule == StateRule::centred) {
    const float mean = over_chunks(p.totals, part, p.chunks, p.values, c) * p.mean;
    state -= over_chunks(p.sums, part, p.chunks, p.features, f) * mean;
    if (f == 0) p.total[part * p.values + c] = mean;
  }
  p.state[i] = state * p.numerator;
}

// Rows of a state softened and turned, in the place of finish_kernel: a warp a row.
VITRINE_KERNEL(kThreads)
void soften_kernel(FinishArgs p) {
  const std::int64_t i = std::int64_t{block_index().x} * kWarps + warp_index(), size = p.features * p.values;
  if (i >= p.parts * p.features) return;
  const std::int64_t part = i / p.features, f = i - part * p.features;
  float* const column = p.state + part * size + f;
  float largest = -infinity(), sum = 0;
  for (std::int64_t c = lane_index(); c < p.values; c += kWarp) {
    const float logit = over_chunks(p.states, part, p.chunks, size, f * p.values + c) * p.numerator;
    column[c * p.values] = logit;
    largest = larger(logit, largest);
  }
  largest = warp_max(largest);
  for (std::int64_t c = lane_index(); c < p.values; c += kWarp) sum += exp_of(column[c * p.values] - largest);
  sum = warp_sum(sum);
  for (std::int64_t c = lane_index(); c < p.values; c += kWarp)
    column[c * p.values] = exp_of(column[c * p.values] - largest) / sum;
}

// --- outputs -------------------------------------------------------------------------------------------------------------------

struct OutArgs {
  Features q;
  Rows out;
  StateRule rule;
  std::int64_t token_tiles;
  float denominator, eps;
  const float *state, *sum, *total;
};

template <typename T, int kOwn>
VITRINE_KERNEL(kThreads)
void out_kernel(OutArgs p, const T* q, T* out) {
  constexpr int kTile = kSide * kOwn, kPitch = kTile + 1, kOfWarp = kTile / kWarps;
  auto* const phi = reinterpret_cast<float*>(shared_memory());  // [feature of a step][token]
  float *const state = phi + kStep * kPitch, *const dots = state + kStep * kPitch;
  const std::int64_t part = block_index().x / p.token_tiles, first = block_index().x % p.token_tiles * kTile;
  const std::int64_t first_value = std::int64_t{block_index().y} * kTile;
  const int lane = lane_index(), row = thread_index() / kSide, column = thread_index() % kSide;
  const bool is_ratio = p.rule == StateRule::ratio;
  float dot[kOfWarp] = {}, sum[kOwn][kOwn] = {};
  for (std::int64_t from = 0; from < p.q.count; from += kStep) {
    barrier();
    const std::int64_t f = from + lane;
    const Feature feature = feature_at(p.q, f);
    const float share = is_ratio && f < p.q.count ? p.sum[part * p.q.count + f] : 0.0f;
    for (int i = 0; i < kOfWarp; ++i) {
      const int token = warp_index() + kWarps * i;
      const std::int64_t n = first + token;
      Value value{0.0f, 0.0f};
      if (n < p.q.rows.tokens && f < p.q.count) value = value_at(p.q, q + p.q.rows.at(part, n), part, n, feature);
      dot[i] += value.plain * share;
      phi[lane * kPitch + token] = value.turned;
    }
    for (int i = thread_index(); i < kStep * kTile; i += kThreads) {
      const std::int64_t feature_row = from + i / kTile, c = first_value + i % kTile;
      const bool is_there = feature_row < p.q.count && c < p.out.dim;
      state[i / kTile * kPitch + i % kTile] = is_there ? p.state[(part * p.q.count + feature_row) * p.out.dim + c] : 0.0f;
    }
    barrier();
    add_products(sum, phi + row, state + column);
  }
  for (int i = 0; i < kOfWarp; ++i) {
    const float all = warp_sum(dot[i]);
    if (lane == 0) dots[warp_index() + kWarps * i] = all;
  }
  barrier();
  for (int r = 0; r < kOwn; ++r) {
    const int token = row + kSide * r;
    const std::int64_t n = first + token;
    if (n >= p.q.rows.tokens) continue;
    float factor = p.q.weights ? p.q.weights[part * p.q.rows.tokens + n] : 1.0f;
    if (is_ratio) factor /= dots[token] * p.denominator + p.eps;
    T* to = out + p.out.at(part, n);
    for (int c = 0; c < kOwn; ++c) {
      const std::int64_t at = first_value + column + kSide * c;
      if (at >= p.out.dim) continue;
      const float mean = p.rule == StateRule::centred ? p.total[part * p.out.dim + at] : 0.0f;
      to[at] = from_float<T>((sum[r][c] + mean) * factor);
    }
  }
}

// --- sums of features ----------------------------------------------------------------------------------------------------------

// A block a head, 32 channels and a chunk of tokens: result [part][chunk][dim].
template <typename T>
VITRINE_KERNEL(kThreads)
void feature_sums_kernel(Features p, std::int64_t chunk, const T* x, float* result) {
  auto* const shared = reinterpret_cast<float*>(shared_memory());
  const std::int64_t part = block_index().x, channel = std::int64_t{block_index().y} * kWarp + lane_index();
  const std::int64_t begin = block_index().z * chunk, end = begin + chunk < p.rows.tokens ? begin + chunk : p.rows.tokens;
  float sum = 0;
  if (channel < p.rows.dim)
    for (std::int64_t n = begin + warp_index(); n < end; n += kWarps) {
      const float weight = p.weights ? p.weights[part * p.rows.tokens + n] : 1.0f;
      sum += weight * mapped(p, part, n, channel, to_float(x[p.rows.at(part, n) + channel]));
    }
  shared[thread_index()] = sum;
  barrier();
  if (warp_index() != 0 || channel >= p.rows.dim) return;
  for (int w = 1; w < kWarps; ++w) sum += shared[w * kWarp + lane_index()];
  result[(part * grid_size().z + block_index().z) * p.rows.dim + channel] = sum;
}

VITRINE_KERNEL(kThreads)
void sum_chunks_kernel(std::int64_t n, std::int64_t chunks, std::int64_t size, const float* x, float* y) {
  const std::int64_t i = std::int64_t{block_index().x} * kThreads + thread_index();
  if (i < n) y[i] = over_chunks(x, i / size, chunks, size, i % size);
}

// A warp a token.
template <typename T>
VITRINE_KERNEL(kThreads)
void feature_dots_kernel(Features p, std::int64_t parts, const T* x, const float* u, float* result) {
  const std::int64_t i = std::int64_t{block_index().x} * kWarps + warp_index();
  if (i >= parts * p.rows.tokens) return;
  const std::int64_t part = i / p.rows.tokens, n = i % p.rows.tokens;
  const T* row = x + p.rows.at(part, n);
  float sum = 0;
  for (std::int64_t c = lane_index(); c < p.rows.dim; c += kWarp)
    sum += mapped(p, part, n, c, to_float(row[c])) * u[part * p.rows.dim + c];
  sum = warp_sum(sum);
  if (lane_index() == 0) result[i] = sum;
}

// --- what Flowformer and FLatten add -------------------------------------------------------------------------------------------

constexpr float kFlowEps = 1e-6f;

// flows [parts, tokens] <- share of (flow + what e, added to the features, gives), a block a part and 256 tokens.
VITRINE_KERNEL(kThreads)
void flow_kernel(std::int64_t tokens, std::int64_t dim, FlowShare share, const float* total, float* flows) {
  auto* const shared = reinterpret_cast<float*>(shared_memory());
  const std::int64_t part = block_index().x, n = std::int64_t{block_index().y} * kThreads + thread_index();
  float rest = 0;
  for (std::int64_t d = thread_index(); d < dim; d += kThreads) rest += kFlowEps * (total[part * dim + d] + kFlowEps);
  rest = warp_sum(rest);
  if (lane_index() == 0) shared[warp_index()] = rest;
  barrier();
  rest = kFlowEps;
  for (int w = 0; w < kWarps; ++w) rest += shared[w];
  if (n >= tokens) return;
  float& flow = flows[part * tokens + n];
  const float all = flow + rest;
  switch (share) {
    case FlowShare::inverse:
      flow = 1.0f / all;
      break;
    case FlowShare::sigmoid:
      flow = logistic(all);
      break;
    case FlowShare::clamped:
      flow = all < -1.0f ? -1.0f : all > 1.0f ? 1.0f : all;
      break;
  }
}

struct FocusArgs {
  std::int64_t rows, tokens, channels, image, token;  // strides of x
  const float *added, *inverse_scale;
  float power;
};

VITRINE_DEVICE float raised(float x, float power) {  // x in 0..1
  const auto whole = static_cast<int>(power);
  if (power > 16.0f || static_cast<float>(whole) != power) return x > 0.0f ? exp_of(power * log_of(x)) : 0.0f;
  float product = x;
  for (int i = 1; i < whole; ++i) product *= x;
  return product;
}

// u <- |u| u^power / |u^power|, a warp a row. Powers are of u over its largest value: none of the larger ones underflow.
template <typename T>
VITRINE_KERNEL(kThreads)
void focus_kernel(FocusArgs p, T* x) {
  const std::int64_t i = std::int64_t{block_index().x} * kWarps + warp_index();
  if (i >= p.rows) return;
  const std::int64_t n = i % p.tokens;
  T* row = x + i / p.tokens * p.image + n * p.token;
  const auto value_of = [&](std::int64_t c) {
    const float value = to_float(row[c]) + (p.added ? p.added[n * p.channels + c] : 0.0f);
    return ((value > 0.0f || value != value ? value : 0.0f) + 1e-6f) * p.inverse_scale[c];
  };
  float largest = 0, before = 0, after = 0;
  for (std::int64_t c = lane_index(); c < p.channels; c += kWarp) largest = larger(value_of(c), largest);
  largest = warp_max(largest);
  for (std::int64_t c = lane_index(); c < p.channels; c += kWarp) {
    const float u = value_of(c) / largest, power = raised(u, p.power);
    before += u * u;
    after += power * power;
  }
  const float factor = largest * sqrt_of(warp_sum(before) / warp_sum(after));
  for (std::int64_t c = lane_index(); c < p.channels; c += kWarp)
    row[c] = from_float<T>(raised(value_of(c) / largest, p.power) * factor);
}

// --- launches ------------------------------------------------------------------------------------------------------------------

std::int64_t count_of(FeatureMap map, std::int64_t dim) {
  if (map == FeatureMap::taylor1) return 1 + dim;
  if (map == FeatureMap::taylor2) return 1 + dim + dim * (dim + 1) / 2;
  return dim;
}

// The features of x; `statistics` holds what they point to.
Features features_of(const char* op, const Tensor& x, FeatureMap map, float scale, const Tensor& weights, const Tensor& sin,
                     const Tensor& cos, Tensor& statistics) {
  Features f{rows_of(x),
             map,
             scale,
             count_of(map, x.size(3)),
             nullptr,
             data_or_null<float>(sin),
             data_or_null<float>(cos),
             data_or_null<float>(weights)};
  const std::int64_t parts = parts_of(x);
  if (map != FeatureMap::channel_softmax && map != FeatureMap::token_softmax) return f;
  const bool is_by_channel = map == FeatureMap::token_softmax;
  statistics = Tensor::empty({parts, is_by_channel ? x.size(3) : x.size(1), 2}, DType::f32, x.device());
  f.statistics = data_of<float>(statistics);
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    if (is_by_channel)
      launch({.op = op,
              .x = x,
              .grid = parts,
              .grid_y = blocks_for(x.size(3), kWarp),
              .threads = kThreads,
              .shared_bytes = kThreads * sizeof(SoftmaxSum)},
             token_statistics_kernel<T>, f.rows, scale, data_of<T>(x), data_of<float>(statistics));
    else
      launch({.op = op, .x = x, .grid = blocks_for(parts * x.size(1), kWarps), .threads = kThreads}, channel_statistics_kernel<T>,
             f.rows, parts, scale, data_of<T>(x), data_of<float>(statistics));
  });
  return f;
}

// Tokens of a chunk: enough chunks to fill a GPU, of at least 256 tokens.
std::int64_t chunk_of(std::int64_t tokens, std::int64_t blocks) {
  constexpr std::int64_t kLeast = 256, kBlocks = 1024;
  const std::int64_t wanted = blocks_for(kBlocks, blocks), most = blocks_for(tokens, kLeast);
  return blocks_for(tokens, wanted < most ? wanted : most);
}

template <typename T, int kOwn>
void run(const LinearArgs& a, const Features& k, const Features& q) {
  constexpr std::int64_t kTile = kSide * kOwn;
  const std::int64_t parts = parts_of(a.q), features = k.count, values = a.v.size(3);
  StateArgs s{.k = k,
              .v = rows_of(a.v),
              .feature_tiles = blocks_for(features, kTile),
              .value_tiles = blocks_for(values, kTile),
              .chunk = 0,
              .chunks = 0,
              .states = nullptr,
              .sums = nullptr,
              .totals = nullptr};
  const std::int64_t tiles = s.feature_tiles * s.value_tiles;
  s.chunk = chunk_of(a.k.size(1), parts * tiles);
  s.chunks = blocks_for(a.k.size(1), s.chunk);
  const auto make = [&](const Shape& shape) { return Tensor::empty(shape, DType::f32, a.q.device()); };
  Tensor states = make({parts, s.chunks, features, values}), sums = make({parts, s.chunks, features}),
         totals = make({parts, s.chunks, values}), state = make({parts, features, values}), sum = make({parts, features}),
         total = make({parts, values});
  s.states = data_of<float>(states);
  s.sums = data_of<float>(sums);
  s.totals = data_of<float>(totals);
  constexpr std::size_t kTiles = std::size_t{2} * kStep * (kTile + 1) * sizeof(float);
  launch({.op = "linear_attention",
          .x = a.k,
          .grid = parts * tiles,
          .grid_y = s.chunks,
          .threads = kThreads,
          .shared_bytes = kTiles},
         state_kernel<T, kOwn>, s, data_of<T>(a.k), data_of<T>(a.v));
  const FinishArgs f{.parts = parts,
                     .features = features,
                     .values = values,
                     .chunks = s.chunks,
                     .rule = a.rule,
                     .numerator = a.numerator,
                     .mean = 1.0f / static_cast<float>(a.k.size(1)),
                     .states = s.states,
                     .sums = s.sums,
                     .totals = s.totals,
                     .state = data_of<float>(state),
                     .sum = data_of<float>(sum),
                     .total = data_of<float>(total)};
  if (a.rule == StateRule::channel_softmax)
    launch({.op = "linear_attention", .x = a.k, .grid = blocks_for(parts * features, kWarps), .threads = kThreads}, soften_kernel,
           f);
  else
    launch({.op = "linear_attention", .x = a.k, .grid = blocks_for(state.numel(), kThreads), .threads = kThreads}, finish_kernel,
           f);
  const OutArgs o{.q = q,
                  .out = rows_of(a.out),
                  .rule = a.rule,
                  .token_tiles = blocks_for(a.q.size(1), kTile),
                  .denominator = a.denominator,
                  .eps = a.eps,
                  .state = f.state,
                  .sum = f.sum,
                  .total = f.total};
  launch({.op = "linear_attention",
          .x = a.q,
          .grid = parts * o.token_tiles,
          .grid_y = s.value_tiles,
          .threads = kThreads,
          .shared_bytes = kTiles + kTile * sizeof(float)},
         out_kernel<T, kOwn>, o, data_of<T>(a.q), data_of<T>(a.out));
}

}  // namespace

namespace ops {

void linear_attention(const LinearArgs& a) {
  constexpr const char* kOp = "linear_attention";
  Tensor q_statistics, k_statistics;
  const Features q = features_of(kOp, a.q, a.query_map, a.feature_scale, a.query_weights, a.sin, a.cos, q_statistics);
  const Features k = features_of(kOp, a.k, a.key_map, a.feature_scale, a.key_weights, a.sin, a.cos, k_statistics);
  with_float_type(a.q.dtype(), [&](auto type) {
    using T = decltype(type);
    k.count <= 32 && a.v.size(3) <= 32 ? run<T, 2>(a, k, q) : run<T, 4>(a, k, q);
  });
}

void feature_sums(const Tensor& x, FeatureMap map, const Tensor& weights, Tensor& y) {
  Tensor statistics;
  const Features f = features_of("feature_sums", x, map, 1.0f, weights, {}, {}, statistics);
  const std::int64_t parts = parts_of(x), pieces = blocks_for(x.size(3), kWarp);
  const std::int64_t chunk = chunk_of(x.size(1), parts * pieces), chunks = blocks_for(x.size(1), chunk);
  Tensor partial = chunks == 1 ? y : Tensor::empty({parts, chunks, x.size(3)}, DType::f32, x.device());
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "feature_sums",
            .x = x,
            .grid = parts,
            .grid_y = pieces,
            .grid_z = chunks,
            .threads = kThreads,
            .shared_bytes = kThreads * sizeof(float)},
           feature_sums_kernel<T>, f, chunk, data_of<T>(x), data_of<float>(partial));
  });
  if (chunks > 1)
    launch({.op = "feature_sums", .x = x, .grid = blocks_for(y.numel(), kThreads), .threads = kThreads}, sum_chunks_kernel,
           y.numel(), chunks, x.size(3), data_of<float>(partial), data_of<float>(y));
}

void feature_dots(const Tensor& x, FeatureMap map, const Tensor& u, Tensor& y) {
  Tensor statistics;
  const Features f = features_of("feature_dots", x, map, 1.0f, {}, {}, {}, statistics);
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "feature_dots", .x = x, .grid = blocks_for(y.numel(), kWarps), .threads = kThreads}, feature_dots_kernel<T>, f,
           parts_of(x), data_of<T>(x), data_of<float>(u), data_of<float>(y));
  });
}

void flow_shares(Tensor& flows, const Tensor& total, FlowShare share) {
  const std::int64_t tokens = flows.size(2), dim = total.size(2);
  launch({.op = "flow_shares",
          .x = flows,
          .grid = flows.size(0) * flows.size(1),
          .grid_y = blocks_for(tokens, kThreads),
          .threads = kThreads,
          .shared_bytes = kWarps * sizeof(float)},
         flow_kernel, tokens, dim, share, data_of<float>(total), data_of<float>(flows));
}

void focus(Tensor& x, const Tensor& added, const Tensor& inverse_scale, float power) {
  const FocusArgs p{x.size(0) * x.size(1),         x.size(1), x.size(2), x.stride(0), x.stride(1), data_or_null<float>(added),
                    data_of<float>(inverse_scale), power};
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "focus", .x = x, .grid = blocks_for(p.rows, kWarps), .threads = kThreads}, focus_kernel<T>, p, data_of<T>(x));
  });
}

}  // namespace ops

}  // namespace vitrine::cuda
