#include <vitrine/layers/weights.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <set>
#include <span>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace vitrine {

namespace {

// Whether any of n values has all bits of `exponent` set: NaN or infinity. An OR over a branch-free comparison, so that
// the compiler vectorizes it: it runs at the speed of memory.
template <typename Bits>
bool any_not_finite(const void* data, std::int64_t n, Bits exponent) {
  const Bits* values = static_cast<const Bits*>(data);
  Bits found = 0;
#pragma omp parallel for simd reduction(| : found) if (n > (1 << 18))
  for (std::int64_t i = 0; i < n; ++i) found |= static_cast<Bits>((values[i] & exponent) == exponent);
  return found != 0;
}

bool any_not_finite(const Tensor& t) {
  switch (t.dtype()) {
    case DType::f32:
      return any_not_finite<std::uint32_t>(t.raw(), t.numel(), 0x7f800000u);
    case DType::f16:
      return any_not_finite<std::uint16_t>(t.raw(), t.numel(), 0x7c00u);
    case DType::bf16:
      return any_not_finite<std::uint16_t>(t.raw(), t.numel(), 0x7f80u);
    default:
      return false;
  }
}

}  // namespace

WeightSource::~WeightSource() = default;
void WeightSource::release(std::string_view) const {}
std::map<std::string, std::string> WeightSource::metadata() const { return {}; }

// Shared by all cursors into one source.
struct Weights::State {
  struct Mismatch {
    Shape got, expected;
  };

  std::shared_ptr<const WeightSource> source;

  std::mutex mutex;  // guards what follows
  std::set<std::string, std::less<>> used, missing, with_nan;
  std::map<std::string, Mismatch, std::less<>> mismatched;
  std::map<std::string, std::int64_t, std::less<>> handed_out;  // elements
};

Weights::Weights(std::shared_ptr<const WeightSource> source, WeightsOptions options)
    : state_(std::make_shared<State>()), options_(options) {
  if (!source) throw Error("Weights: there is no source");
  state_->source = std::move(source);
}

std::string Weights::full(std::string_view name) const {
  if (path_.empty()) return std::string(name);
  return name.empty() ? path_ : fmt::format("{}.{}", path_, name);
}

Weights Weights::operator/(std::string_view part) const {
  Weights below = *this;
  below.path_ = full(part);
  return below;
}

Weights Weights::operator/(std::int64_t index) const { return *this / std::string_view(std::to_string(index)); }

Weights Weights::in(DType dtype) const {
  Weights other = *this;
  other.options_.dtype = dtype;
  return other;
}

const WeightSource& Weights::source() const { return *state_->source; }
std::shared_ptr<const WeightSource> Weights::shared_source() const { return state_->source; }
void Weights::replace_source(std::shared_ptr<const WeightSource> source) const { state_->source = std::move(source); }

bool Weights::has(std::string_view name) const { return source().is_open() || source().find(full(name)).has_value(); }

std::optional<Shape> Weights::shape_of(std::string_view name) const {
  const auto entry = source().find(full(name));
  return entry ? std::optional(entry->shape) : std::nullopt;
}

Tensor Weights::get(std::string_view name, const Shape& shape, DType dtype) const {
  const std::string key = full(name);
  if (!source().is_open()) {
    const auto entry = source().find(key);
    std::lock_guard lock(state_->mutex);
    state_->used.insert(key);
    if (!entry) {
      state_->missing.insert(key);
      return Tensor::zeros(shape, dtype);
    }
    if (entry->shape != shape) {
      state_->mismatched.insert_or_assign(key, State::Mismatch{entry->shape, shape});
      return Tensor::zeros(shape, dtype);
    }
  }
  const Tensor stored = source().load(key, shape).contiguous();
  const bool not_finite = !source().is_open() && any_not_finite(stored);  // what an open source makes up is finite
  {
    std::lock_guard lock(state_->mutex);
    if (not_finite) state_->with_nan.insert(key);
    state_->handed_out.insert_or_assign(key, stored.numel());
  }
  return stored.to(dtype);  // outside of the lock: threads convert side by side
}

