// Values that follow from a tensor's name and shape alone. Each is computed in double and rounded once to float, without
// fused multiply-adds (-ffp-contract=off), so that every machine has the same bits as the reference.
#include <vitrine/weights/sources.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace vitrine {

namespace {

std::uint64_t fnv1a64(std::string_view name) {
  std::uint64_t h = 0xCBF29CE484222325u;
  for (char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return h;
}

// The i-th value of a name: 24 random bits as a number in [-1, 1), exact in float.
inline double uniform(std::uint64_t seed, std::int64_t i) {
  std::uint64_t z = seed + (static_cast<std::uint64_t>(i) + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return static_cast<double>(static_cast<std::int32_t>(z >> 40)) * 0x1p-23 - 1.0;
}

template <typename Rule>
Tensor fill(std::string_view name, const Shape& shape, const Rule& rule) {
  Tensor t = Tensor::empty(shape);
  float* out = t.data<float>();
  const std::uint64_t seed = fnv1a64(name);
  cpu::parallel_for(t.numel(), 1 << 15, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) out[i] = static_cast<float>(rule(uniform(seed, i)));
  });
  return t;
}

class Synthetic final : public WeightSource {
 public:
  explicit Synthetic(double gain) : gain_(gain) {}
  Synthetic(std::vector<std::pair<std::string, Shape>> entries, double gain) : gain_(gain), shapes_(std::in_place) {
    for (auto& [name, shape] : entries) {
      checked_numel(shape, DType::f32);
      if (!shapes_->emplace(name, shape).second)
        throw Error(fmt::format("synthetic weights: {} is listed twice", detail::printable(name)));
    }
  }

  std::string describe() const override { return gain_ == 1.0 ? "synthetic" : fmt::format("synthetic (gain {})", gain_); }

  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    if (shapes_)
      for (const auto& [name, shape] : *shapes_) all.push_back(name);
    return all;
  }

  bool is_open() const override { return !shapes_; }

  std::optional<Entry> find(std::string_view name) const override {
    if (!shapes_) return std::nullopt;
    const auto found = shapes_->find(name);
    if (found == shapes_->end()) return std::nullopt;
    return Entry{DType::f32, found->second};
  }

  Tensor load(std::string_view name, const Shape& shape) const override {
    if (!shapes_) return synthetic_parameter(name, shape, gain_);
    const auto entry = find(name);
    if (!entry) throw Error(fmt::format("synthetic weights: there is no {}", detail::printable(name)));
    return synthetic_parameter(name, entry->shape, gain_);
  }

 private:
  double gain_;
  std::optional<std::map<std::string, Shape, std::less<>>> shapes_;  // none: any name, any shape
};

}  // namespace

Tensor synthetic_tensor(std::string_view name, const Shape& shape) {
  return fill(name, shape, [](double u) { return u; });
}

Tensor synthetic_parameter(std::string_view name, const Shape& shape, double gain) {
  const std::string_view last = name.substr(name.rfind('.') + 1);
  if (last == "running_var") return fill(name, shape, [](double u) { return 1.0 + 0.5 * std::abs(u); });
  if (last == "running_mean") return fill(name, shape, [](double u) { return 0.1 * u; });
  if (shape.rank() <= 1) {
    if (last.ends_with("weight")) return fill(name, shape, [](double u) { return 1.0 + 0.1 * u; });
    if (last.find("bias") != std::string_view::npos) return fill(name, shape, [](double u) { return 0.1 * u; });
    return fill(name, shape, [](double u) { return 0.5 + 0.1 * u; });
  }
  if (last.ends_with("weight")) {
    std::int64_t fan_in = 1;
    for (int axis = 1; axis < shape.rank(); ++axis) fan_in *= shape[axis];
    const double scale = gain * std::sqrt(3.0 / static_cast<double>(fan_in));
    return fill(name, shape, [scale](double u) { return u * scale; });
  }
  return fill(name, shape, [](double u) { return 0.2 * u; });
}

std::shared_ptr<const WeightSource> synthetic_weights(double gain) { return std::make_shared<Synthetic>(gain); }

std::shared_ptr<const WeightSource> synthetic_weights(std::vector<std::pair<std::string, Shape>> entries, double gain) {
  return std::make_shared<Synthetic>(std::move(entries), gain);
}

}  // namespace vitrine
