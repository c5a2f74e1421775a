// What samplers share of a step: what a prediction says, what is done to it, and how it is remembered.
#include <algorithm>
#include <cmath>
#include <functional>

#include <vitrine/pipelines/detail/sampler.h>

namespace vitrine::detail {

void read_prediction(SettingsReader& reader, Prediction& field, bool flow) {
  std::vector<std::pair<std::string, Prediction>> known{
      {"epsilon", Prediction::epsilon}, {"sample", Prediction::sample}, {"v_prediction", Prediction::v_prediction}};
  if (flow) known.emplace_back("flow_prediction", Prediction::flow_prediction);
  reader.choose("prediction_type", field, known);
}

Level variance_preserving(float alpha_cumprod) { return {std::sqrt(alpha_cumprod), std::sqrt(1 - alpha_cumprod)}; }

Level level_of_sigma(float sigma, bool flow) {
  if (flow) return {1 - sigma, sigma};
  const float alpha = 1 / std::sqrt(sigma * sigma + 1);
  return {alpha, sigma * alpha};
}

Tensor original_of(Prediction type, const Tensor& prediction, const Tensor& x, Level level) {
  const float alpha = level.alpha, sigma = level.sigma;
  switch (type) {
    case Prediction::epsilon:
      return zip([=](float e, float x) { return (x - sigma * e) / alpha; }, prediction, x);
    case Prediction::v_prediction:
      return zip([=](float v, float x) { return alpha * x - sigma * v; }, prediction, x);
    case Prediction::flow_prediction:
      return zip([=](float flow, float x) { return x - sigma * flow; }, prediction, x);
    case Prediction::sample:
      break;
  }
  return prediction;
}

Tensor noise_of(Prediction type, const Tensor& prediction, const Tensor& x, Level level) {
  const float alpha = level.alpha, sigma = level.sigma;
  switch (type) {
    case Prediction::sample:
      return zip([=](float x0, float x) { return (x - alpha * x0) / sigma; }, prediction, x);
    case Prediction::v_prediction:
      return zip([=](float v, float x) { return alpha * v + sigma * x; }, prediction, x);
    case Prediction::flow_prediction:
      return zip([=](float flow, float x) { return alpha * flow + x; }, prediction, x);
    case Prediction::epsilon:
      break;
  }
  return prediction;
}

void Bounds::read(SettingsReader& reader, bool clips) {
  reader.get("thresholding", thresholding).get("dynamic_thresholding_ratio", ratio).get("sample_max_value", sample_max_value);
  if (clips) reader.get("clip_sample", clip).get("clip_sample_range", clip_range);
  if (ratio < 0 || ratio > 1) throw reader.error(fmt::format("dynamic_thresholding_ratio is {}, expected 0 to 1", ratio));
  if (sample_max_value <= 0 || clip_range <= 0)
    throw reader.error(
        fmt::format("sample_max_value is {} and clip_sample_range {}, expected them above 0", sample_max_value, clip_range));
}

Tensor Bounds::apply(const Tensor& x0) const {
  const auto clipped = [](const Tensor& x, float range) { return zip([=](float x) { return std::clamp(x, -range, range); }, x); };
  if (!thresholding) return clip ? clipped(x0, static_cast<float>(clip_range)) : x0;
  Tensor result = Tensor::empty(x0.shape());
  const std::int64_t pictures = x0.size(0), size = pictures > 0 ? x0.numel() / pictures : 0;
  std::vector<float> sizes(static_cast<std::size_t>(size));
  for (std::int64_t b = 0; b < pictures && size > 0; ++b) {
    const float* from = x0.data<float>() + b * size;
    float* to = result.data<float>() + b * size;
    std::transform(from, from + size, sizes.begin(), [](float x) { return std::abs(x); });
    std::sort(sizes.begin(), sizes.end(), [](float a, float b) { return a < b || (std::isnan(b) && !std::isnan(a)); });
    // torch.quantile
    const float rank = static_cast<float>(ratio) * static_cast<float>(size - 1), weight = rank - std::floor(rank);
    const float low = sizes[static_cast<std::size_t>(rank)], high = sizes[static_cast<std::size_t>(std::ceil(rank))];
    const float quantile = weight < 0.5f ? low + weight * (high - low) : high - (high - low) * (1 - weight);
    const float s = std::min(std::max(quantile, 1.0f), static_cast<float>(sample_max_value));
    for (std::int64_t i = 0; i < size; ++i) to[i] = std::clamp(from[i], -s, s) / s;
  }
  return result;
}

void History::follow(std::string_view name, int step) {
  if (last_ >= 0 && step != last_ + 1)
    throw Error(
        fmt::format("{}: step {} after step {}, expected {}; a run needs a sampler of its own", name, step, last_, last_ + 1));
  last_ = step;
}

void History::push(const Tensor& prediction) {
  kept_.insert(kept_.begin(), prediction);
  if (kept_.size() > length_) kept_.pop_back();
}

}  // namespace vitrine::detail
