#include <vitrine/attention2d/neighborhood.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/candidates.h>
#include <vitrine/attention2d/cpu/launch.h>
#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/rows.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

struct Problem {
  const Tensor &q, &k, &v;
  const NeighborhoodOptions& options;
  float scale;
  Tensor& out;

  int axes() const { return q.rank() - 3; }
  std::string describe() const {
    const auto list = [&](const auto& values) {
      return fmt::format("{}", fmt::join(values.begin(), values.begin() + axes(), "x"));
    };
    return fmt::format("q {} k {} v {} {} kernel {} dilation {} stride {} causal {}{}{}", q.shape().to_string(),
                       k.shape().to_string(), v.shape().to_string(), name_of(q.dtype()), list(options.kernel_size),
                       list(options.dilation), list(options.stride), list(options.is_causal), options.rpb.defined() ? " rpb" : "",
                       options.additional_keys.defined() ? " additional tokens" : "");
  }
};

void validate_tensors(const Tensor& q, const Tensor& k, const Tensor& v) {
  detail::check_qkv("neighborhood_attention", q, k, v, "[B, 1 to 3 axes, heads, head_dim]", 4, 6);
  bool fit = k.rank() == q.rank() && v.rank() == q.rank() && k.size(-1) == q.size(-1) && k.size(-2) == v.size(-2);
  for (int a = 0; fit && a < q.rank() - 2; ++a) fit = k.size(a) == q.size(a) && v.size(a) == q.size(a);
  if (!fit)
    throw Error(fmt::format(
        "neighborhood_attention: q {}, k {}, v {} do not fit; expected [B, *S, Hq, D], [B, *S, Hk, D], [B, *S, Hk, Dv]",
        q.shape().to_string(), k.shape().to_string(), v.shape().to_string()));
  detail::check_head_groups("neighborhood_attention", q, k);
}

void validate_window(const Tensor& q, const NeighborhoodOptions& o) {
  const int axes = q.rank() - 3;
  for (int a = 0; a < axes; ++a) {
    const std::int64_t size = q.size(a + 1);
    if (o.kernel_size[a] < 1 || o.dilation[a] < 1 || o.kernel_size[a] > size / o.dilation[a])
      throw Error(
          fmt::format("neighborhood_attention: axis {} of size {} with kernel_size {} and dilation {}; expected kernel_size * "
                      "dilation <= size",
                      a, size, o.kernel_size[a], o.dilation[a]));
    if (o.stride[a] < 1 || o.stride[a] > o.kernel_size[a])
      throw Error(fmt::format("neighborhood_attention: axis {} has stride {}, expected 1 to its kernel_size {}", a, o.stride[a],
                              o.kernel_size[a]));
  }
  if (!o.rpb.defined()) return;
  detail::check_same_device("neighborhood_attention", q, o.rpb);
  for (int a = 0; a < axes; ++a)
    if (axes != 2 || o.stride[a] != 1 || o.is_causal[a])
      throw Error("neighborhood_attention: a position bias needs 2 axes, stride 1 and no causal axis");
  const Shape expected{q.size(-2), 2 * o.kernel_size[0] - 1, 2 * o.kernel_size[1] - 1};
  if (o.rpb.dtype() != DType::f32 || o.rpb.shape() != expected)
    throw Error(fmt::format("neighborhood_attention: rpb is {} {}, expected f32 {}", name_of(o.rpb.dtype()),
                            o.rpb.shape().to_string(), expected.to_string()));
}

void validate_additional(const Tensor& k, const Tensor& v, const NeighborhoodOptions& o) {
  const Tensor &ak = o.additional_keys, &av = o.additional_values;
  if (ak.defined() != av.defined())
    throw Error("neighborhood_attention: additional_keys and additional_values go together, one is missing");
  if (!ak.defined()) return;
  for (const Tensor* t : {&ak, &av}) detail::check_same_device("neighborhood_attention", k, *t);
  const std::int64_t n = ak.rank() == 4 ? ak.size(1) : 0;
  const Shape keys{k.size(0), n, k.size(-2), k.size(-1)}, values{k.size(0), n, k.size(-2), v.size(-1)};
  if (ak.shape() != keys || av.shape() != values || ak.dtype() != k.dtype() || av.dtype() != k.dtype())
    throw Error(fmt::format("neighborhood_attention: additional_keys {} {}, additional_values {} {}, expected {} {} and {}",
                            name_of(ak.dtype()), ak.shape().to_string(), name_of(av.dtype()), av.shape().to_string(),
                            name_of(k.dtype()), keys.to_string(), values.to_string()));
}

