// Reading whole files: not part of the public interface.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vitrine {

// Throws Error: `PATH: no such file`, `PATH: a directory, expected WHAT`, ...
std::vector<std::uint8_t> read_file(const std::string& path, std::string_view what);

}  // namespace vitrine
