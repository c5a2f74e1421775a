#include <vitrine/backbones/backbone.h>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>

namespace vitrine {

Backbone::~Backbone() = default;

std::vector<bool> detail::wanted_indices(std::span<const int> indices, int count, std::string_view model) {
  std::vector<bool> wanted(static_cast<std::size_t>(count), indices.empty());
  for (const int index : indices) {
    if (index < -count || index >= count)
      throw Error(fmt::format("{}: no intermediate {}, expected {} to {}", model, index, -count, count - 1));
    wanted[static_cast<std::size_t>(index < 0 ? index + count : index)] = true;
  }
  return wanted;
}

}  // namespace vitrine