// What the query at place i of the n of its residue class sees of the class.
cpu::Interval window_of(std::int64_t i, std::int64_t n, std::int64_t kernel, std::int64_t stride, bool is_causal) {
  const std::int64_t leader = std::min(i / stride * stride + (is_causal ? stride - 1 : stride / 2), n - 1);
  if (is_causal) return {std::max<std::int64_t>(leader - kernel + 1, 0), i + 1};
  const std::int64_t first = std::clamp<std::int64_t>(leader - kernel / 2, 0, n - kernel);
  return {first, first + kernel};
}

// Those of all positions of an axis.
std::vector<cpu::Interval> windows_of(const Problem& p, int axis) {
  const NeighborhoodOptions& o = p.options;
  const std::int64_t size = p.q.size(axis + 1), dilation = o.dilation[axis];
  std::vector<cpu::Interval> windows;
  for (std::int64_t at = 0; at < size; ++at) {
    const std::int64_t n = (size - at % dilation + dilation - 1) / dilation;
    windows.push_back(window_of(at / dilation, n, o.kernel_size[axis], o.stride[axis], o.is_causal[axis]));
  }
  return windows;
}

// The definition, one query after another; what the kernels are compared with. One and two axes are three with leading
// axes of size 1.
void run_reference(const Problem& p) {
  const NeighborhoodOptions& o = p.options;
  const std::int64_t heads = p.q.size(-2), group = heads / p.k.size(-2), dim = p.q.size(-1), value_dim = p.v.size(-1);
  const int lead = 3 - p.axes();
  std::int64_t size[3] = {1, 1, 1}, step[3] = {1, 1, 1};
  std::vector<cpu::Interval> windows[3] = {{{0, 1}}, {{0, 1}}, {{0, 1}}};
  for (int a = 0; a < p.axes(); ++a) {
    size[lead + a] = p.q.size(a + 1);
    step[lead + a] = o.dilation[a];
    windows[lead + a] = windows_of(p, a);
  }
  const std::int64_t tokens = size[0] * size[1] * size[2];
  const std::int64_t extra = o.additional_keys.defined() ? o.additional_keys.size(1) : 0;

  cpu::parallel_each(p.q.size(0) * heads, [&](std::int64_t item, int) {
    const std::int64_t b = item / heads, h = item % heads;
    const auto q = detail::read_head(p.q, b, h);
    auto k = detail::read_head(p.k, b, h / group), v = detail::read_head(p.v, b, h / group);
    if (extra > 0) {
      const auto ak = detail::read_head(o.additional_keys, b, h / group),
                 av = detail::read_head(o.additional_values, b, h / group);
      k.insert(k.end(), ak.begin(), ak.end());
      v.insert(v.end(), av.begin(), av.end());
    }
    std::vector<std::int64_t> seen;
    std::vector<double> logits, sums(static_cast<std::size_t>(value_dim));
    std::vector<float> row(static_cast<std::size_t>(value_dim));
    for (std::int64_t n = 0; n < tokens; ++n) {
      const std::int64_t at[3] = {n / (size[1] * size[2]), n / size[2] % size[1], n % size[2]};
      cpu::Interval w[3];
      for (int a = 0; a < 3; ++a) w[a] = windows[a][at[a]];
      seen.clear();
      logits.clear();
      const auto see = [&](std::int64_t key, double bias) {
        double logit = 0;
        for (std::int64_t d = 0; d < dim; ++d) logit += static_cast<double>(q[n * dim + d]) * k[key * dim + d];
        seen.push_back(key);
        logits.push_back(logit * p.scale + bias);
      };
      const auto position = [&](int a, std::int64_t i) { return at[a] % step[a] + i * step[a]; };
      for (std::int64_t t = w[0].first; t < w[0].end; ++t)
        for (std::int64_t y = w[1].first; y < w[1].end; ++y)
          for (std::int64_t x = w[2].first; x < w[2].end; ++x) {
            double bias = 0;
            if (o.rpb.defined()) {
              const std::int64_t row_index = y - at[1] / step[1] + o.kernel_size[0] - 1;
              const std::int64_t column = x - at[2] / step[2] + o.kernel_size[1] - 1;
              bias = o.rpb.data<float>()[h * o.rpb.stride(0) + row_index * o.rpb.stride(1) + column];
            }
            see((position(0, t) * size[1] + position(1, y)) * size[2] + position(2, x), bias);
          }
      for (std::int64_t e = 0; e < extra; ++e) see(tokens + e, 0);

      const double largest = *std::max_element(logits.begin(), logits.end());
      double total = 0;
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::size_t j = 0; j < seen.size(); ++j) {
        const double weight = std::exp(logits[j] - largest);
        total += weight;
        for (std::int64_t d = 0; d < value_dim; ++d) sums[d] += weight * v[seen[j] * value_dim + d];
      }
      for (std::int64_t d = 0; d < value_dim; ++d) row[d] = static_cast<float>(sums[d] / total);
      detail::write_row(p.out, ((b * tokens + n) * heads + h) * value_dim, row);
    }
  });
}

