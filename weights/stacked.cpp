// Sources over others: parameters that a publisher keeps apart and our layers have in one (query, key and value), one over
// another.
#include <vitrine/weights/sources.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace vitrine {

namespace {

class Stacked final : public WeightSource {
 public:
  explicit Stacked(std::shared_ptr<const WeightSource> source) : source_(std::move(source)) {
    for (const std::string& name : source_->names()) {
      const auto open = name.find('[');
      const bool part =
          open != name.npos && open + 2 < name.size() && name[open + 1] >= '0' && name[open + 1] <= '9' && name[open + 2] == ']';
      const std::string whole = part ? name.substr(0, open) + name.substr(open + 3) : name;
      auto& parts = parts_[whole];
      const std::size_t place = part ? static_cast<std::size_t>(name[open + 1] - '0') : 0;
      if (parts.size() <= place) parts.resize(place + 1);
      if (!parts[place].empty())
        throw Error(fmt::format("{}: {} and {} are both {}", describe(), detail::printable(parts[place]), detail::printable(name),
                                detail::printable(whole)));
      parts[place] = name;
    }
    for (const auto& [whole, parts] : parts_) check(whole, parts);
  }

  std::string describe() const override { return source_->describe(); }
  std::map<std::string, std::string> metadata() const override { return source_->metadata(); }

  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (const auto& [whole, parts] : parts_) all.push_back(whole);
    return all;
  }

  std::optional<Entry> find(std::string_view name) const override {
    const auto found = parts_.find(name);
    if (found == parts_.end()) return std::nullopt;
    Entry entry = *source_->find(found->second.front());
    for (std::size_t i = 1; i < found->second.size(); ++i) entry.shape[0] += source_->find(found->second[i])->shape[0];
    return entry;
  }

  Tensor load(std::string_view name, const Shape& shape) const override {
    const auto found = parts_.find(name);
    if (found == parts_.end()) throw Error(fmt::format("{}: there is no {}", describe(), detail::printable(name)));
    if (found->second.size() == 1) return source_->load(found->second.front(), shape);
    const Entry entry = *find(name);
    Tensor whole = Tensor::empty(entry.shape, entry.dtype);
    auto* at = static_cast<std::byte*>(whole.raw());
    for (const std::string& part : found->second) {
      const Tensor rows = source_->load(part, {}).contiguous();
      if (rows.bytes() > 0) std::memcpy(at, rows.raw(), rows.bytes());
      at += rows.bytes();
    }
    return whole;
  }

  void release(std::string_view name) const override {
    const auto found = parts_.find(name);
    if (found == parts_.end()) return;
    for (const std::string& part : found->second) source_->release(part);
  }

 private:
  // Rows of one type and width, none missing.
  void check(const std::string& whole, const std::vector<std::string>& parts) const {
    if (parts.size() == 1) return;
    std::optional<Entry> first;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (parts[i].empty()) throw Error(fmt::format("{}: part {} of {} is missing", describe(), i, detail::printable(whole)));
      const Entry entry = *source_->find(parts[i]);
      if (!first) first = entry;
      bool fits = entry.dtype == first->dtype && entry.shape.rank() == first->shape.rank() && entry.shape.rank() > 0;
      for (int axis = 1; fits && axis < entry.shape.rank(); ++axis) fits = entry.shape[axis] == first->shape[axis];
      if (!fits)
        throw Error(fmt::format("{}: {} is {}, expected rows like {} of {}", describe(), detail::printable(parts[i]),
                                entry.shape.to_string(), detail::printable(parts[0]), first->shape.to_string()));
    }
  }

  std::shared_ptr<const WeightSource> source_;
  std::map<std::string, std::vector<std::string>, std::less<>> parts_;  // in their order
};

class Overlaid final : public WeightSource {
 public:
  Overlaid(std::shared_ptr<const WeightSource> base, std::shared_ptr<const WeightSource> over)
      : base_(std::move(base)), over_(std::move(over)) {}

  std::string describe() const override { return base_->describe(); }
  std::map<std::string, std::string> metadata() const override { return base_->metadata(); }
  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    const std::vector<std::string> below = base_->names(), above = over_->names();
    std::set_union(below.begin(), below.end(), above.begin(), above.end(), std::back_inserter(all));
    return all;
  }
  bool is_open() const override { return base_->is_open(); }
  std::optional<Entry> find(std::string_view name) const override {
    const auto entry = over_->find(name);
    return entry ? entry : base_->find(name);
  }
  Tensor load(std::string_view name, const Shape& shape) const override {
    return (over_->find(name) ? over_ : base_)->load(name, shape);
  }
  void release(std::string_view name) const override { (over_->find(name) ? over_ : base_)->release(name); }

 private:
  std::shared_ptr<const WeightSource> base_, over_;
};

class Described final : public WeightSource {
 public:
  Described(std::shared_ptr<const WeightSource> source, std::string name, std::map<std::string, std::string> metadata)
      : source_(std::move(source)), name_(std::move(name)), metadata_(std::move(metadata)) {}

  std::string describe() const override { return name_; }
  std::map<std::string, std::string> metadata() const override { return metadata_; }
  std::vector<std::string> names() const override { return source_->names(); }
  std::optional<Entry> find(std::string_view name) const override { return source_->find(name); }
  Tensor load(std::string_view name, const Shape& shape) const override { return source_->load(name, shape); }
  void release(std::string_view name) const override { source_->release(name); }

 private:
  std::shared_ptr<const WeightSource> source_;
  std::string name_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace

std::shared_ptr<const WeightSource> stacked(std::shared_ptr<const WeightSource> source) {
  return std::make_shared<Stacked>(std::move(source));
}

std::shared_ptr<const WeightSource> overlaid(std::shared_ptr<const WeightSource> base, std::shared_ptr<const WeightSource> over) {
  return std::make_shared<Overlaid>(std::move(base), std::move(over));
}

std::shared_ptr<const WeightSource> described(std::shared_ptr<const WeightSource> source, std::string name,
                                              std::map<std::string, std::string> metadata) {
  return std::make_shared<Described>(std::move(source), std::move(name), std::move(metadata));
}

}  // namespace vitrine
