// Accuracy of a classifier on a data set.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/pipelines/classify.h>
#include <vitrine/pipelines/dataset.h>

namespace vitrine {

// What is known so far, for a progress bar.
struct EvaluationProgress {
  std::int64_t done = 0, total = 0, top1 = 0;
  double images_per_second = 0.0;
};

struct EvaluationOptions {
  std::int64_t batch_size = 64;
  // Batches at a time, each on a share of the threads, which read, resize and compute in turn. 0: as many as threads for a
  // small model on the CPU, 1 for others.
  int streams = 0;
  int decode_threads = 1;  // with one stream, pictures are read and resized by these while the model works; 0: in turn
  std::function<bool(const EvaluationProgress&)> progress;  // after each batch; false ends the run early
};

// 95% confidence interval of a share, by Wilson's score method: sound near 0 and 1 and for few pictures.
struct Interval {
  double low = 0.0, high = 1.0;
};
VITRINE_API Interval wilson_interval(std::int64_t hits, std::int64_t count);

struct ClassResult {
  std::string name;
  std::int64_t images = 0, correct = 0, predicted = 0;  // of this class; of them right; pictures taken for this class
  double recall() const { return images ? static_cast<double>(correct) / static_cast<double>(images) : 0.0; }
  double precision() const { return predicted ? static_cast<double>(correct) / static_cast<double>(predicted) : 0.0; }
};

struct Evaluation {
  std::int64_t images = 0, skipped = 0;  // judged; not readable
  std::int64_t top1 = 0, top5 = 0;       // right ones
  std::vector<ClassResult> per_class;
  std::vector<std::int64_t> confusion;    // [class, predicted class]; empty beyond 4096 classes
  std::vector<std::int64_t> predictions;  // by picture; -1: skipped or not reached
  std::vector<std::string> failures;      // a line for each skipped picture
  double seconds = 0.0;                   // wall time of reading, resizing and inference
  bool interrupted = false;

  double share(std::int64_t hits) const { return images ? static_cast<double>(hits) / static_cast<double>(images) : 0.0; }
  double images_per_second() const { return seconds > 0.0 ? static_cast<double>(images + skipped) / seconds : 0.0; }
};

// Pictures that cannot be read are skipped and counted. Throws Error where labels lie beyond the model's classes.
VITRINE_API Evaluation evaluate(const ImageClassifier& classifier, const Dataset& dataset, const EvaluationOptions& options = {});

}  // namespace vitrine
