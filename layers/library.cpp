#include <vitrine/layers/library.h>

#include <algorithm>
#include <filesystem>

#include <dlfcn.h>

namespace vitrine::detail {

LoadedLibrary load_beside(const std::string& file) {
  Dl_info self{};
  if (dladdr(reinterpret_cast<const void*>(&load_beside), &self) == 0) return {nullptr, "the library's own place is unknown"};
  const auto path = (std::filesystem::path(self.dli_fname).parent_path() / file).string();
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle != nullptr) return {handle, {}};
  std::string reason = dlerror();
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  return {nullptr, reason};
}

}  // namespace vitrine::detail
