#include <vitrine/layers/devices.h>

#include <fmt/format.h>

namespace vitrine {

#ifndef VITRINE_CUDA
CudaDevices cuda_devices() { return {{}, "this build of Vitrine has no CUDA (cmake -DVITRINE_CUDA=ON)"}; }
#endif

Device parse_device(std::string_view name) {
  if (name == "cpu") return {};
  if (name.substr(0, 4) != "cuda" || (name.size() > 4 && name[4] != ':'))
    throw Error(fmt::format("unknown device '{}': expected cpu, cuda or cuda:INDEX", name));
  const CudaDevices found = cuda_devices();
  if (found.devices.empty()) throw Error(fmt::format("device {}: {}; use --device cpu", name, found.reason));
  throw Error(fmt::format("device {}: found {}, but this version computes on the CPU only; use --device cpu", name,
                          found.devices.front().name));
}

}  // namespace vitrine