// Whether dense tiles are faster than queries in lanes, as measured with AVX-512 (README.md, What was learnt).
bool is_wide(const Problem& p) { return cpu::isa() >= cpu::Isa::avx512 && p.axes() == 1 && p.options.kernel_size[0] >= 96; }

template <cpu::Isa kIsa>
std::string can_run_fused(const Problem& p) {
  if (std::string reason = detail::lacks(kIsa, p.q); !reason.empty()) return reason;
  if (p.options.impl.empty() && is_wide(p)) return "tiles are faster for a window as wide";
  for (int a = 0; a < p.axes(); ++a) {
    if (p.options.stride[a] != 1) return "stride above 1";
    if (p.options.is_causal[a]) return "a causal axis";
  }
  return p.options.additional_keys.defined() ? "additional tokens" : "";
}

// One and two axes are three with leading axes of size 1.
cpu::GridView grid_view(const Tensor& t) {
  cpu::GridView grid{t.raw(), t.stride(0), {}, t.stride(-2)};
  const int axes = t.rank() - 3;
  for (int a = 0; a < axes; ++a) grid.axis[3 - axes + a] = t.stride(a + 1);
  return grid;
}

template <cpu::Isa kIsa>
void run_fused(const Problem& p) {
  const int axes = p.axes(), lead = 3 - axes;
  cpu::NeighborhoodProblem n;
  n.q = grid_view(p.q);
  n.k = grid_view(p.k);
  n.v = grid_view(p.v);
  n.out = grid_view(p.out);
  n.type = cpu::float_type(p.q.dtype());
  n.images = p.q.size(0);
  n.heads = p.q.size(-2);
  n.key_heads = p.k.size(-2);
  n.dim = p.q.size(-1);
  n.value_dim = p.v.size(-1);
  for (int a = 0; a < axes; ++a) {
    n.size[lead + a] = p.q.size(a + 1);
    n.kernel[lead + a] = p.options.kernel_size[a];
    n.dilation[lead + a] = p.options.dilation[a];
  }
  n.scale = p.scale;
  if (p.options.rpb.defined()) {
    n.rpb = p.options.rpb.data<float>();
    n.rpb_head = p.options.rpb.stride(0);
    n.rpb_row = p.options.rpb.stride(1);
  }
  cpu::neighborhood_attention(kIsa, n);
}

template <cpu::Isa kIsa>
std::string can_run_tiles(const Problem& p) {
  return detail::lacks(kIsa, p.q);
}

template <cpu::Isa kIsa>
void run_tiles(const Problem& p) {
  const NeighborhoodOptions& o = p.options;
  const int axes = p.axes(), lead = 3 - axes;
  cpu::LocalProblem l;
  l.q = grid_view(p.q);
  l.k = grid_view(p.k);
  l.v = grid_view(p.v);
  l.out = grid_view(p.out);
  l.type = cpu::float_type(p.q.dtype());
  l.images = p.q.size(0);
  l.heads = p.q.size(-2);
  l.key_heads = p.k.size(-2);
  l.dim = p.q.size(-1);
  l.value_dim = p.v.size(-1);
  std::vector<cpu::Interval> windows[3] = {{{0, 1}}, {{0, 1}}, {{0, 1}}};
  for (int a = 0; a < axes; ++a) {
    l.size[lead + a] = p.q.size(a + 1);
    l.dilation[lead + a] = o.dilation[a];
    windows[lead + a] = windows_of(p, a);
  }
  for (int a = 0; a < 3; ++a) l.window[a] = windows[a].data();
  l.scale = p.scale;
  if (o.rpb.defined()) {
    l.rpb = o.rpb.data<float>();
    l.rpb_head = o.rpb.stride(0);
    l.rpb_row = o.rpb.stride(1);
    for (int a = 0; a < 2; ++a) l.rpb_center[a] = o.kernel_size[a] - 1;
  }
  if (o.additional_keys.defined()) {
    l.extra_k = grid_view(o.additional_keys);
    l.extra_v = grid_view(o.additional_values);
    l.extra = o.additional_keys.size(1);
  }
  cpu::local_attention(kIsa, l);
}

