// Reference cases of generation: their kinds, inputs and outputs. The runners are in verify_NAME.cpp.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/detail/verify_generation.h>
#include <vitrine/weights/sources.h>

namespace vitrine::detail {
namespace {

// The groups, each with its table.
const std::vector<std::span<const GenerationKind>>& groups() {
  static const std::vector<std::span<const GenerationKind>> all{sampler_kinds(), text_kinds(), denoiser_kinds(),
                                                                autoencoder_kinds(), pipeline_kinds()};
  return all;
}

constexpr double kRmsTolerance = 1e-4;  // of the full output, relative

double rms(const Tensor& x) {
  const float* values = x.data<float>();
  double sum = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) sum += static_cast<double>(values[i]) * values[i];
  return x.numel() > 0 ? std::sqrt(sum / static_cast<double>(x.numel())) : 0;
}

double largest(const Tensor& x) {
  const float* values = x.data<float>();
  double most = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) most = std::max(most, std::abs(static_cast<double>(values[i])));
  return most;
}

// Nested lists of numbers, flattened.
void flatten(const Json& values, const std::function<void(const Json&)>& take) {
  if (!values.is_array()) return take(values);
  for (const Json& value : values) flatten(value, take);
}

template <typename T>
Tensor given(const Json& values, const Shape& shape, DType dtype) {
  Tensor tensor = Tensor::empty(shape, dtype);
  std::vector<T> flat;
  flatten(values, [&](const Json& value) { flat.push_back(value.get<T>()); });
  if (static_cast<std::int64_t>(flat.size()) != tensor.numel())
    throw Error(fmt::format("{} values, expected {} for {}", flat.size(), tensor.numel(), shape.to_string()));
  std::copy(flat.begin(), flat.end(), tensor.data<T>());
  return tensor;
}

}  // namespace

CaseRunner generation_runner(std::string_view kind) {
  for (const auto& group : groups())
    for (const GenerationKind& row : group)
      if (row.kind == kind) return row.run;
  return nullptr;
}

Tensor case_input(const Json& input) {
  const Shape shape = shape_of(input.at("shape"));
  if (input.contains("values"))
    return input.at("dtype").get<std::string>().starts_with("int") ? given<std::int64_t>(input["values"], shape, DType::i64)
                                                                   : given<float>(input["values"], shape, DType::f32);
  const Tensor x = synthetic_tensor(input.at("name").get<std::string>(), shape);
  const double scale = input.value("scale", 1.0);
  return scale == 1.0 ? x : affine(x, static_cast<float>(scale), 0);
}

Weights case_weights(const Json& parameters, const CaseContext& context) {
  return Weights(synthetic_weights(entries_of(read_json(path_in(context, parameters)))),
                 {.dtype = context.dtype, .device = Context::current().device()});
}

Arguments case_arguments(const Json& entry, const char* network) {
  Arguments arguments;
  for (const auto& [name, value] : entry.at("config").at(network).items()) arguments[name] = value.dump();
  return arguments;
}

Tensor optional_input(const Json& entry, const char* name) {
  const Json& inputs = entry.at("inputs");
  return inputs.contains(name) ? case_input(inputs.at(name)) : Tensor();
}

Tensor device_input(const Json& entry, const char* name) { return optional_input(entry, name).to(Context::current().device()); }

void check_parameters(const Json& entry, std::int64_t parameters) {
  const auto expected = entry.at("n_parameters").get<std::int64_t>();
  if (parameters != expected) throw Error(fmt::format("{} parameters, expected {}", parameters, expected));
}

void judge_outputs(const Json& entry, const CaseContext& context, const std::map<std::string, Tensor>& got,
                   const GenerationBounds& bounds, VerifyRow& row) {
  const bool exact = context.dtype == DType::f32;
  for (const auto& [name, expected] : entry.at("outputs").items()) {
    const auto found = got.find(name);
    if (found == got.end()) throw Error(fmt::format("the model does not give the output {}", name));
    const Tensor output = found->second.to(Device{}).contiguous().to(DType::f32);
    const Shape shape = shape_of(expected.at("shape"));
    if (!(output.shape() == shape))
      throw Error(fmt::format("{} is {}, expected {}", name, output.shape().to_string(), shape.to_string()));
    const Json& sample = expected.at("subsample");
    const auto stride = sample.at("flat_stride").get<std::int64_t>(), offset = sample.at("flat_offset").get<std::int64_t>();
    if (stride < 1 || offset < 0 || offset >= output.numel()) throw Error(fmt::format("{}: subsample out of range", name));
    const Tensor values = output.view({output.numel()}).slice(0, offset, output.numel());
    const Tensor loaded =
        open_safetensors(path_in(context, expected.at("file")))->load(expected.at("key").get<std::string>(), {});
    const Tensor stored = loaded.view({loaded.numel()}).to(DType::f32);
    if (exact && bounds.rows && stride == 1 && shape.rank() > 1) {
      const std::int64_t count = output.numel() / shape[0];
      for (std::int64_t step = 0; step < shape[0]; ++step) {
        const Tensor reference = stored.slice(0, step * count, (step + 1) * count);
        judge(values.slice(0, step * count, (step + 1) * count), reference,
              {fmt::format("{}[{}]", name, step), "max_abs", bounds.exact * std::max(1.0, largest(reference)), 1}, row);
      }
    } else {
      double bound = bounds.exact * expected.at("absmax").get<double>();
      for (const auto& [output_name, own] : bounds.own)
        if (output_name == name) bound = own * expected.at("absmax").get<double>();
      judge(values, stored, exact ? Judgement{name, "max_abs", bound, stride} : Judgement{name, "rel_l2", bounds.loose, stride},
            row);
    }
    const double size = rms(output), reference = expected.at("rms").get<double>();
    if (exact && row.message.empty() && !(std::abs(size - reference) <= kRmsTolerance * std::abs(reference)))
      row.message = fmt::format("{}: rms is {:.7g}, expected {:.7g}", name, size, reference);
  }
}

Tensor nchw_to_nhwc(const Tensor& x) {
  const int axes[] = {0, 2, 3, 1};
  return permute(x, axes);
}
Tensor nhwc_to_nchw(const Tensor& x) {
  const int axes[] = {0, 3, 1, 2};
  return permute(x, axes);
}

}  // namespace vitrine::detail
