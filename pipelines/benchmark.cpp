#include <vitrine/pipelines/benchmark.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/candidates.h>
#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/repeated_pass.h>
#include <vitrine/pipelines/attention_cases.h>
#include <vitrine/pipelines/generation_cases.h>
#include <vitrine/pipelines/preprocess.h>
#include <vitrine/weights/shipped.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// NAME@SIZE taken apart; an @ within brackets belongs to the arguments.
std::pair<std::string, std::int64_t> split_size(const std::string& name) {
  const auto at = name.find_last_of("@]");
  if (at == std::string::npos || name[at] != '@') return {name, 0};
  std::int64_t size = 0;
  const char *begin = name.data() + at + 1, *end = name.data() + name.size();
  if (std::from_chars(begin, end, size).ptr != end || size < 1 || size > 1 << 14)
    throw Error(fmt::format("model '{}': '{}' is not a size", name, name.substr(at + 1)));
  return {name.substr(0, at), size};
}

// Held by the process beside what is being measured: taken before building.
struct Building {
  Building() : device(Context::current().device()), before(memory_stats(device).in_use) { reset_peak_memory(device); }
  void finish(BenchmarkRow& row, const BenchmarkOptions& options) {
    row.device = describe_device(device);
    row.threads = Context::current().threads();
    row.dtype = name_of(options.dtype);
    row.int8_weights = options.int8_weights;
    row.weight_bytes = memory_stats(device).in_use - before;
    if (row.int8_weights) row.parameter_bytes = row.weight_bytes;
    peak = memory_stats(device).peak - before;
  }
  Device device;
  std::int64_t before, peak = 0;
};

WeightsOptions computing(const BenchmarkOptions& options) {
  return {.dtype = options.dtype, .device = Context::current().device(), .int8_weights = options.int8_weights};
}

// Fills in the row's times, rates and peaks.
void time_passes(const std::function<Tensor()>& pass, const BenchmarkOptions& options, const Building& building,
                 BenchmarkRow& row) {
  const Device device = building.device;
  const RepeatedPass repeated([&](std::span<const Tensor>) { return pass(); }, device);
  const auto milliseconds_of = [&](const auto& queue) {
    const auto begin = Clock::now();
    queue();
    synchronize(device);
    return 1e3 * seconds_since(begin);
  };
  const auto timed = [&] { return milliseconds_of([&] { repeated({}); }); };
  const auto counted = [&] {
    const std::int64_t held = memory_stats(device).in_use;
    reset_peak_memory(device);
    Context::current().reset_macs();
    const double milliseconds = milliseconds_of(pass);
    row.peak_activation_bytes = memory_stats(device).peak - held;
    row.peak_bytes = std::max(building.peak, memory_stats(device).peak - building.before);
    return milliseconds;
  };
  const auto cancelled = [&] { return options.cancelled && options.cancelled(); };
  std::vector<double> samples;
  const auto warm_up = Clock::now();
  double macs = 0;
  if (const double first = counted(); first > 1e3 * options.alone_seconds) {
    macs = static_cast<double>(Context::current().macs());
    samples.push_back(first);
  } else {
    // The first passes make primitives and fill the allocator's cache; on a GPU the second one that is repeated is recorded.
    const int least = device.type == DeviceType::cpu ? 1 : 2;
    for (int i = 0; (i < least || seconds_since(warm_up) < 0.1 * options.seconds) && !cancelled(); ++i) timed();
    counted();
    macs = static_cast<double>(Context::current().macs());
    const auto start = Clock::now();
    do samples.push_back(timed());
    while (seconds_since(start) < options.seconds && !cancelled());
  }
  std::sort(samples.begin(), samples.end());
  const std::size_t n = samples.size();
  row.runs = static_cast<int>(n);
  row.replayed = repeated.recordings() > 0;
  row.median_ms = n % 2 == 1 ? samples[n / 2] : 0.5 * (samples[n / 2 - 1] + samples[n / 2]);
  row.min_ms = samples.front();
  row.p90_ms = samples[(9 * n + 9) / 10 - 1];
  row.images_per_second = 1e3 * static_cast<double>(row.batch_size) / row.median_ms;
  row.gmacs = 1e-9 * macs / static_cast<double>(row.batch_size);
  row.gflops = 2e-6 * macs / row.median_ms;
  row.resident_bytes = peak_resident_bytes();
}

}  // namespace

BenchmarkRow benchmark_model(const std::string& name, const BenchmarkOptions& options) {
  if (!options.impl.empty())
    throw Error(
        fmt::format("model '{}': it chooses its implementations; impl '{}' is for attention operators", name, options.impl));
  auto [model_name, size] = split_size(name);
  std::int64_t height = options.height, width = options.width;
  if (size > 0) height = width = size;
  Arguments arguments;
  if (const auto shipped = find_shipped(model_name)) {
    model_name = shipped->architecture;
    arguments = detail::parse_json_arguments(shipped->config, shipped->name);
    if (height == 0) {
      const PreprocessConfig preprocess = parse_preprocess(shipped->preprocess);
      height = preprocess.height;
      width = preprocess.width;
    }
  }
  if (height > 0) arguments["img_size"] = fmt::format("[{},{}]", height, width);

  Building building;
  const auto model = create_model(model_name, Weights(synthetic_weights(), computing(options)), arguments);
  const ModelInfo& info = model->info();
  BenchmarkRow row;
  row.name = name;
  row.batch_size = options.batch_size;
  row.height = info.preprocess.height;
  row.width = info.preprocess.width;
  row.parameters = info.parameters;
  row.parameter_bytes = info.parameter_bytes;
  building.finish(row, options);

  const Tensor images = synthetic_tensor("input", {row.batch_size, row.height, row.width, info.preprocess.channels})
                            .to(options.dtype)
                            .to(building.device);
  time_passes([&] { return model->forward(images); }, options, building, row);
  return row;
}

