#include <vitrine/layers/repeated_pass.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/recent_cache.h>
#include <vitrine/layers/recording.h>

namespace vitrine {

namespace {

thread_local detail::Recording* current_recording = nullptr;

struct Form {
  Shape shape;
  DType dtype = DType::f32;
  bool defined = false;

  explicit Form(const Tensor& t) : shape(t.shape()), dtype(t.dtype()), defined(t.defined()) {}
  friend bool operator==(const Form&, const Form&) = default;
};

struct Key {
  std::shared_ptr<const void> stream;
  std::vector<Form> inputs;

  friend bool operator==(const Key&, const Key&) = default;
};

// Of one key, so that one thread at a time uses it.
struct Entry {
  bool has_run = false, refused = false;
  Shape shape;  // of the result
  DType dtype = DType::f32;
  // Of the recording: its inputs and its result are outside of the graph's memory.
  std::vector<Tensor> inputs;
  Tensor output;
  std::vector<std::shared_ptr<const void>> held;
  std::int64_t macs = 0;
  std::shared_ptr<void> graph;  // goes first, when its last run is done
};

bool is_turned_off() {
  const char* text = std::getenv("VITRINE_CUDA_GRAPHS");
  return text && std::string_view(text) == "0";
}

std::string describe(std::span<const Tensor> inputs, Device device) {
  std::string text = fmt::format("a repeated pass on cuda:{} of{}", device.index, inputs.empty() ? " no inputs" : "");
  for (const Tensor& x : inputs) text += x.defined() ? fmt::format(" {} {}", name_of(x.dtype()), x.shape().to_string()) : " -";
  return text;
}

void copy_inputs(std::vector<Tensor>& to, std::span<const Tensor> from) {
  for (std::size_t i = 0; i < from.size(); ++i)
    if (from[i].defined()) copy_(to[i], from[i]);
}

}  // namespace

namespace detail {

Recording::Recording() { current_recording = this; }
Recording::~Recording() { current_recording = nullptr; }
Recording* Recording::current() { return current_recording; }

}  // namespace detail

struct RepeatedPass::State {
  State(Pass p, Device d) : pass(std::move(p)), device(d), records(d.type == DeviceType::cuda && !is_turned_off()) {}

  const Pass pass;
  const Device device;
  const bool records;
  std::atomic<int> recordings{0};
  // A graph a context and shape: evaluation runs as many contexts as there are threads, with two shapes each.
  detail::RecentCache<Key, std::shared_ptr<Entry>, 32> entries;

  Tensor replay(const Entry& e) const {
    cuda::backend().runtime.replay(e.graph.get(), device);
    return e.output.clone();
  }

  // The graph of a pass over e.inputs into e.output. Nothing of the pass outlives the recording, whatever it throws.
  void record(Entry& e) const {
    const cuda::Runtime& runtime = cuda::backend().runtime;
    runtime.begin_recording(device);
    try {
      detail::Recording recording;
      Tensor result = pass(e.inputs);
      if (result.shape() != e.shape || result.dtype() != e.dtype)
        throw Error(fmt::format("its result was {} {} and is {} {} now", name_of(e.dtype), e.shape.to_string(),
                                name_of(result.dtype()), result.shape().to_string()));
      copy_(e.output, result);
      e.held = recording.take_held();
    } catch (...) {
      runtime.end_recording(device, false);
      throw;
    }
    e.graph = runtime.end_recording(device, true);
  }
};

RepeatedPass::RepeatedPass(Pass pass, Device device) : state_(std::make_shared<State>(std::move(pass), device)) {}

int RepeatedPass::recordings() const { return state_->recordings; }

Tensor RepeatedPass::operator()(std::span<const Tensor> inputs) const {
  State& s = *state_;
  Context& context = Context::current();
  const auto is_here = [&](const Tensor& x) { return !x.defined() || x.device() == s.device; };
  if (!s.records || context.dry_run() || detail::Recording::current() || !std::all_of(inputs.begin(), inputs.end(), is_here))
    return s.pass(inputs);

  Key key{cuda::backend().runtime.stream(s.device), {}};
  for (const Tensor& x : inputs) key.inputs.emplace_back(x);
  const auto found = s.entries.get(key, [] { return std::make_shared<Entry>(); });
  Entry& e = **found;
  if (e.graph) {
    copy_inputs(e.inputs, inputs);
    context.add_macs(e.macs);
    return s.replay(e);
  }
  if (e.refused) return s.pass(inputs);
  if (!e.has_run) {
    const Tensor result = s.pass(inputs);
    e.has_run = true;
    e.shape = result.shape();
    e.dtype = result.dtype();
    return result;
  }

  const std::int64_t macs = context.macs();
  try {
    for (const Tensor& x : inputs) e.inputs.push_back(x.defined() ? Tensor::empty(x.shape(), x.dtype(), s.device) : Tensor());
    e.output = Tensor::empty(e.shape, e.dtype, s.device);
    s.record(e);
    e.macs = context.macs() - macs;
    copy_inputs(e.inputs, inputs);
    Tensor result = s.replay(e);
    ++s.recordings;
    cpu::log_dispatch(fmt::format("{}: recorded as a CUDA graph", describe(inputs, s.device)));
    return result;
  } catch (const std::exception& error) {
    e = {};
    e.refused = true;
    context.add_macs(macs - context.macs());
    cpu::log_dispatch(fmt::format("{}: not recorded, it runs plainly: {}", describe(inputs, s.device), error.what()));
  }
  return s.pass(inputs);
}

}  // namespace vitrine
