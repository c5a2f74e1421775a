// The choices of layers that route by top-k or merge tokens, in the order in which one pass makes them: recorded in a pass,
// repeated in another. A 16-bit pass that repeats those of the f32 pass differs from it by rounding only, however near two
// candidates were.
//
//   RoutingTrace trace;
//   { RoutingScope scope(trace, RoutingScope::record); exact->forward(images); }
//   { RoutingScope scope(trace, RoutingScope::repeat); rounded->forward(images); }
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

struct RoutingTrace {
  std::vector<Tensor> choices;                // integers, the last axis holds what was chosen
  std::int64_t choosers = 0, overridden = 0;  // of the last repetition: rows, and those that had chosen another set
};

// While it lives, layers that this thread runs record into `trace` or repeat it from the start. Scopes nest.
class VITRINE_API RoutingScope {
 public:
  enum Mode : std::uint8_t { record, repeat };

  RoutingScope(RoutingTrace& trace, Mode mode);
  ~RoutingScope();
  RoutingScope(const RoutingScope&) = delete;
  RoutingScope& operator=(const RoutingScope&) = delete;

 private:
  friend VITRINE_API Tensor traced_choice(Tensor choice);

  RoutingTrace& trace_;
  Mode mode_;
  std::size_t next_ = 0;
  RoutingScope* outer_;
};

// For layers that choose: `choice` itself, or what a repeated trace has in its place. i32 or i64, contiguous. Throws Error where
// the trace is of another model or input.
VITRINE_API Tensor traced_choice(Tensor choice);

}  // namespace vitrine
