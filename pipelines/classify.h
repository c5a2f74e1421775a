// Classification: pictures in, labels with scores out.
//
//   ImageClassifier classifier(ModelOptions{.model = "nat_fashion"});
//   const Image photo = read_image("shirt.png");
//   const auto answers = classifier.classify({&photo, 1});
//   for (const Classification& c : answers.front()) use(c.label, c.score);
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <vitrine/layers/devices.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/repeated_pass.h>
#include <vitrine/pipelines/image.h>
#include <vitrine/pipelines/load_model.h>
#include <vitrine/pipelines/preprocess.h>

namespace vitrine {

struct Classification {
  std::string label;  // "class 7" where the model has no names
  std::int64_t index = 0;
  float score = 0.0f;  // softmax of the logits
};

// May be used from several threads at once, each under its own Context.
class VITRINE_API ImageClassifier {
 public:
  // Throws Error where the model cannot be loaded or has no classification head.
  explicit ImageClassifier(const ModelOptions& options);
  explicit ImageClassifier(LoadedModel model);

  // The `topk` best classes of each picture (fewer where the model has fewer), best first. Pictures of any size and of 1, 3
  // or 4 channels; all are taken as one batch.
  std::vector<std::vector<Classification>> classify(std::span<const Image> images, int topk = 5) const;

  // The same in steps, so that the first can be done ahead by another thread: what can be done with each picture, and pictures ->
  // logits [B, classes], f32, on the host. `queue` does not wait for a GPU: who queues the next batch before it takes the logits
  // of this one keeps it busy.
  PreparedImage prepare(Image image) const;
  HostCopy queue(std::span<const PreparedImage> prepared) const;
  Tensor logits(std::span<const PreparedImage> prepared) const;
  // Logits [B, classes] -> the best classes of each row.
  std::vector<std::vector<Classification>> rank(const Tensor& logits, int topk) const;

  const LoadedModel& model() const { return model_; }
  std::int64_t num_classes() const { return model_.backbone->info().num_classes; }
  std::string label(std::int64_t index) const;

 private:
  LoadedModel model_;
  RepeatedPass forward_;  // of model_
};

}  // namespace vitrine
