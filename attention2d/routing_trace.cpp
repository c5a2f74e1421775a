#include <vitrine/attention2d/routing_trace.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/error.h>

namespace vitrine {

namespace {

thread_local RoutingScope* current = nullptr;

// Rows of the last axis that hold other values, in whatever order.
template <typename T>
std::int64_t differing_rows(const Tensor& on_a, const Tensor& on_b) {
  const Tensor a = on_a.to(Device{}), b = on_b.to(Device{});  // waits for a GPU
  const std::int64_t length = a.size(-1), rows = length == 0 ? 0 : a.numel() / length;
  std::int64_t differing = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    std::vector<T> x(a.data<T>() + i * length, a.data<T>() + (i + 1) * length);
    std::vector<T> y(b.data<T>() + i * length, b.data<T>() + (i + 1) * length);
    std::sort(x.begin(), x.end());
    std::sort(y.begin(), y.end());
    if (x != y) ++differing;
  }
  return differing;
}

}  // namespace

RoutingScope::RoutingScope(RoutingTrace& trace, Mode mode) : trace_(trace), mode_(mode), outer_(current) {
  if (mode == record) trace.choices.clear();
  trace.choosers = trace.overridden = 0;
  current = this;
}

RoutingScope::~RoutingScope() { current = outer_; }

Tensor traced_choice(Tensor choice) {
  if (current == nullptr) return choice;
  RoutingTrace& trace = current->trace_;
  if (current->mode_ == RoutingScope::record) {
    trace.choices.push_back(choice);
    return choice;
  }
  if (current->next_ == trace.choices.size())
    throw Error(fmt::format("routing: the trace has {} choices, another one was asked for", trace.choices.size()));
  const Tensor& traced = trace.choices[current->next_++];
  if (traced.dtype() != choice.dtype() || traced.shape() != choice.shape())
    throw Error(
        fmt::format("routing: a choice of {} in a trace where it is {}", choice.shape().to_string(), traced.shape().to_string()));
  trace.choosers += choice.numel() / std::max<std::int64_t>(1, choice.size(-1));
  const Tensor chosen = choice.to(Device{}), recorded = traced.to(Device{});
  trace.overridden += choice.dtype() == DType::i32 ? differing_rows<std::int32_t>(chosen, recorded)
                                                   : differing_rows<std::int64_t>(chosen, recorded);
  return traced.to(choice.device());
}

}  // namespace vitrine
