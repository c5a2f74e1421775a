#include <vitrine/layers/devices.h>

#include <charconv>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cuda/backend.h>

namespace vitrine {

CudaDevices cuda_devices() {
  if (const std::string_view reason = cuda::why_no_backend(); !reason.empty()) return {{}, std::string(reason)};
  return cuda::backend().runtime.devices();
}

Device parse_device(std::string_view name) {
  if (name == "cpu") return {};
  const auto fail = [&] { return Error(fmt::format("unknown device '{}': expected cpu, cuda or cuda:INDEX", name)); };
  if (name.substr(0, 4) != "cuda") throw fail();
  int index = 0;
  if (name.size() > 4) {
    const std::string_view digits = name.substr(5);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (name[4] != ':' || digits.empty() || error != std::errc() || end != digits.data() + digits.size() || index < 0)
      throw fail();
  }
  const CudaDevices found = cuda_devices();
  if (found.devices.empty()) throw Error(fmt::format("device {}: {}; use --device cpu", name, found.reason));
  if (index >= static_cast<int>(found.devices.size()))
    throw Error(fmt::format("device {}: there {} {} (cuda:0 to cuda:{})", name, found.devices.size() == 1 ? "is" : "are",
                            found.devices.size(), found.devices.size() - 1));
  return {DeviceType::cuda, index};
}

std::string describe_device(Device device) {
  if (device.type == DeviceType::cpu) return "cpu";
  const CudaDevices found = cuda_devices();
  const auto i = static_cast<std::size_t>(device.index);
  return fmt::format("cuda:{}{}", i, i < found.devices.size() ? " " + found.devices[i].name : "");
}

void synchronize(Device device) {
  if (device.type == DeviceType::cuda && !Context::current().dry_run()) cuda::backend().runtime.synchronize(device);
}

Tensor finished(Tensor x) {
  synchronize(x.device());
  return x;
}

bool is_accelerator(Device device) { return device.type != DeviceType::cpu; }

HostCopy::HostCopy(const Tensor& x) : host_(x) {
  if (!is_accelerator(x.device())) return;
  const Tensor from = x.contiguous();
  host_ = Tensor::empty(x.shape(), x.dtype());
  if (!Context::current().dry_run() && x.numel() > 0)
    download_ = cuda::backend().runtime.download(from.raw(), from.bytes(), from.device());
}

Tensor HostCopy::get() {
  if (download_) std::memcpy(host_.raw(), download_->wait(), host_.bytes());
  download_ = nullptr;
  return std::move(host_);
}

MemoryStats memory_stats(Device device) {
  return device.type == DeviceType::cuda ? cuda::backend().runtime.memory(device) : memory_stats();
}

void reset_peak_memory(Device device) {
  device.type == DeviceType::cuda ? cuda::backend().runtime.reset_peak_memory(device) : reset_peak_memory();
}

}  // namespace vitrine
