#include <vitrine/pipelines/evaluate_generation.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/layers/error.h>
#include <vitrine/layers/file.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/files.h>
#include <vitrine/pipelines/preprocess.h>

namespace vitrine {
namespace {

using Json = nlohmann::json;

// L of L L^T = a; a is symmetric and has no negative eigenvalues, rows without variance stay zero.
std::vector<double> cholesky(const std::vector<double>& a, std::size_t n) {
  std::vector<double> l(n * n, 0.0);
  double largest = 0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, a[i * n + i]);
  for (std::size_t j = 0; j < n; ++j) {
    double pivot = a[j * n + j];
    for (std::size_t k = 0; k < j; ++k) pivot -= l[j * n + k] * l[j * n + k];
    if (pivot <= 1e-14 * largest) continue;
    l[j * n + j] = std::sqrt(pivot);
    for (std::size_t i = j + 1; i < n; ++i) {
      double sum = a[i * n + j];
      for (std::size_t k = 0; k < j; ++k) sum -= l[i * n + k] * l[j * n + k];
      l[i * n + j] = sum / l[j * n + j];
    }
  }
  return l;
}

// Of a symmetric matrix, by Jacobi's rotations.
std::vector<double> eigenvalues(std::vector<double> a, std::size_t n) {
  constexpr int kSweeps = 60;
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    double off = 0, all = 0;
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) {
        all += a[i * n + j] * a[i * n + j];
        if (i != j) off += a[i * n + j] * a[i * n + j];
      }
    if (off <= 1e-24 * all) break;
    for (std::size_t p = 0; p < n; ++p)
      for (std::size_t q = p + 1; q < n; ++q) {
        const double apq = a[p * n + q];
        if (apq == 0) continue;
        const double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (std::size_t k = 0; k < n; ++k) {
          const double x = a[k * n + p], y = a[k * n + q];
          a[k * n + p] = c * x - s * y;
          a[k * n + q] = s * x + c * y;
        }
        for (std::size_t k = 0; k < n; ++k) {
          const double x = a[p * n + k], y = a[q * n + k];
          a[p * n + k] = c * x - s * y;
          a[q * n + k] = s * x + c * y;
        }
      }
  }
  std::vector<double> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = a[i * n + i];
  return values;
}

// l^T b l
std::vector<double> sandwich(const std::vector<double>& l, const std::vector<double>& b, std::size_t n) {
  std::vector<double> half(n * n, 0.0), whole(n * n, 0.0);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t k = 0; k < n; ++k)
      for (std::size_t j = 0; j <= k; ++j) half[i * n + j] += b[i * n + k] * l[k * n + j];
  for (std::size_t k = 0; k < n; ++k)
    for (std::size_t i = 0; i <= k; ++i)
      for (std::size_t j = 0; j < n; ++j) whole[i * n + j] += l[k * n + i] * half[k * n + j];
  return whole;
}

// --- what is kept of a run -----------------------------------------------------------------------------------------------

struct State {
  Json settings;  // of the run; another's state is not taken
  std::int64_t done = 0;
  std::vector<std::int64_t> confusion{};
  FeatureStatistics features{};
};

void save_state(const std::string& path, const State& state) {
  if (path.empty()) return;
  const Json json{{"settings", state.settings},
                  {"done", state.done},
                  {"confusion", state.confusion},
                  {"sums", state.features.sums()},
                  {"products", state.features.products()}};
  detail::write_file(path, json.dump() + "\n");
}

void load_state(const std::string& path, State& state) {
  std::error_code error;
  if (path.empty() || !std::filesystem::exists(path, error)) return;
  const auto bytes = read_file(path, "the state of an evaluation");
  const Json json = Json::parse(bytes.begin(), bytes.end(), nullptr, false);
  try {
    if (json.at("settings") != state.settings)
      throw Error(fmt::format("{}: is of a run with other settings; name another file, or remove it", path));
    const auto done = json.at("done").get<std::int64_t>();
    const auto confusion = json.at("confusion").get<std::vector<std::int64_t>>();
    std::int64_t sum = 0;
    for (const std::int64_t n : confusion) sum += n;
    if (confusion.size() != state.confusion.size() || sum != done)
      throw Error(fmt::format("{}: its numbers do not fit together", path));
    state.features.restore(done, json.at("sums").get<std::vector<double>>(), json.at("products").get<std::vector<double>>());
    state.confusion = confusion;
    state.done = done;
  } catch (const Json::exception&) {
    throw Error(fmt::format("{}: is not the state of an evaluation", path));
  }
}

}  // namespace