// Where the window is all of a residue class, each class is global attention over its tokens; its bias is written out.
template <cpu::Isa kIsa>
std::string can_run_classes(const Problem& p) {
  if (std::string reason = detail::lacks(kIsa, p.q); !reason.empty()) return reason;
  for (int a = 0; a < p.axes(); ++a) {
    if (p.options.is_causal[a]) return "a causal axis";
    if (p.options.kernel_size[a] * p.options.dilation[a] != p.q.size(a + 1)) return "the window is not all of its class";
  }
  if (p.axes() == 3) return "3 axes";
  if (p.q.size(-1) > cpu::kFlashMaxDim) return fmt::format("head_dim {} is above {}", p.q.size(-1), cpu::kFlashMaxDim);
  return p.options.additional_keys.defined() ? "additional tokens" : "";
}

// [heads, tokens, tokens] from the table of relative positions.
std::vector<float> written_out_bias(const Tensor& rpb, std::int64_t rows, std::int64_t columns) {
  const std::int64_t tokens = rows * columns;
  std::vector<float> bias(static_cast<std::size_t>(rpb.size(0) * tokens * tokens));
  cpu::parallel_for(rpb.size(0) * tokens, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t query = i % tokens, y = query / columns, x = query % columns;
      const float* table = rpb.data<float>() + i / tokens * rpb.stride(0);
      for (std::int64_t ky = 0; ky < rows; ++ky)
        std::copy_n(table + (ky - y + rows - 1) * rpb.stride(1) + columns - 1 - x, columns,
                    bias.data() + i * tokens + ky * columns);
    }
  });
  return bias;
}

template <cpu::Isa kIsa>
void run_classes(const Problem& p) {
  const auto& o = p.options;
  const bool is_map = p.axes() == 2;
  const std::int64_t rows = is_map ? o.kernel_size[0] : 1, columns = o.kernel_size[is_map], tokens = rows * columns;
  const std::int64_t row_classes = is_map ? o.dilation[0] : 1, column_classes = o.dilation[is_map];
  std::vector<std::int64_t> offsets[4];
  const auto view = [&](const Tensor& t, std::vector<std::int64_t>& image_offset) {
    const std::int64_t row = is_map ? t.stride(1) : 0, column = t.stride(1 + is_map);
    for (std::int64_t b = 0; b < t.size(0); ++b)
      for (std::int64_t ry = 0; ry < row_classes; ++ry)
        for (std::int64_t rx = 0; rx < column_classes; ++rx) image_offset.push_back(b * t.stride(0) + ry * row + rx * column);
    return cpu::TokenView{t.raw(), image_offset.data(), t.stride(-2), row_classes * row, column_classes * column, columns};
  };
  cpu::FlashProblem f;
  f.q = view(p.q, offsets[0]);
  f.k = view(p.k, offsets[1]);
  f.v = view(p.v, offsets[2]);
  f.out = view(p.out, offsets[3]);
  f.type = cpu::float_type(p.q.dtype());
  f.images = p.q.size(0) * row_classes * column_classes;
  f.heads = p.q.size(-2);
  f.key_heads = p.k.size(-2);
  f.queries = f.keys = tokens;
  f.dim = p.q.size(-1);
  f.value_dim = p.v.size(-1);
  f.scale = p.scale;
  std::vector<float> bias;
  if (o.rpb.defined()) {
    bias = written_out_bias(o.rpb, rows, columns);
    f.bias = bias.data();
    f.bias_head = tokens * tokens;
    f.bias_row = tokens;
  }
  cpu::flash_attention(kIsa, f);
}