namespace {

// What a mechanism or the allocator says does not name the case.
template <typename Body>
auto naming_case(const std::string& text, const Body& body) {
  try {
    return body();
  } catch (const Error& error) {
    const std::string_view what = error.what();
    if (what.find(text) != std::string_view::npos) throw;
    throw Error(fmt::format("attention case '{}': {}", text, what));
  }
}

AttentionProblem attention_problem(const std::string& text, const BenchmarkOptions& options) {
  if (options.int8_weights) throw Error(fmt::format("attention case '{}': int8 weights are for models and denoisers", text));
  if (options.height > 0) throw Error(fmt::format("attention case '{}': its sizes are in its name, no image size applies", text));
  AttentionProblem problem = naming_case(text, [&] { return make_attention_problem(text, options.batch_size, options.dtype); });
  if (!problem.takes_impl && !options.impl.empty())
    throw Error(
        fmt::format("attention case '{}': a layer chooses its implementations; impl '{}' is for operators on given q, k, v", text,
                    options.impl));
  return problem;
}

}  // namespace

BenchmarkRow benchmark_attention(const std::string& text, const BenchmarkOptions& options) {
  Building building;
  const AttentionProblem problem = attention_problem(text, options);
  BenchmarkRow row;
  row.name = text;
  row.batch_size = options.batch_size;
  row.tokens = problem.tokens;
  row.parameters = problem.parameters;
  row.parameter_bytes = row.parameters * static_cast<std::int64_t>(size_of(options.dtype));
  building.finish(row, options);
  naming_case(text, [&] { time_passes([&] { return problem.run(options.impl); }, options, building, row); });
  return row;
}

std::vector<ImplementationRow> list_implementations(const std::string& text, const BenchmarkOptions& options) {
  const AttentionProblem problem = attention_problem(text, options);
  std::vector<detail::Choice> choices;
  Context dry({.threads = 1, .device = Context::current().device(), .dry_run = true});
  {
    const ContextScope scope(dry);
    const detail::ChoiceList list(choices);
    naming_case(text, [&] { problem.run(options.impl); });
  }
  std::vector<ImplementationRow> rows;
  std::set<std::pair<std::string, std::string>> listed;
  for (const detail::Choice& choice : choices) {
    if (!listed.emplace(choice.op, choice.problem).second) continue;
    for (std::size_t i = 0; i < choice.candidates.size(); ++i)
      rows.push_back(
          {choice.op, choice.problem, std::string(choice.candidates[i].name), choice.candidates[i].reason, i == choice.chosen});
  }
  return rows;
}

BenchmarkRow benchmark_generation(const std::string& text, const BenchmarkOptions& options) {
  if (!options.impl.empty())
    throw Error(fmt::format("'{}': it chooses its implementations; impl '{}' is for attention operators", text, options.impl));
  Building building;
  GenerationProblem problem;
  if (is_generation_case(text)) {
    if (options.height > 0)
      throw Error(fmt::format("generation case '{}': its size is in its name, no image size applies", text));
    problem = make_generation_problem(text, options.batch_size, computing(options));
  } else {
    const auto [name, size] = split_size(text);
    problem = make_step_problem(name, size > 0 ? size : options.height, size > 0 ? size : options.width, options.batch_size,
                                computing(options));
  }
  BenchmarkRow row;
  row.name = text;
  row.batch_size = options.batch_size;
  row.height = problem.height;
  row.width = problem.width;
  row.of_latents = true;
  row.parameters = problem.parameters;
  row.parameter_bytes = row.parameters * static_cast<std::int64_t>(size_of(options.dtype));
  building.finish(row, options);
  time_passes(problem.run, options, building, row);
  return row;
}

double measure_gemm_gflops(DType dtype) {
  constexpr double kSeconds = 0.3;  // a size
  const Device device = Context::current().device();
  double best = 0;
  // The larger has the better rate on a quiet machine, the smaller may fit between two interruptions of a busy one. A GPU has
  // more to fill.
  const std::int64_t scale = device.type == DeviceType::cpu ? 1 : 4;
  for (const std::int64_t size : {768 * scale, 2048 * scale}) {
    const Linear linear(synthetic_parameter("weight", {size, size}), Tensor(), dtype, device);
    const Tensor x = synthetic_tensor("input", {size, size}).to(dtype).to(device);
    linear(x);
    synchronize(device);
    const auto start = Clock::now();
    do {
      const auto begin = Clock::now();
      linear(x);
      synchronize(device);
      best = std::max(best, 2e-9 * static_cast<double>(size * size * size) / seconds_since(begin));
    } while (seconds_since(start) < kSeconds);
  }
  return best;
}

}  // namespace vitrine
