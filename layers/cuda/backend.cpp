#include <vitrine/layers/cuda/backend.h>

#include <atomic>
#include <string>

#include <dlfcn.h>
#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/library.h>

namespace vitrine::cuda {

namespace {

struct Found {
  const Backend* backend = nullptr;
  void* library = nullptr;
  std::string reason;
};

Found load() {
#if defined(VITRINE_CUDA)
  const detail::LoadedLibrary library = detail::load_beside("libvitrine_cuda.so");
  if (!library.handle) return {nullptr, nullptr, fmt::format("the CUDA part of Vitrine did not load: {}", library.reason)};
  const auto entry = reinterpret_cast<const Backend* (*)()>(dlsym(library.handle, "vitrine_cuda_backend"));
  const Backend* backend = entry ? entry() : nullptr;
  if (!backend || backend->version != VITRINE_VERSION)
    return {nullptr, nullptr, "libvitrine_cuda.so is of another version of Vitrine"};
  return {backend, library.handle, {}};
#else
  return {nullptr, nullptr, "this build of Vitrine has no CUDA (cmake -DVITRINE_CUDA=ON)"};
#endif
}

const Found& found() {
  static const Found once = load();
  return once;
}

std::atomic<const Backend*> replacement{nullptr};

}  // namespace

const Backend& backend() {
  if (const Backend* other = replacement) return *other;
  if (!found().backend) throw Error(fmt::format("device cuda: {}; use --device cpu", found().reason));
  return *found().backend;
}

std::string_view why_no_backend() { return replacement || found().backend ? std::string_view() : found().reason; }

void* library_symbol(const char* name) { return found().library ? dlsym(found().library, name) : nullptr; }

void set_backend(const Backend* backend) { replacement = backend; }

}  // namespace vitrine::cuda
