// Generation: pictures from noise, of a class or a prompt, or from another picture.
//
//   Generator generator(DiffusionModelOptions{.model = "dit_fashion"});
//   for (const Image& picture : generator.generate({.classes = {7}, .count = 4, .seed = 1})) ...
//
// Picture i of a job has the seed `seed` + i, and its pixels depend on nothing else than that and the job's other settings: not
// on the other pictures, the batch size or the number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/pipelines/diffusion_model.h>
#include <vitrine/pipelines/image.h>

namespace vitrine {

struct GenerateJob {
  std::vector<std::int64_t> classes{};      // picture i is of classes[i % size]; class models take these,
  std::string prompt{}, negative_prompt{};  // the others prompts
  std::int64_t width = 0, height = 0;       // pixels; 0: the model's own, or the init picture's
  int steps = 0;                            // 0: as many as the pipeline takes
  std::optional<double> guidance{};         // 1: none
  double guidance_rescale = 0;              // arXiv:2305.08891
  std::uint64_t seed = 0;
  std::int64_t count = 1, batch_size = 1;
  std::string sampler{};  // of sampler_names(), may carry [settings]; empty: the model's own
  // From a picture: brought to the size (scaled to cover it, the middle is kept), and noised with what `strength` (0 to 1) of
  // the steps takes away again.
  std::optional<Image> image{};
  double strength = 0.8;
  // In-painting: grey, white where the picture is drawn anew; the rest stays as it is, to the pixel.
  std::optional<Image> mask{};
  std::int64_t tile = 0;  // sides of the autoencoder's tiles in pixels; 0: tiles of 512 for pictures above 1024, else none
};

struct GenerateProgress {
  std::int64_t done = 0, count = 0;  // pictures
  int step = 0, steps = 0;           // of those at work
};

struct GenerateCallbacks {
  std::function<bool(const GenerateProgress&)> progress{};                  // after every step; false stops
  std::function<void(std::int64_t index, const Image& picture)> picture{};  // as soon as one is finished
  std::function<void(std::int64_t index, const Image& picture)> preview{};  // what the first of those at work looks like so far
  double preview_seconds = 2;                                               // at least so far apart
};

class VITRINE_API Generator {
 public:
  // With `keep_text_encoders` false they are read for each new prompt and go before the denoiser works: for models that do not
  // fit into memory as a whole. Throws Error.
  explicit Generator(DiffusionModelOptions options, bool keep_text_encoders = true);
  ~Generator();
  Generator(Generator&&) noexcept;
  Generator& operator=(Generator&&) noexcept;

  // The job with all that was left open decided. Throws Error for what the model cannot do: unknown classes, sizes that are not
  // multiples, settings that the sampler refuses, ...
  GenerateJob complete(GenerateJob job) const;

  // False where `progress` stopped it. Throws Error.
  bool generate(const GenerateJob& job, const GenerateCallbacks& callbacks) const;
  std::vector<Image> generate(const GenerateJob& job) const;

  // The class of this name or number; case does not count, nor do further words of a name ("tench, Tinca tinca"). Throws Error.
  std::int64_t class_index(const std::string& name) const;

  const DiffusionModel& model() const;
  // A line each, about this job: what was cut off the prompts.
  std::vector<std::string> warnings(const GenerateJob& job) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vitrine
