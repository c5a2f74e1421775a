// Parts of Vitrine that bring large libraries with them are files beside libvitrine, loaded when something needs them.
#pragma once

#include <string>

namespace vitrine::detail {

struct LoadedLibrary {
  void* handle = nullptr;  // for dlsym; stays loaded until the process ends
  std::string reason;      // why there is none
};
LoadedLibrary load_beside(const std::string& file);  // "libvitrine_codecs.so"

}  // namespace vitrine::detail
