// PyTorch's checkpoints (.pth, .pt, .bin): what torch.save writes, read without running any of it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include <vitrine/layers/weights.h>

namespace vitrine::detail {

bool is_pytorch(std::span<const std::byte> bytes);  // by what the file begins with: a zip archive or the stream's mark
std::shared_ptr<const WeightSource> open_pytorch_file(const std::string& path);

}  // namespace vitrine::detail
