#include <vitrine/pipelines/classify.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/preprocess.h>

namespace vitrine {

ImageClassifier::ImageClassifier(const ModelOptions& options) : ImageClassifier(load_model(options)) {}

ImageClassifier::ImageClassifier(LoadedModel model)
    : model_(std::move(model)),
      forward_([backbone = model_.backbone.get()](std::span<const Tensor> images) { return backbone->forward(images[0]); },
               model_.backbone->device()) {
  if (num_classes() < 1)
    throw Error(fmt::format("{}: has no classification head; give a checkpoint with one (--weights FILE)", model_.name));
}

PreparedImage ImageClassifier::prepare(Image image) const {
  return prepare_image(std::move(image), model_.preprocess, model_.backbone->device());
}

HostCopy ImageClassifier::queue(std::span<const PreparedImage> prepared) const {
  const Backbone& backbone = *model_.backbone;
  const Tensor images = batch_images(prepared, model_.preprocess, backbone.dtype(), backbone.device());
  return HostCopy(forward_({&images, 1}));
}

Tensor ImageClassifier::logits(std::span<const PreparedImage> prepared) const { return queue(prepared).get(); }

std::vector<std::vector<Classification>> ImageClassifier::rank(const Tensor& logits, int topk) const {
  const auto [scores, indices] = top_k(softmax(logits), std::clamp<std::int64_t>(topk, 1, num_classes()));
  std::vector<std::vector<Classification>> results(static_cast<std::size_t>(logits.size(0)));
  const std::int64_t k = scores.size(1);
  for (std::int64_t b = 0; b < logits.size(0); ++b) {
    for (std::int64_t i = 0; i < k; ++i) {
      const std::int64_t index = indices.data<std::int64_t>()[b * k + i];
      results[static_cast<std::size_t>(b)].push_back({label(index), index, scores.data<float>()[b * k + i]});
    }
  }
  return results;
}

std::vector<std::vector<Classification>> ImageClassifier::classify(std::span<const Image> images, int topk) const {
  if (images.empty()) return {};
  std::vector<PreparedImage> prepared;
  prepared.reserve(images.size());
  for (const Image& image : images) prepared.push_back(prepare(image));
  return rank(logits(prepared), topk);
}

std::string ImageClassifier::label(std::int64_t index) const {
  return model_.classes.empty() ? fmt::format("class {}", index) : model_.classes[static_cast<std::size_t>(index)];
}

}  // namespace vitrine
