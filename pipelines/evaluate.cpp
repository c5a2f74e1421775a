#include <vitrine/pipelines/evaluate.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/prefetch.h>

namespace vitrine {

namespace {

constexpr std::int64_t kTop = 5;
constexpr std::int64_t kMostConfused = 4096;  // classes up to which there is a confusion matrix
constexpr std::int64_t kSmallModel = 4'000'000;

// The work on one batch, which one thread does on its own.
struct Batch {
  std::vector<std::int64_t> items;
  std::vector<std::string> failures;
  Tensor logits;
};

// Contexts that threads take turns with: what a device keeps with one (its stream, recordings of passes) serves the next batch.
class Contexts {
 public:
  explicit Contexts(ContextOptions options) : options_(options) {}

  // For the calling thread, until it lets go of it.
  std::unique_ptr<Context, std::function<void(Context*)>> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) idle_.push_back(std::make_unique<Context>(options_));
    Context* const taken = idle_.back().release();
    idle_.pop_back();
    return {taken, [this](Context* context) {
              const std::lock_guard lock_again(mutex_);
              idle_.emplace_back(context);
            }};
  }

 private:
  ContextOptions options_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Context>> idle_;
};

// Layers of a small model take less time than the barriers between them: there, each thread has a batch of its own. Those of
// a large one share their weights better when all threads work on one.
int choose_streams(const ImageClassifier& classifier, int wanted) {
  const int threads = Context::current().threads();
  if (wanted > 0) return std::min(wanted, threads);
  if (is_accelerator(classifier.model().backbone->device())) return 1;
  return classifier.model().backbone->info().parameters <= kSmallModel ? threads : 1;
}

void check_labels(const ImageClassifier& classifier, const Dataset& dataset) {
  for (std::int64_t i = 0; i < dataset.size(); ++i)
    if (dataset.label(i) < 0 || dataset.label(i) >= classifier.num_classes())
      throw Error(fmt::format("{}: its label is {}, but {} has {} classes", dataset.name(i), dataset.label(i),
                              classifier.model().name, classifier.num_classes()));
}

// Counts one batch: `items` are the pictures' numbers in the data set, row by row of the logits.
void count_batch(Evaluation& result, const Dataset& dataset, std::span<const std::int64_t> items, const Tensor& logits) {
  const std::int64_t classes = logits.size(1), k = std::min(kTop, classes);
  const auto best = top_k(logits, k).second;
  for (std::size_t row = 0; row < items.size(); ++row) {
    const std::int64_t* ranked = best.data<std::int64_t>() + static_cast<std::int64_t>(row) * k;
    const std::int64_t label = dataset.label(items[row]), predicted = ranked[0];
    result.predictions[static_cast<std::size_t>(items[row])] = predicted;
    ++result.images;
    result.top1 += predicted == label;
    result.top5 += std::find(ranked, ranked + k, label) != ranked + k;
    if (!result.confusion.empty()) ++result.confusion[static_cast<std::size_t>(label * classes + predicted)];
    ClassResult& truth = result.per_class[static_cast<std::size_t>(label)];
    ++truth.images;
    truth.correct += predicted == label;
    ++result.per_class[static_cast<std::size_t>(predicted)].predicted;
  }
}

}  // namespace

Interval wilson_interval(std::int64_t hits, std::int64_t count) {
  if (count <= 0) return {};
  constexpr double z = 1.959963984540054;  // 97.5% quantile of the normal distribution
  const double n = static_cast<double>(count), p = static_cast<double>(hits) / n;
  const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

Evaluation evaluate(const ImageClassifier& classifier, const Dataset& dataset, const EvaluationOptions& options) {
  if (options.batch_size < 1) throw Error(fmt::format("evaluate: batch size {}, expected at least 1", options.batch_size));
  check_labels(classifier, dataset);
  const std::int64_t total = dataset.size(), classes = classifier.num_classes();
  Evaluation result;
  result.predictions.assign(static_cast<std::size_t>(total), -1);
  if (classes <= kMostConfused) result.confusion.assign(static_cast<std::size_t>(classes * classes), 0);
  for (std::int64_t i = 0; i < classes; ++i) result.per_class.push_back({classifier.label(i)});

  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  const auto prepare = [&](std::int64_t i) { return classifier.prepare(dataset.image(i)); };
  const auto go_on = [&](std::int64_t done) {
    result.seconds = elapsed();
    return !options.progress || options.progress({done, total, result.top1, result.images_per_second()});
  };
  const auto failed = [&](const std::string& message) {
    ++result.skipped;
    result.failures.push_back(message);
  };
  const Device device = Context::current().device();
  const int threads = Context::current().threads(), streams = choose_streams(classifier, options.streams);
  if (streams == 1) {
    detail::Prefetch<PreparedImage> pictures(total, prepare, options.decode_threads, 2 * options.batch_size);
    result.interrupted = !detail::in_queued_batches(
        pictures, total, options.batch_size, detail::batches_ahead(classifier.model().backbone->device()),
        [&](std::vector<std::int64_t> items, std::span<const PreparedImage> batch) {
          return [&, items = std::move(items), logits = classifier.queue(batch)]() mutable {
            count_batch(result, dataset, items, logits.get());
          };
        },
        [&](std::int64_t, const std::string& message) { failed(message); }, go_on);
  } else {
    const std::int64_t batches = (total + options.batch_size - 1) / options.batch_size;
    Contexts contexts({.threads = std::max(1, threads / streams), .device = device});
    detail::Prefetch<Batch> results(
        batches,
        [&](std::int64_t b) {
          const auto context = contexts.take();
          const ContextScope scope(*context);
          const std::int64_t begin = b * options.batch_size, count = std::min(options.batch_size, total - begin);
          Batch batch;
          detail::Prefetch<PreparedImage> pictures(
              count, [&](std::int64_t i) { return prepare(begin + i); }, 0, count);
          detail::in_batches(
              pictures, count, count,
              [&](std::span<const std::int64_t> items, std::span<const PreparedImage> images) {
                for (const std::int64_t item : items) batch.items.push_back(begin + item);
                batch.logits = classifier.logits(images);
              },
              [&](std::int64_t, const std::string& message) { batch.failures.push_back(message); },
              [](std::int64_t) { return true; });
          return batch;
        },
        streams, 2 * streams);
    for (std::int64_t b = 0; b < batches && !result.interrupted; ++b) {
      const Batch batch = results.next();
      std::for_each(batch.failures.begin(), batch.failures.end(), failed);
      if (!batch.items.empty()) count_batch(result, dataset, batch.items, batch.logits);
      result.interrupted = !go_on(std::min((b + 1) * options.batch_size, total)) && b + 1 < batches;
    }
  }
  result.seconds = elapsed();
  return result;
}

}  // namespace vitrine
