// How good a generator's pictures are: whether a classifier sees the class that was asked for, and how far their features lie
// from those of real pictures.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/pipelines/dataset.h>
#include <vitrine/pipelines/evaluate.h>
#include <vitrine/pipelines/generate.h>

namespace vitrine {

// Mean and covariance of feature vectors, picture by picture.
class VITRINE_API FeatureStatistics {
 public:
  void add(const Tensor& features);  // f32 [B, C], the same C each time

  std::int64_t count() const { return count_; }
  std::int64_t channels() const { return static_cast<std::int64_t>(sums_.size()); }
  std::vector<double> mean() const;
  std::vector<double> covariance() const;  // [C, C], unbiased; needs two vectors

  // For keeping on disk: count, sums, sums of products.
  const std::vector<double>& sums() const { return sums_; }
  const std::vector<double>& products() const { return products_; }
  void restore(std::int64_t count, std::vector<double> sums, std::vector<double> products);  // throws Error where sizes differ

 private:
  std::int64_t count_ = 0;
  std::vector<double> sums_, products_;
};

// |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), arXiv:1706.08500. Throws Error for fewer than two vectors.
VITRINE_API double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b);

struct GenerationEvaluationOptions {
  GenerateJob job;  // its classes, count and seed are set here
  std::int64_t per_class = 100;
  std::uint64_t seed = 0;    // of the first picture
  std::string state_file{};  // what is done is kept here, and an earlier run goes on from it; empty: nothing is kept
  std::function<bool(const EvaluationProgress&)> progress{};  // after every step; false stops
};

struct GenerationEvaluation {
  GenerateJob job;  // with all that was left open decided
  std::int64_t images = 0, agreeing = 0;
  std::vector<ClassResult> per_class;
  std::vector<std::int64_t> confusion;  // [class asked for, class seen]
  double frechet = 0;                   // to the reference's pictures, on what enters the classifier's last layer
  std::int64_t reference_images = 0;
  double seconds = 0;  // of drawing and judging in this run
  bool interrupted = false;

  double agreement() const { return images ? static_cast<double>(agreeing) / static_cast<double>(images) : 0.0; }
};

// per_class pictures of each class, in turn. Throws Error where generator and classifier have other classes, and for a state
// file of another run.
VITRINE_API GenerationEvaluation evaluate_generation(const Generator& generator, const ImageClassifier& classifier,
                                                     const Dataset& reference, const GenerationEvaluationOptions& options);

}  // namespace vitrine