Tensor Weights::on_device(std::string_view name, const Shape& shape, DType dtype) const {
  return get(name, shape, dtype).to(device());
}

void Weights::release(std::string_view name) const { source().release(full(name)); }

void Weights::ignore(std::string_view name) const {
  // With no name of its own it is everything below the cursor: blocks.1. must not take blocks.10 along.
  const std::string prefix = name.empty() && !path_.empty() ? path_ + "." : full(name);
  const std::vector<std::string> names = source().names();
  std::lock_guard lock(state_->mutex);
  for (const std::string& n : names)
    if (n.starts_with(prefix)) state_->used.insert(n);
}

std::int64_t Weights::parameters() const {
  std::lock_guard lock(state_->mutex);
  const auto is_statistic = [](std::string_view name) { return name.ends_with("running_mean") || name.ends_with("running_var"); };
  return std::accumulate(
      state_->handed_out.begin(), state_->handed_out.end(), std::int64_t{0},
      [&](std::int64_t sum, const auto& entry) { return is_statistic(entry.first) ? sum : sum + entry.second; });
}

std::vector<std::string> Weights::missing() const {
  std::lock_guard lock(state_->mutex);
  return {state_->missing.begin(), state_->missing.end()};
}

std::vector<std::string> Weights::unused() const {
  std::vector<std::string> names = source().names();
  std::lock_guard lock(state_->mutex);
  std::erase_if(names, [&](const std::string& n) { return state_->used.contains(n); });
  return names;
}

std::vector<std::string> Weights::with_nan() const {
  std::lock_guard lock(state_->mutex);
  return {state_->with_nan.begin(), state_->with_nan.end()};
}

void Weights::check(std::string_view what) const {
  const std::vector<std::string> lacking = missing(), spare = unused();
  std::vector<std::string> shapes;
  {
    std::lock_guard lock(state_->mutex);
    for (const auto& [name, m] : state_->mismatched)
      shapes.push_back(fmt::format("{} is {}, expected {}", detail::printable(name), m.got.to_string(), m.expected.to_string()));
  }
  if (lacking.empty() && shapes.empty() && spare.empty()) return;

  const auto count = [](std::size_t n, std::string_view of) { return fmt::format("{} {}{}", n, of, n == 1 ? "" : "s"); };
  std::vector<std::string> parts;
  bool source_named = false;
  if (!lacking.empty()) {
    // Names that nobody asked for are the likely misspellings; where none is near, any name of the source.
    constexpr std::size_t kShown = 4;
    const std::vector<std::string> all = source().names();
    // A hostile file may have a million names, and comparing is not cheap.
    const auto some = [](const std::vector<std::string>& v) {
      return std::span(v).first(std::min<std::size_t>(v.size(), 10000));
    };
    std::vector<std::string> near;
    for (std::size_t i = 0; i < std::min(lacking.size(), kShown); ++i) {
      std::vector<std::string> found = detail::nearest_names(lacking[i], some(spare), 1);
      if (found.empty()) found = detail::nearest_names(lacking[i], some(all), 1);
      for (std::string& f : found)
        if (std::find(near.begin(), near.end(), f) == near.end()) near.push_back(std::move(f));
    }
    std::string part = fmt::format("{} missing ({}", count(lacking.size(), "parameter"), detail::list_names(lacking, kShown));
    source_named = !near.empty();
    if (source_named) part += fmt::format("; nearest in {}: {}", source().describe(), detail::list_names(near, kShown));
    parts.push_back(part + ")");
  }
  if (!shapes.empty())
    parts.push_back(fmt::format("{} {} ({})", shapes.size(), shapes.size() == 1 ? "has another shape" : "have other shapes",
                                detail::list_names(shapes, 4, 300)));
  if (!spare.empty()) parts.push_back(fmt::format("{} not used ({})", spare.size(), detail::list_names(spare)));

  std::string message = fmt::format("{}: ", what);
  for (std::size_t i = 0; i < parts.size(); ++i) message += (i ? ", " : "") + parts[i];
  if (!source_named) message += fmt::format(" in {}", source().describe());
  throw Error(message);
}

}  // namespace vitrine