template <std::int64_t kMostDim>
std::string can_run_cuda(const Problem& p) {
  return detail::lacks_gpu(p.q, p.v, kMostDim);
}

// What call(arguments) returns.
template <typename Call>
auto with_cuda_args(const Problem& p, const Call& call) {
  using Window = cuda::LocalAxis::Window;
  const NeighborhoodOptions& o = p.options;
  cuda::LocalAxis axes[3];
  for (std::size_t a = 0; a < static_cast<std::size_t>(p.axes()); ++a)
    axes[a] = {o.is_causal[a] ? Window::causal : Window::slides, o.kernel_size[a], o.dilation[a], o.stride[a]};
  return call(cuda::LocalArgs{p.q, p.k, p.v, axes, 0, p.scale, o.rpb, o.additional_keys, o.additional_values, p.out});
}

// What a kernel answers, lacks(arguments), of tensors on a GPU: elsewhere there may be no table of kernels to ask.
template <typename Lacks>
std::string can_run_cuda(const Problem& p, const Lacks& lacks) {
  const std::string reason = can_run_cuda<cuda::kLocalTilesDim>(p);
  return reason.empty() ? with_cuda_args(p, lacks) : reason;
}
std::string can_run_sm90(const Problem& p) {
  return can_run_cuda(p, [&](const auto& args) { return cuda::attention_ops().lacks_sm90(args, !p.options.impl.empty()); });
}
std::string can_run_tiles(const Problem& p) {
  return can_run_cuda(p, [](const auto& args) { return cuda::attention_ops().lacks_tiles(args); });
}

template <auto kOp>
void run_cuda(const Problem& p) {
  with_cuda_args(p, cuda::attention_ops().*kOp);
}

constexpr detail::Candidate<Problem> kCandidates[] = {
    {"cuda_sm90", can_run_sm90, run_cuda<&cuda::AttentionOps::local_attention_sm90>},
    {"cuda_tiles", can_run_tiles, run_cuda<&cuda::AttentionOps::local_attention_tiles>},
    {"cuda_plain", can_run_cuda<cuda::kLocalDim>, run_cuda<&cuda::AttentionOps::local_attention>},
#if defined(VITRINE_X86)
    {"classes_avx512_bf16", can_run_classes<cpu::Isa::avx512_bf16>, run_classes<cpu::Isa::avx512_bf16>},
    {"classes_avx512", can_run_classes<cpu::Isa::avx512>, run_classes<cpu::Isa::avx512>},
    {"classes_avx2", can_run_classes<cpu::Isa::avx2>, run_classes<cpu::Isa::avx2>},
    {"fused_avx512_bf16", can_run_fused<cpu::Isa::avx512_bf16>, run_fused<cpu::Isa::avx512_bf16>},
    {"fused_avx512", can_run_fused<cpu::Isa::avx512>, run_fused<cpu::Isa::avx512>},
    {"fused_avx2", can_run_fused<cpu::Isa::avx2>, run_fused<cpu::Isa::avx2>},
    {"tiles_avx512_bf16", can_run_tiles<cpu::Isa::avx512_bf16>, run_tiles<cpu::Isa::avx512_bf16>},
    {"tiles_avx512", can_run_tiles<cpu::Isa::avx512>, run_tiles<cpu::Isa::avx512>},
    {"tiles_avx2", can_run_tiles<cpu::Isa::avx2>, run_tiles<cpu::Isa::avx2>},
#endif
    {"classes_scalar", can_run_classes<cpu::Isa::scalar>, run_classes<cpu::Isa::scalar>},
    {"fused_scalar", can_run_fused<cpu::Isa::scalar>, run_fused<cpu::Isa::scalar>},
    {"tiles_scalar", can_run_tiles<cpu::Isa::scalar>, run_tiles<cpu::Isa::scalar>},
    {"reference", [](const Problem& p) { return detail::is_elsewhere(DeviceType::cpu, p.q); }, run_reference},
};

}  // namespace

