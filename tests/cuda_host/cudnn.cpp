// cuDNN as the harness has it: the definitions of layers/cuda/cudnn.h, one value after another. Tests turn it on, so that what
// chooses, completes and keeps its plans is run as well; without that all tests are of our own kernels.
#include <vitrine/layers/cuda/cudnn.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include <vitrine/layers/cuda/device.h>
#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/error.h>

#include "cuda_host/backend.h"
#include "cuda_host/device_memory.h"
#include "cuda_host/emulation.h"

namespace vitrine::cuda {

namespace {

std::string reason = "the harness has none";
std::int64_t runs = 0;

using Operands = std::vector<const void*>;

template <typename T>
float read(const void* data, std::int64_t i) {
  return to_float(static_cast<const T*>(data)[i]);
}
template <typename T>
void write(const void* data, std::int64_t i, float value) {
  static_cast<T*>(const_cast<void*>(data))[i] = from_float<T>(value);
}

template <typename T>
void convolve(const cudnn::Conv& c, const Operands& all) {
  using Conv = cudnn::Conv;
  const std::int64_t in = c.in / c.groups, out = c.out / c.groups;
  // Of one axis: where x's position meets the output's at this tap; below zero: nowhere.
  const auto place = [&](int axis, std::int64_t at, std::int64_t tap) -> std::int64_t {
    if (!c.is_transposed) {
      const std::int64_t place = at * c.stride[axis] - c.pad[axis] + tap * c.dilation[axis];
      return place < c.size[axis] ? place : -1;
    }
    const std::int64_t place = at + c.pad[axis] - tap * c.dilation[axis];
    return place >= 0 && place % c.stride[axis] == 0 && place / c.stride[axis] < c.size[axis] ? place / c.stride[axis] : -1;
  };
  for (std::int64_t i = 0; i < c.batch * c.out_size[0] * c.out_size[1] * c.out; ++i) {
    const std::int64_t o = i % c.out, w = i / c.out % c.out_size[1], h = i / c.out / c.out_size[1] % c.out_size[0],
                       b = i / c.out / c.out_size[1] / c.out_size[0], first = o / out * in;
    float sum = 0;
    for (std::int64_t tap = 0; tap < c.kernel[0] * c.kernel[1]; ++tap) {
      const std::int64_t y = place(0, h, tap / c.kernel[1]), x = place(1, w, tap % c.kernel[1]);
      for (std::int64_t k = 0; y >= 0 && x >= 0 && k < in; ++k) {
        const std::int64_t taps = c.kernel[0] * c.kernel[1];
        const std::int64_t at = c.is_transposed ? ((first + k) * taps + tap) * out + o % out : (o * taps + tap) * in + k;
        sum += read<T>(all[Conv::kX], ((b * c.size[0] + y) * c.size[1] + x) * c.in + first + k) * read<T>(all[Conv::kFilter], at);
      }
    }
    if (c.has_residual) sum += read<T>(all[Conv::kResidual], i);
    if (c.has_bias) sum += read<T>(all[Conv::kBias], o);
    write<T>(all[Conv::kY], i, c.has_relu ? std::max(sum, 0.0f) : sum);
  }
}

template <typename T>
void attend(const cudnn::Attention& a, const Operands& all) {
  using Attention = cudnn::Attention;
  const auto row = [](const std::int64_t(&strides)[3], std::int64_t b, std::int64_t token, std::int64_t head) {
    return b * strides[0] + token * strides[1] + head * strides[2];
  };
  for (std::int64_t i = 0; i < a.batch * a.queries * a.heads; ++i) {
    const std::int64_t h = i % a.heads, query = i / a.heads % a.queries, b = i / a.heads / a.queries;
    const std::int64_t key_head = h / (a.heads / a.key_heads);
    std::vector<double> sums(static_cast<std::size_t>(a.value_dim));
    double total = 0;
    for (std::int64_t key = 0; key < (a.is_causal ? std::min(query + 1, a.keys) : a.keys); ++key) {
      double logit = 0;
      for (std::int64_t d = 0; d < a.dim; ++d)
        logit += read<T>(all[Attention::kQ], row(a.q_strides, b, query, h) + d) *
                 read<T>(all[Attention::kK], row(a.k_strides, b, key, key_head) + d);
      logit *= a.scale;
      const std::int64_t part[3] = {b, h, query};
      std::int64_t at = key;
      for (int axis = 0; axis < 3; ++axis) at += a.bias_size[axis] > 1 ? part[axis] * a.bias_strides[axis] : 0;
      if (a.has_bias) logit += read<float>(all[Attention::kBias], at);
      const double weight = std::exp(logit);  // logits of tests are small
      total += weight;
      for (std::int64_t d = 0; d < a.value_dim; ++d)
        sums[d] += weight * read<T>(all[Attention::kV], row(a.v_strides, b, key, key_head) + d);
    }
    for (std::int64_t d = 0; d < a.value_dim; ++d)
      write<T>(all[Attention::kOut], i * a.value_dim + d, static_cast<float>(sums[d] / total));
  }
}

}  // namespace

namespace emulation {

void set_cudnn(bool is_there) { reason = is_there ? "" : "the harness has none"; }
std::int64_t cudnn_runs() { return runs; }

}  // namespace emulation

namespace cudnn {

const std::string& why_none() { return reason; }

struct Plan::State {
  std::string why_none;
  std::function<void(const Operands&)> work;
};

Plan::Plan(const Conv& c, const Target&) : state_(std::make_shared<State>()) {
  with_float_type(c.dtype, [&](auto type) { state_->work = [c](const Operands& all) { convolve<decltype(type)>(c, all); }; });
}
Plan::Plan(const Attention& a, const Target&) : state_(std::make_shared<State>()) {
  with_float_type(a.dtype, [&](auto type) { state_->work = [a](const Operands& all) { attend<decltype(type)>(a, all); }; });
  if (a.dim > 128) state_->why_none = "the harness has none for wide heads";
}
const std::string& Plan::why_none() const { return state_->why_none; }
std::int64_t Plan::workspace() const { return 0; }

void Plan::run(std::initializer_list<const void*> operands, cudaStream_t stream) const {
  ++runs;
  emulation::queue_launch(stream, [state = state_, all = Operands(operands)] {
    const emulation::DeviceAccess access;
    state->work(all);
  });
}

}  // namespace cudnn

}  // namespace vitrine::cuda
