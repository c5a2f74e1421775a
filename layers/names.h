// Names in messages: as they can be shown, in lists that stay short, and what a user who mistyped one may have meant.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>

namespace vitrine::detail {

// `name` on one line and of bounded length: names from files may hold anything.
VITRINE_API std::string printable(std::string_view name, std::size_t longest = 100);
// "a, b, c" or, of more than `most`, "a, b and 7 more".
VITRINE_API std::string list_names(std::span<const std::string> names, std::size_t most = 4, std::size_t longest = 100);

// Up to `count` of `candidates` that are nearest to `name` by edit distance (case counts half), best first; those that
// have little in common with it are left out.
VITRINE_API std::vector<std::string> nearest_names(std::string_view name, std::span<const std::string> candidates,
                                                   std::size_t count = 3);
// "; nearest: a, b" or "" where nothing is near.
VITRINE_API std::string suggest_names(std::string_view name, std::span<const std::string> candidates, std::size_t count = 3);

// Shell pattern: * any text, ? any one character; case counts.
VITRINE_API bool matches_pattern(std::string_view pattern, std::string_view text);

}  // namespace vitrine::detail
