// What mechanisms make of activations for the attention kernel: halo attention's biases, the boxes of varied-size windows, the
// gates of mixtures of heads. A thread an element or row; all are small beside the attention.
#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/attention2d/key_axis.h>
#include <vitrine/layers/cuda/launch.h>

namespace vitrine::cuda {

namespace {

constexpr int kThreads = 128;

struct HaloQueries {
  std::int64_t height, width, heads, dim;
  std::int64_t image, line, pixel, head;  // strides
};

template <typename T>
VITRINE_KERNEL(kThreads)
void halo_bias_kernel(std::int64_t n, HaloQueries s, std::int64_t win, bool is_of_rows, std::int64_t block, const T* q,
                      const float* rel, float* bias) {
  const std::int64_t at = std::int64_t{block_index().x} * block_size() + thread_index();
  if (at >= n) return;
  const std::int64_t item = at / win, r = at - item * win, token = item / s.heads, head = item - token * s.heads;
  const std::int64_t line_number = token / s.width, column = token - line_number * s.width;
  const std::int64_t image = line_number / s.height, line = line_number - image * s.height;
  const std::int64_t position = (is_of_rows ? line : column) % block, steps = 2 * win - 1;
  q += image * s.image + line * s.line + column * s.pixel + head * s.head;
  rel += win - 1 - position + r;
  float sum = 0;
  for (std::int64_t d = 0; d < s.dim; ++d) sum += to_float(q[d]) * rel[d * steps];
  bias[at] = sum;
}

VITRINE_KERNEL(kThreads)
void window_boxes_kernel(std::int64_t n, std::int64_t windows, std::int64_t heads, std::int64_t height, std::int64_t width,
                         std::int64_t window_height, std::int64_t window_width, const float* offset, const float* scale,
                         float* boxes) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= n) return;
  const std::int64_t window = i / heads % windows, columns = (width + window_width - 1) / window_width;
  const detail::KeyAxis rows = detail::keys_on_axis(window / columns, window_height, height, scale[2 * i + 1], offset[2 * i + 1]);
  const detail::KeyAxis across = detail::keys_on_axis(window % columns, window_width, width, scale[2 * i], offset[2 * i]);
  boxes[4 * i] = rows.first;
  boxes[4 * i + 1] = across.first;
  boxes[4 * i + 2] = rows.step;
  boxes[4 * i + 3] = across.step;
}

VITRINE_KERNEL(kThreads)
void head_gates_kernel(std::int64_t n, std::int64_t shared, std::int64_t routed, std::int64_t chosen, const std::int64_t* choice,
                       const float* groups, float* gates) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= n) return;
  float* gate = gates + i * (shared + routed);
  float sum = 0;
  for (std::int64_t h = 0; h < routed && chosen > 0; ++h) {
    bool is_chosen = false;
    for (std::int64_t j = 0; j < chosen; ++j) is_chosen = is_chosen || choice[i * chosen + j] == h;
    if (!is_chosen) gate[shared + h] = 0.0f;
    sum += gate[shared + h];
  }
  constexpr float kLeast = 1.1920929e-07f;  // the distance of 1 to the next float
  sum = sum < kLeast ? kLeast : sum;
  const float of_shared = static_cast<float>(shared) * (groups ? 2 * groups[2 * i] : 1.0f);
  const float of_routed = static_cast<float>(chosen) * (groups ? 2 * groups[2 * i + 1] : 1.0f);
  for (std::int64_t h = 0; h < shared; ++h) gate[h] *= of_shared;
  for (std::int64_t h = 0; h < routed; ++h)
    gate[shared + h] = (chosen > 0 ? gate[shared + h] / sum : gate[shared + h]) * of_routed;
}

}  // namespace

namespace ops {

void halo_bias(const Tensor& q, const Tensor& rel, bool is_of_rows, std::int64_t block, Tensor& bias) {
  const HaloQueries s{q.size(1), q.size(2), q.size(3), q.size(4), q.stride(0), q.stride(1), q.stride(2), q.stride(3)};
  with_float_type(q.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "halo_bias", .x = q, .grid = blocks_for(bias.numel(), kThreads), .threads = kThreads}, halo_bias_kernel<T>,
           bias.numel(), s, bias.size(3), is_of_rows, block, data_of<T>(q), data_of<float>(rel), data_of<float>(bias));
  });
}

void window_boxes(const WindowBoxesArgs& a) {
  const std::int64_t n = a.boxes.numel() / 4;
  launch({.op = "window_boxes", .x = a.offset, .grid = blocks_for(n, kThreads), .threads = kThreads}, window_boxes_kernel, n,
         a.boxes.size(1), a.boxes.size(2), a.height, a.width, a.window_height, a.window_width, data_of<float>(a.offset),
         data_of<float>(a.scale), data_of<float>(a.boxes));
}

void head_gates(std::int64_t shared, const Tensor& choice, const Tensor& groups, Tensor& gates) {
  const std::int64_t n = gates.size(0), chosen = choice.defined() ? choice.size(1) : 0;
  launch({.op = "head_gates", .x = gates, .grid = blocks_for(n, kThreads), .threads = kThreads}, head_gates_kernel, n, shared,
         gates.size(1) - shared, chosen, data_or_null<std::int64_t>(choice), data_or_null<float>(groups), data_of<float>(gates));
}

}  // namespace ops

}  // namespace vitrine::cuda
