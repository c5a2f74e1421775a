// Position tables and the like: computed once for a map's size.
#pragma once

#include <array>
#include <cstdint>

#include <vitrine/layers/recent_cache.h>

namespace vitrine::detail {

// A few values that follow from a map's height and width, kept between calls. Thread-safe.
template <typename T>
class SizeCache {
 public:
  template <typename Make>
  T get(std::int64_t height, std::int64_t width, const Make& make) const {
    return *values_.get({height, width}, make);
  }

 private:
  RecentCache<std::array<std::int64_t, 2>, T, 8> values_;
};

}  // namespace vitrine::detail