// --- statistics ------------------------------------------------------------------------------------------------------------

void FeatureStatistics::add(const Tensor& features) {
  const auto channels = static_cast<std::size_t>(features.size(1));
  if (sums_.empty()) restore(0, std::vector<double>(channels), std::vector<double>(channels * channels));
  if (sums_.size() != channels)
    throw Error(fmt::format("statistics: features of {} channels, expected {}", channels, sums_.size()));
  for (std::int64_t b = 0; b < features.size(0); ++b) {
    const float* x = features.data<float>() + b * features.size(1);
    for (std::size_t i = 0; i < channels; ++i) {
      sums_[i] += x[i];
      for (std::size_t j = 0; j <= i; ++j) products_[i * channels + j] += static_cast<double>(x[i]) * x[j];
    }
  }
  count_ += features.size(0);
}

void FeatureStatistics::restore(std::int64_t count, std::vector<double> sums, std::vector<double> products) {
  if (products.size() != sums.size() * sums.size()) throw Error("statistics: sums and products do not fit together");
  count_ = count;
  sums_ = std::move(sums);
  products_ = std::move(products);
}

std::vector<double> FeatureStatistics::mean() const {
  std::vector<double> m = sums_;
  for (double& value : m) value /= static_cast<double>(count_);
  return m;
}

std::vector<double> FeatureStatistics::covariance() const {
  if (count_ < 2) throw Error("statistics: a covariance needs two pictures or more");
  const std::size_t n = sums_.size();
  const auto count = static_cast<double>(count_);
  std::vector<double> c(n * n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j <= i; ++j)
      c[i * n + j] = c[j * n + i] = (products_[i * n + j] - sums_[i] * sums_[j] / count) / (count - 1);
  return c;
}

double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b) {
  const std::vector<double> m1 = a.mean(), m2 = b.mean(), c1 = a.covariance(), c2 = b.covariance();
  const std::size_t n = m1.size();
  if (m2.size() != n) throw Error(fmt::format("statistics: {} and {} channels", n, m2.size()));
  double distance = 0;
  for (std::size_t i = 0; i < n; ++i) distance += (m1[i] - m2[i]) * (m1[i] - m2[i]) + c1[i * n + i] + c2[i * n + i];
  // C1 C2 has the eigenvalues of L^T C2 L with C1 = L L^T, which is symmetric.
  for (const double value : eigenvalues(sandwich(cholesky(c1, n), c2, n), n)) distance -= 2 * std::sqrt(std::max(value, 0.0));
  return std::max(distance, 0.0);
}

// --- the run ---------------------------------------------------------------------------------------------------------------

