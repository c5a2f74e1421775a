// The initializers of ONNX models under their names.
#pragma once

#include <memory>
#include <string>

#include <vitrine/layers/weights.h>

namespace vitrine::detail {

std::shared_ptr<const WeightSource> open_onnx_file(const std::string& path);

}  // namespace vitrine::detail
