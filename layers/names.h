// Near names for messages: what a user who mistyped a name may have meant.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>

namespace vitrine::detail {

// Up to `count` of `candidates` that are nearest to `name` by edit distance (case counts half), best first; those that
// have little in common with it are left out.
VITRINE_API std::vector<std::string> nearest_names(std::string_view name, std::span<const std::string> candidates,
                                                   std::size_t count = 3);
// "; nearest: a, b" or "" where nothing is near.
VITRINE_API std::string suggest_names(std::string_view name, std::span<const std::string> candidates, std::size_t count = 3);

}  // namespace vitrine::detail
