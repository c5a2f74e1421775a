// Sources over other things: nothing but zeros, tensors at hand, and another source under new names.
#include <vitrine/weights/sources.h>

#include <bit>
#include <optional>
#include <regex>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace vitrine {

namespace {

class Memory final : public WeightSource {
 public:
  Memory(std::map<std::string, Tensor> tensors, std::string description, std::map<std::string, std::string> metadata)
      : tensors_(std::make_move_iterator(tensors.begin()), std::make_move_iterator(tensors.end())),
        description_(std::move(description)),
        metadata_(std::move(metadata)) {
    for (const auto& [name, tensor] : tensors_)
      if (!tensor.defined()) throw Error(fmt::format("{}: {} is an empty tensor", description_, detail::printable(name)));
  }

  std::string describe() const override { return description_; }
  std::map<std::string, std::string> metadata() const override { return metadata_; }

  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (const auto& [name, tensor] : tensors_) all.push_back(name);
    return all;
  }

  std::optional<Entry> find(std::string_view name) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return std::nullopt;
    return Entry{found->second.dtype(), found->second.shape()};
  }

  Tensor load(std::string_view name, const Shape&) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw Error(fmt::format("{}: there is no {}", description_, detail::printable(name)));
    return found->second;
  }

 private:
  std::map<std::string, Tensor, std::less<>> tensors_;
  std::string description_;
  std::map<std::string, std::string> metadata_;
};

class Zeros final : public WeightSource {
 public:
  std::string describe() const override { return "zeros"; }
  std::vector<std::string> names() const override { return {}; }
  bool is_open() const override { return true; }
  std::optional<Entry> find(std::string_view) const override { return std::nullopt; }
  Tensor load(std::string_view, const Shape& shape) const override { return Tensor::zeros(shape); }
};

// std::regex recurses once a character: a hostile name of a megabyte would overflow the stack. No published name is
// near this length; longer ones keep their name.
constexpr std::size_t kLongestMatched = 512;

class Renamed final : public WeightSource {
 public:
  Renamed(std::shared_ptr<const WeightSource> source, std::span<const NameRule> rules) : source_(std::move(source)) {
    std::vector<std::pair<std::regex, std::string>> compiled;
    for (const NameRule& rule : rules)
      compiled.emplace_back(std::regex(rule.pattern.begin(), rule.pattern.end(), std::regex::ECMAScript | std::regex::optimize),
                            std::string(rule.replacement));
    for (const std::string& old : source_->names()) {
      std::string name = old;
      if (old.size() <= kLongestMatched) {
        for (const auto& [pattern, replacement] : compiled) {
          std::smatch match;
          if (!std::regex_match(old, match, pattern)) continue;
          name = match.format(replacement);
          break;
        }
      }
      if (name.empty()) continue;
      const auto [place, is_new] = originals_.emplace(name, old);
      if (!is_new)
        throw Error(fmt::format("{}: {} and {} are both {} here", source_->describe(), detail::printable(place->second),
                                detail::printable(old), detail::printable(name)));
    }
  }

  std::string describe() const override { return source_->describe(); }
  std::map<std::string, std::string> metadata() const override { return source_->metadata(); }

  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (const auto& [name, old] : originals_) all.push_back(name);
    return all;
  }

  std::optional<Entry> find(std::string_view name) const override {
    const auto found = originals_.find(name);
    return found == originals_.end() ? std::nullopt : source_->find(found->second);
  }

  Tensor load(std::string_view name, const Shape& shape) const override {
    const auto found = originals_.find(name);
    if (found == originals_.end()) throw Error(fmt::format("{}: there is no {}", describe(), detail::printable(name)));
    return source_->load(found->second, shape);
  }

  void release(std::string_view name) const override {
    const auto found = originals_.find(name);
    if (found != originals_.end()) source_->release(found->second);
  }

 private:
  std::shared_ptr<const WeightSource> source_;
  std::map<std::string, std::string, std::less<>> originals_;  // new name -> name in the source
};

}  // namespace

std::shared_ptr<const WeightSource> zero_weights() { return std::make_shared<Zeros>(); }

std::shared_ptr<const WeightSource> memory_weights(std::map<std::string, Tensor> tensors, std::string description,
                                                   std::map<std::string, std::string> metadata) {
  return std::make_shared<Memory>(std::move(tensors), std::move(description), std::move(metadata));
}

std::shared_ptr<const WeightSource> renamed(std::shared_ptr<const WeightSource> source, std::span<const NameRule> rules) {
  if (source->is_open() || rules.empty()) return source;  // an open source has our names already
  return std::make_shared<Renamed>(std::move(source), rules);
}

std::shared_ptr<const WeightSource> renamed(std::shared_ptr<const WeightSource> source, std::span<const NameMap> maps) {
  if (source->is_open()) return source;
  for (const NameMap& map : maps)
    if (source->find(map.marker)) return stacked(renamed(renamed(std::move(source), map.rules), map.then));
  return source;
}

void rename_parameters(const Weights& w, std::span<const NameMap> maps) {
  if (w.path().empty()) w.replace_source(renamed(w.shared_source(), maps));
}

std::uint64_t checksum(const WeightSource& source) {
  if (source.is_open()) throw Error(fmt::format("checksum: {} has no list of parameters", source.describe()));
  std::uint64_t sum = 0;
  for (const std::string& name : source.names()) {
    const Tensor t = source.load(name, {}).contiguous().to(DType::f32);
    const float* values = t.data<float>();
    const std::int64_t n = t.numel();
#pragma omp parallel for simd reduction(+ : sum) if (n > (1 << 18))
    for (std::int64_t i = 0; i < n; ++i) sum += std::bit_cast<std::uint32_t>(values[i]);
  }
  return sum;
}

}  // namespace vitrine