Tensor neighborhood_attention(const Tensor& q, const Tensor& k, const Tensor& v, const NeighborhoodOptions& options) {
  validate_tensors(q, k, v);
  validate_window(q, options);
  validate_additional(k, v, options);
  Shape shape = q.shape();
  shape[shape.rank() - 1] = v.size(-1);
  Tensor out = Tensor::empty(shape, q.dtype(), q.device());
  if (out.numel() == 0) return out;
  const float scale = options.scale.value_or(static_cast<float>(1.0 / std::sqrt(static_cast<double>(q.size(-1)))));
  const Problem problem{q, k, v, options, scale, out};
  detail::choose<Problem>("neighborhood_attention", kCandidates, problem, options.impl).run(problem);
  // Those of the definition: a query's own window, whatever the kernel computes beside it.
  std::int64_t keys = options.additional_keys.defined() ? options.additional_keys.size(1) : 0, window = 1;
  for (int axis = 0; axis < q.rank() - 3; ++axis) window *= options.kernel_size[static_cast<std::size_t>(axis)];
  keys += window;
  Context::current().add_macs(q.numel() * keys + out.numel() * keys);
  return out;
}

Tensor joint_neighborhood_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::int64_t text_length,
                                    std::int64_t height, std::int64_t width, NeighborhoodOptions options) {
  for (const auto& [t, name] : {std::pair(&q, "q"), std::pair(&k, "k"), std::pair(&v, "v")})
    if (!t->defined() || t->rank() != 4 || text_length < 0 || height < 1 || width < 1 || height > t->size(1) / width ||
        t->size(1) - height * width != text_length)
      throw Error(fmt::format("joint_neighborhood_attention: {} is {}, expected [B, {} of text + {} x {} of an image, heads, D]",
                              name, t->defined() ? t->shape().to_string() : "undefined", text_length, height, width));
  if (options.rpb.defined() || options.additional_keys.defined() || options.additional_values.defined())
    throw Error(
        "joint_neighborhood_attention: rpb and additional keys are given, expected none: the text is the additional keys");
  const std::int64_t L = q.size(1);
  const auto text = [&](const Tensor& t) { return t.slice(1, 0, text_length); };
  const auto image = [&](const Tensor& t) { return t.slice(1, text_length, L).unflatten(1, {height, width}); };
  if (text_length > 0) {
    options.additional_keys = text(k);
    options.additional_values = text(v);
  }
  const Tensor of_image = neighborhood_attention(image(q), image(k), image(v), options).flatten(1, 2);
  if (text_length == 0) return of_image;
  const Tensor parts[] = {attention(text(q), k, v, {.scale = options.scale}), of_image};
  return concat(parts, 1);
}

NeighborhoodAttention::NeighborhoodAttention(const Weights& w, const NeighborhoodAttentionConfig& c,
                                             const LinearOptions& proj_options)
    : config(c) {
  const std::string where = detail::module_name("neighborhood_attention", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  for (int axis = 0; axis < 2; ++axis) {
    detail::check_size(where, "kernel_size", c.kernel_size[static_cast<std::size_t>(axis)]);
    detail::check_size(where, "dilation", c.dilation[static_cast<std::size_t>(axis)]);
  }
  qkv = Linear(w / "qkv", c.dim, 3 * c.dim, {.bias = c.qkv_bias});
  if (c.rel_pos_bias) rpb = w.on_device("rpb", {c.num_heads, 2 * c.kernel_size[0] - 1, 2 * c.kernel_size[1] - 1});
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor NeighborhoodAttention::operator()(const Tensor& x, Tensor residual) const {  // [B, H, W, C]
  detail::check_map("neighborhood_attention", x, config.dim);
  const std::int64_t H = x.size(1), W = x.size(2);
  const std::int64_t rows = std::max(H, config.kernel_size[0] * config.dilation[0]);
  const std::int64_t columns = std::max(W, config.kernel_size[1] * config.dilation[1]);
  // three views [B, H, W, heads, head_dim] of the fused projection
  const Tensor parts = qkv(pad_to(x, rows, columns)).unflatten(3, {3, config.num_heads, config.dim / config.num_heads});
  Tensor y = neighborhood_attention(parts.select(3, 0), parts.select(3, 1), parts.select(3, 2),
                                    {.kernel_size = {config.kernel_size[0], config.kernel_size[1], 1},
                                     .dilation = {config.dilation[0], config.dilation[1], 1},
                                     .scale = config.scale,
                                     .rpb = rpb});
  if (rows != H || columns != W) y = y.slice(1, 0, H).slice(2, 0, W).contiguous();
  return proj(y.flatten(3, 4), {.residual = std::move(residual)});  // [B, H, W, C]
}

}  // namespace vitrine