GenerationEvaluation evaluate_generation(const Generator& generator, const ImageClassifier& classifier, const Dataset& reference,
                                         const GenerationEvaluationOptions& options) {
  const std::int64_t classes = generator.model().denoiser().num_classes;
  const std::vector<std::string>& names = generator.model().classes();
  if (classes == 0) throw Error(fmt::format("{}: draws prompts, not classes", generator.model().name()));
  if (names.empty() || names != classifier.model().classes)
    throw Error(fmt::format("{} and {} do not have the same classes", generator.model().name(), classifier.model().name));
  const Backbone& backbone = *classifier.model().backbone;
  GenerateJob job = options.job;
  job.classes = {0};
  job = generator.complete(job);

  State state{.settings = {{"generator", generator.model().name()},
                           {"classifier", classifier.model().name},
                           {"reference", reference.description()},
                           {"dtype", name_of(generator.model().dtype())},
                           {"seed", options.seed},
                           {"steps", job.steps},
                           {"sampler", job.sampler},
                           {"guidance", *job.guidance},
                           {"guidance_rescale", job.guidance_rescale}},
              .confusion = std::vector<std::int64_t>(static_cast<std::size_t>(classes * classes))};
  load_state(options.state_file, state);

  const auto judge = [&](std::span<const PreparedImage> prepared) {  // -> what enters the last layer, classes seen
    const Tensor features =
        backbone.forward_features(batch_images(prepared, classifier.model().preprocess, backbone.dtype(), backbone.device()));
    std::vector<std::int64_t> seen;
    for (const auto& ranked : classifier.rank(backbone.forward_head(features).to(Device{}), 1))
      seen.push_back(ranked.front().index);
    return std::pair(backbone.forward_head(features, true).to(DType::f32).to(Device{}).contiguous(), seen);
  };

  GenerationEvaluation result;
  result.job = job;
  const auto start = std::chrono::steady_clock::now();
  const std::int64_t total = classes * options.per_class;
  const auto report = [&](std::int64_t now) {
    std::int64_t agreeing = 0;
    for (std::int64_t c = 0; c < classes; ++c) agreeing += state.confusion[static_cast<std::size_t>(c * classes + c)];
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const EvaluationProgress p{
        .done = now, .total = total, .top1 = agreeing, .images_per_second = static_cast<double>(now) / seconds};
    return !options.progress || options.progress(p);
  };
  auto saved = start;
  while (state.done < total && !result.interrupted) {
    job.count = job.batch_size = std::min(options.job.batch_size, total - state.done);
    job.seed = options.seed + static_cast<std::uint64_t>(state.done);
    job.classes.clear();
    for (std::int64_t i = 0; i < classes; ++i) job.classes.push_back((state.done + i) % classes);
    std::vector<PreparedImage> pictures;
    result.interrupted = !generator.generate(
        job, {.progress = [&](const GenerateProgress&) { return report(state.done); },
              .picture = [&](std::int64_t, const Image& picture) { pictures.push_back(classifier.prepare(picture)); }});
    if (result.interrupted) break;
    const auto [features, seen] = judge(pictures);
    state.features.add(features);
    for (std::size_t i = 0; i < seen.size(); ++i)
      ++state.confusion[static_cast<std::size_t>(job.classes[i % job.classes.size()] * classes + seen[i])];
    state.done += job.count;
    constexpr auto kOften = std::chrono::seconds(10);
    if (std::chrono::steady_clock::now() - saved >= kOften) {
      save_state(options.state_file, state);
      saved = std::chrono::steady_clock::now();
    }
  }
  save_state(options.state_file, state);

  FeatureStatistics real;
  constexpr std::int64_t kBatch = 64;
  for (std::int64_t first = 0; first < reference.size() && state.done > 1; first += kBatch) {
    std::vector<PreparedImage> pictures;
    for (std::int64_t i = first; i < std::min(first + kBatch, reference.size()); ++i)
      pictures.push_back(classifier.prepare(reference.image(i)));
    real.add(judge(pictures).first);
    if (options.progress && !report(state.done)) {
      result.interrupted = true;
      break;
    }
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.images = state.done;
  result.confusion = state.confusion;
  for (std::int64_t c = 0; c < classes; ++c) {
    ClassResult row{.name = names[static_cast<std::size_t>(c)]};
    for (std::int64_t other = 0; other < classes; ++other) {
      row.images += state.confusion[static_cast<std::size_t>(c * classes + other)];
      row.predicted += state.confusion[static_cast<std::size_t>(other * classes + c)];
    }
    row.correct = state.confusion[static_cast<std::size_t>(c * classes + c)];
    result.agreeing += row.correct;
    result.per_class.push_back(row);
  }
  result.reference_images = real.count();
  if (state.done > 1 && real.count() > 1) result.frechet = frechet_distance(state.features, real);
  return result;
}

}  // namespace vitrine
