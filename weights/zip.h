// The members of a zip archive that are stored, not compressed, as PyTorch writes them. Nothing is unpacked: members are
// spans of the archive's bytes.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace vitrine::detail {

using ZipMembers = std::map<std::string, std::span<const std::byte>, std::less<>>;

bool is_zip(std::span<const std::byte> bytes);
// Every offset and size is checked: members lie inside the archive, apart from each other, under names that stay inside a
// folder. Throws Error, naming `path`; compressed, encrypted and split archives are refused.
ZipMembers read_zip(std::span<const std::byte> bytes, const std::string& path);

}  // namespace vitrine::detail
