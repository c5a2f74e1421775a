// Reading and writing whole files: not part of the public interface.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vitrine {

// Throws Error: `PATH: no such file`, `PATH: a directory, expected WHAT`, ...
std::vector<std::uint8_t> read_file(const std::string& path, std::string_view what);

// Through a temporary file beside it that is renamed when all is written; on an error nothing is left behind. What exists
// and is no regular file (a device, a pipe) is written to directly.
void write_file(const std::string& path, std::span<const std::uint8_t> bytes);

}  // namespace vitrine
