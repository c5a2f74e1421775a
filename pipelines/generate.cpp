#include <vitrine/pipelines/generate.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cmath>
#include <map>
#include <mutex>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/denoise.h>
#include <vitrine/pipelines/noise.h>
#include <vitrine/pipelines/sampler.h>

namespace vitrine {
namespace {

constexpr std::int64_t kMostPixels = 16384;  // a side

// --- pictures and latents ----------------------------------------------------------------------------------------------

// u8 -> f32 [1, H, W, channels] in [-1, 1].
Tensor to_tensor(const Image& image) {
  Tensor x = Tensor::empty({1, image.height, image.width, image.channels});
  float* values = x.data<float>();
  for (std::size_t i = 0; i < image.pixels.size(); ++i) values[i] = static_cast<float>(image.pixels[i]) / 127.5f - 1;
  return x;
}

// f32 [H, W, channels] around [-1, 1] -> u8, rounded.
Image to_image(const Tensor& x) {
  Image image{.width = x.size(1), .height = x.size(0), .channels = x.size(2), .pixels = {}};
  image.pixels.resize(static_cast<std::size_t>(x.numel()));
  const float* values = x.data<float>();
  for (std::size_t i = 0; i < image.pixels.size(); ++i) {
    const float value = std::clamp(values[i] * 0.5f + 0.5f, 0.0f, 1.0f);  // NaN is 0
    image.pixels[i] = static_cast<std::uint8_t>(std::lround((value > 0 ? value : 0.0f) * 255));
  }
  return image;
}

// Scaled so that it covers the size; the middle is kept.
Image cover(const Image& image, std::int64_t width, std::int64_t height, Filter filter) {
  if (image.width == width && image.height == height) return image;
  const double scale = std::max(static_cast<double>(width) / static_cast<double>(image.width),
                                static_cast<double>(height) / static_cast<double>(image.height));
  const double w = static_cast<double>(width) / scale, h = static_cast<double>(height) / scale;
  const double left = (static_cast<double>(image.width) - w) / 2, top = (static_cast<double>(image.height) - h) / 2;
  return resize_image(image, width, height, filter, std::array<double, 4>{left, top, left + w, top + h});
}

// f32 [1, H, W, 1]: 1 where a latent position has a white pixel, so that what is drawn anew covers the mask.
Tensor latent_mask(const Image& mask, std::int64_t factor) {
  Tensor m = Tensor::zeros({1, mask.height / factor, mask.width / factor, 1});
  for (std::int64_t y = 0; y < mask.height; ++y)
    for (std::int64_t x = 0; x < mask.width; ++x)
      if (mask.row(y)[x] >= 128) m.data<float>()[(y / factor) * m.size(2) + x / factor] = 1;
  return m;
}

// f32 [1, H, W, 1] as networks that read masks were trained with: the pixel at each latent position's corner.
Tensor corner_mask(const Image& mask, std::int64_t factor) {
  Tensor m = Tensor::zeros({1, mask.height / factor, mask.width / factor, 1});
  for (std::int64_t y = 0; y < m.size(1); ++y)
    for (std::int64_t x = 0; x < m.size(2); ++x)
      if (mask.row(y * factor)[x * factor] >= 128) m.data<float>()[y * m.size(2) + x] = 1;
  return m;
}

// mask x + (1 - mask) y, the mask's channel for all; x in place.
void blend_(Tensor& x, const Tensor& y, const Tensor& mask) {
  const std::int64_t channels = x.size(3), positions = mask.numel();
  for (std::int64_t b = 0; b < x.size(0); ++b)
    for (std::int64_t i = 0; i < positions; ++i) {
      if (mask.data<float>()[i] != 0) continue;
      const std::int64_t at = (b * positions + i) * channels;
      std::copy_n(y.data<float>() + at, channels, x.data<float>() + at);
    }
}

// Standard normal, f32 [B, H, W, C]: picture b of the seed `seed` + b.
Tensor noise_of(const Shape& shape, std::uint64_t seed, std::uint32_t stream) {
  Tensor noise = Tensor::empty(shape);
  const std::int64_t size = noise.numel() / shape[0];
  for (std::int64_t b = 0; b < shape[0]; ++b)
    fill_normal({noise.data<float>() + b * size, static_cast<std::size_t>(size)},
                {.seed = seed + static_cast<std::uint64_t>(b), .picture = 0, .stream = stream});
  return noise;
}

std::string lower(std::string_view text) {
  std::string lowered(text);
  for (char& c : lowered) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lowered;
}

}  // namespace

// --- the model -----------------------------------------------------------------------------------------------------------

struct Generator::State {
  State(DiffusionModelOptions options, bool keep) : model(std::move(options)), keep_text_encoders(keep) {}

  DiffusionModel model;
  bool keep_text_encoders;

  std::mutex mutex;  // guards what follows
  std::shared_ptr<const TextEncoders> text;
  std::shared_ptr<const Denoiser> denoiser;
  std::shared_ptr<const Autoencoder> autoencoder;
  std::map<std::string, EncodedPrompt> prompts;  // of the last job

  // Both prompts of a job, encoded at most once in a row.
  std::pair<EncodedPrompt, EncodedPrompt> encode(const GenerateJob& job);
  std::shared_ptr<const Denoiser> get_denoiser();
  std::shared_ptr<const Autoencoder> get_autoencoder();

  std::int64_t factor() const { return model.autoencoder() ? model.autoencoder()->factor : 1; }
  std::int64_t latent_channels() const {
    return model.autoencoder() ? model.autoencoder()->latent_channels : model.denoiser().in_channels;
  }
  // The network reads the mask and the picture that is to stay beside the latents.
  bool reads_mask() const { return model.denoiser().in_channels == 2 * latent_channels() + 1; }
  bool guided(const GenerateJob& job) const { return model.kind().classifier_free && *job.guidance != 1; }

  std::unique_ptr<Sampler> make_sampler(const GenerateJob& job) const;
  Tiling tiling(const GenerateJob& job) const;
};

std::pair<EncodedPrompt, EncodedPrompt> Generator::State::encode(const GenerateJob& job) {
  if (model.kind().encode == nullptr) return {};
  const std::scoped_lock lock(mutex);
  const bool needs_negative = guided(job);
  std::vector<std::string> wanted{job.prompt};
  if (needs_negative) wanted.push_back(job.negative_prompt);
  const auto missing = [&](const std::string& prompt) { return !prompts.contains(prompt); };
  if (std::any_of(wanted.begin(), wanted.end(), missing)) {
    prompts.clear();
    // A model that is too large as a whole: the denoiser goes meanwhile.
    if (!keep_text_encoders) denoiser = nullptr;
    if (!text) text = std::make_shared<TextEncoders>(model.load_text_encoders());
    for (const std::string& prompt : wanted) prompts.emplace(prompt, model.kind().encode(*text, prompt));
    if (!keep_text_encoders) text = nullptr;
  }
  std::pair<EncodedPrompt, EncodedPrompt> encoded{prompts.at(job.prompt), {}};
  if (!needs_negative) return encoded;
  encoded.second = prompts.at(job.negative_prompt);
  if (!model.kind().zero_negative || !job.negative_prompt.empty()) return encoded;
  Conditioning& c = encoded.second.conditioning;
  for (Tensor* states : {&c.text, &c.pooled}) *states = Tensor::zeros(states->shape(), states->dtype(), states->device());
  return encoded;
}

std::shared_ptr<const Denoiser> Generator::State::get_denoiser() {
  const std::scoped_lock lock(mutex);
  if (!denoiser) denoiser = model.load_denoiser();
  return denoiser;
}

std::shared_ptr<const Autoencoder> Generator::State::get_autoencoder() {
  const std::scoped_lock lock(mutex);
  if (!autoencoder && model.autoencoder()) autoencoder = model.load_autoencoder();
  return autoencoder;
}

std::unique_ptr<Sampler> Generator::State::make_sampler(const GenerateJob& job) const {
  const std::int64_t multiple = model.denoiser().multiple;
  SamplerRun run{.steps = job.steps, .image_tokens = job.width / factor() / multiple * (job.height / factor() / multiple)};
  if (model.kind().linear_sigmas) run.sigmas = linear_sigmas(job.steps);
  if (!job.sampler.empty()) return create_sampler(job.sampler, model.scheduler(), run);
  try {
    return create_sampler(model.sampler(), model.scheduler(), run);
  } catch (const Error& error) {  // of settings that the user did not write
    throw Error(fmt::format("{}: {}", model.scheduler_source(), error.what()));
  }
}

Tiling Generator::State::tiling(const GenerateJob& job) const {
  constexpr std::int64_t kWhole = 1024, kTile = 512;
  const std::int64_t pixels = job.tile > 0 ? job.tile : std::max(job.width, job.height) > kWhole ? kTile : 0;
  const std::int64_t size = pixels / factor();
  return {.size = size, .overlap = std::min<std::int64_t>(16, size / 2)};
}

Generator::Generator(DiffusionModelOptions options, bool keep_text_encoders)
    : state_(std::make_unique<State>(std::move(options), keep_text_encoders)) {
  const State& s = *state_;
  const std::int64_t in = s.model.denoiser().in_channels;
  if (in != s.latent_channels() && !s.reads_mask())
    throw Error(fmt::format("{}: the denoiser reads {} channels, the autoencoder's latents have {}", s.model.name(), in,
                            s.latent_channels()));
}
Generator::~Generator() = default;
Generator::Generator(Generator&&) noexcept = default;
Generator& Generator::operator=(Generator&&) noexcept = default;

const DiffusionModel& Generator::model() const { return state_->model; }

std::int64_t Generator::class_index(const std::string& name) const {
  const State& s = *state_;
  const std::int64_t count = s.model.denoiser().num_classes;
  if (count == 0) throw Error(fmt::format("{}: draws prompts, not classes (--prompt TEXT)", s.model.name()));
  const std::vector<std::string>& classes = s.model.classes();
  const std::string wanted = lower(name);
  for (std::size_t i = 0; i < classes.size(); ++i) {
    const std::string known = lower(classes[i]);
    if (known == wanted) return static_cast<std::int64_t>(i);
    for (std::size_t at = 0; at < known.size();) {
      const std::size_t end = std::min(known.find(", ", at), known.size());
      if (std::string_view(known).substr(at, end - at) == wanted) return static_cast<std::int64_t>(i);
      at = end + 2;
    }
  }
  std::int64_t index = -1;
  const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), index);
  if (code == std::errc() && end == name.data() + name.size()) {
    if (index >= 0 && index < count) return index;
    throw Error(fmt::format("{}: class {}, expected 0 to {}", s.model.name(), index, count - 1));
  }
  throw Error(fmt::format(
      "{}: unknown class '{}'{}", s.model.name(), detail::printable(name),
      classes.empty()        ? fmt::format("; it has no names: give a number, 0 to {}", count - 1)
      : classes.size() <= 12 ? fmt::format("{}; known: {}", detail::suggest_names(name, classes), detail::list_names(classes, 12))
                             : detail::suggest_names(name, classes, 5)));
}

GenerateJob Generator::complete(GenerateJob job) const {
  const State& s = *state_;
  const DenoiserInfo& info = s.model.denoiser();
  const PipelineKind& kind = s.model.kind();
  const auto refuse = [&](std::string what) { throw Error(fmt::format("{}: {}", s.model.name(), what)); };
  if (info.num_classes > 0) {
    if (job.classes.empty()) refuse("draws classes: name one (--class NAME)");
    if (!job.prompt.empty() || !job.negative_prompt.empty()) refuse("draws classes, it reads no prompts (--class NAME)");
    for (const std::int64_t label : job.classes)
      if (label < 0 || label >= info.num_classes) refuse(fmt::format("class {}, expected 0 to {}", label, info.num_classes - 1));
  } else if (!job.classes.empty()) {
    refuse("draws prompts, not classes (--prompt TEXT)");
  } else if (!kind.classifier_free && !job.negative_prompt.empty()) {
    refuse("has its guidance built in and reads no negative prompt");
  }

  const std::int64_t factor = s.factor(), multiple = factor * info.multiple;
  // Class models have tables for one size and keep it.
  if (job.image && job.width == 0 && job.height == 0 && kind.encode != nullptr) {
    job.width = std::max(multiple, job.image->width / multiple * multiple);
    job.height = std::max(multiple, job.image->height / multiple * multiple);
  }
  if (job.width == 0) job.width = job.height > 0 ? job.height : info.width * factor;
  if (job.height == 0) job.height = info.height > 0 && job.width == info.width * factor ? info.height * factor : job.width;
  if (job.width < 1 || job.height < 1 || job.width > kMostPixels || job.height > kMostPixels)
    refuse(fmt::format("size {}x{}: expected 1 to {} pixels a side", job.width, job.height, kMostPixels));
  if (job.width % multiple != 0 || job.height % multiple != 0) {
    const auto near = [&](std::int64_t side) { return std::max(multiple, (side + multiple / 2) / multiple * multiple); };
    refuse(fmt::format("size {}x{}: both sides must be multiples of {}; nearest: {}x{}", job.width, job.height, multiple,
                       near(job.width), near(job.height)));
  }
  if (job.count < 1 || job.batch_size < 1) refuse("count and batch size must be 1 or more");
  if (job.steps == 0) job.steps = s.model.steps();
  if (!job.guidance) job.guidance = s.model.guidance();
  if (!std::isfinite(*job.guidance)) refuse("guidance must be a number");
  if (!(job.guidance_rescale >= 0 && job.guidance_rescale <= 1)) refuse("guidance rescale: expected 0 to 1");
  if (job.tile != 0 && job.tile < 4 * factor)
    refuse(fmt::format("tiles of {} pixels: expected {} or more", job.tile, 4 * factor));
  if (job.tile % factor != 0) refuse(fmt::format("tiles of {} pixels: expected a multiple of {}", job.tile, factor));
  if (job.mask && !job.image) refuse("a mask needs a picture (--image FILE)");
  if (s.reads_mask() && !job.mask) refuse("fills in pictures: give one and a mask (--image FILE --mask FILE)");
  const auto sampler = s.make_sampler(job);
  if (job.image) sampler->first_step(job.strength);
  return job;
}

std::vector<std::string> Generator::warnings(const GenerateJob& job) const {
  std::vector<std::string> lines;
  const auto [prompt, negative] = state_->encode(complete(job));
  const std::pair<const EncodedPrompt*, std::string_view> encoded[] = {{&prompt, "the prompt"},
                                                                       {&negative, "the negative prompt"}};
  for (const auto& [one, what] : encoded)
    for (const std::string& dropped : one->dropped)
      lines.push_back(fmt::format("{} is too long; left out: {}", what, detail::printable(dropped, 200)));
  return lines;
}

// --- a job ---------------------------------------------------------------------------------------------------------------

namespace {

// What the pictures of a batch are conditioned on.
Tensor labels_of(std::span<const std::int64_t> labels) {
  Tensor x = Tensor::empty({static_cast<std::int64_t>(labels.size())}, DType::i64);
  std::copy(labels.begin(), labels.end(), x.data<std::int64_t>());
  return x;
}

void add_sizes(Conditioning& one, const DenoiserInfo& info, const GenerateJob& job) {
  const auto height = static_cast<float>(job.height), width = static_cast<float>(job.width);
  if (info.takes_guidance) one.guidance = Tensor::full({1}, static_cast<float>(*job.guidance));
  if (info.takes_time_ids) one.time_ids = Tensor::from(std::array{height, width, 0.0f, 0.0f, height, width}, {1, 6});
  if (info.takes_size) {
    one.resolution = Tensor::from(std::array{height, width}, {1, 2});
    one.aspect_ratio = Tensor::from(std::array{height / width}, {1, 1});
  }
}

}  // namespace

bool Generator::generate(const GenerateJob& given, const GenerateCallbacks& callbacks) const {
  State& s = *state_;
  const GenerateJob job = complete(given);
  const DenoiserInfo& info = s.model.denoiser();
  const std::int64_t factor = s.factor(), height = job.height / factor, width = job.width / factor,
                     channels = s.latent_channels();
  const Tiling tiling = s.tiling(job);
  const bool guided = s.guided(job);

  auto [prompt, negative] = s.encode(job);
  const auto denoiser = s.get_denoiser();
  const auto autoencoder = s.get_autoencoder();
  for (Conditioning* one : {&prompt.conditioning, &negative.conditioning}) add_sizes(*one, info, job);

  const auto encode = [&](const Tensor& pixels) {  // f32 [1, H, W, C], both
    if (!autoencoder) return pixels;
    const Tensor latents = autoencoder->encode(pixels.to(autoencoder->device()), {}, tiling);
    return autoencoder->scale_latents(latents).to(DType::f32).to(Device{}).contiguous();
  };
  const auto decode = [&](const Tensor& latents) {  // [1, H, W, C]
    Tensor pixels = latents;
    if (autoencoder) pixels = autoencoder->decode(autoencoder->unscale_latents(latents.to(autoencoder->device())), tiling);
    return to_image(pixels.select(0, 0).to(DType::f32).to(Device{}).contiguous());
  };

  std::optional<Image> picture, mask;
  Tensor picture_latents, keep;  // f32 [1, H, W, C], [1, H, W, 1]
  Tensor beside;
  if (job.image) {
    const std::int64_t pixel_channels = autoencoder ? autoencoder->info().in_channels : channels;
    picture = convert_channels(cover(*job.image, job.width, job.height, Filter::lanczos), static_cast<int>(pixel_channels));
    picture_latents = encode(to_tensor(*picture));
  }
  if (job.mask) {
    mask = convert_channels(cover(*job.mask, job.width, job.height, Filter::bilinear), 1);
    if (s.reads_mask()) {
      Tensor hidden = to_tensor(*picture);  // grey where it is drawn anew
      for (std::int64_t i = 0; i < mask->width * mask->height; ++i)
        if (mask->pixels[static_cast<std::size_t>(i)] >= 128)
          std::fill_n(hidden.data<float>() + i * picture->channels, picture->channels, 0.0f);
      beside = concat(std::array{corner_mask(*mask, factor), encode(hidden)}, -1);
    } else {
      keep = latent_mask(*mask, factor);
    }
  }

  const RepeatedPass pass = denoising_pass(*denoiser, guided, *job.guidance, job.guidance_rescale);
  for (std::int64_t first = 0; first < job.count; first += job.batch_size) {
    const std::int64_t batch = std::min(job.batch_size, job.count - first);
    const Shape shape{batch, height, width, channels};
    const std::uint64_t seed = job.seed + static_cast<std::uint64_t>(first);
    const auto sampler = s.make_sampler(job);
    const Tensor start = noise_of(shape, seed, kStartNoise);
    const auto copies = [&](const Tensor& one) { return concat(std::vector<Tensor>(static_cast<std::size_t>(batch), one), 0); };

    Denoising run{.denoiser = *denoiser, .sampler = *sampler, .conditioning = repeated(prompt.conditioning, batch)};
    if (guided) run.unconditional = repeated(negative.conditioning, batch);
    if (!job.classes.empty()) {
      std::vector<std::int64_t> labels;
      for (std::int64_t i = first; i < first + batch; ++i)
        labels.push_back(job.classes[static_cast<std::size_t>(i) % job.classes.size()]);
      run.conditioning.labels = labels_of(labels);
      if (guided) run.unconditional->labels = labels_of(std::vector(labels.size(), info.num_classes));
    }
    run.guidance_scale = *job.guidance;
    run.guidance_rescale = job.guidance_rescale;
    run.pass = pass;
    if (beside.defined()) run.beside = copies(beside);
    run.noise = [&](int step) { return noise_of(shape, seed, step_noise(step)); };

    Tensor latents;
    Tensor stays;
    if (picture_latents.defined()) stays = copies(picture_latents);
    if (stays.defined()) {
      run.first_step = sampler->first_step(job.strength);
      latents = run.first_step == 0 && job.strength == 1 ? affine(start, sampler->init_noise_sigma(), 0)
                                                         : sampler->add_noise(stays, start, run.first_step);
    } else {
      latents = affine(start, sampler->init_noise_sigma(), 0);
    }
    if (keep.defined()) run.adjust = [&](int step, Tensor& x) { blend_(x, sampler->add_noise(stays, start, step + 1), keep); };

    auto shown = std::chrono::steady_clock::now();
    const int steps = sampler->steps() - run.first_step;
    run.after_step = [&](int step, const Tensor&) {
      const auto now = std::chrono::steady_clock::now();
      if (callbacks.preview && std::chrono::duration<double>(now - shown).count() >= callbacks.preview_seconds &&
          step + 1 < sampler->steps() && sampler->denoised().defined()) {
        callbacks.preview(first, decode(sampler->denoised().slice(0, 0, 1)));
        shown = std::chrono::steady_clock::now();
      }
      return !callbacks.progress ||
             callbacks.progress({.done = first, .count = job.count, .step = step + 1 - run.first_step, .steps = steps});
    };
    const std::optional<Tensor> finished = denoise(latents, run);
    if (!finished) return false;
    for (std::int64_t b = 0; b < batch; ++b) {
      Image image = decode(finished->slice(0, b, b + 1));
      if (mask) {
        const Image original = convert_channels(*picture, static_cast<int>(image.channels));
        for (std::int64_t i = 0; i < mask->width * mask->height; ++i)
          if (mask->pixels[static_cast<std::size_t>(i)] < 128)
            std::copy_n(original.pixels.begin() + i * image.channels, image.channels, image.pixels.begin() + i * image.channels);
      }
      if (callbacks.picture) callbacks.picture(first + b, image);
      if (callbacks.progress && b + 1 < batch &&
          !callbacks.progress({.done = first + b + 1, .count = job.count, .step = steps, .steps = steps}))
        return false;
    }
  }
  return true;
}

std::vector<Image> Generator::generate(const GenerateJob& job) const {
  std::vector<Image> pictures;
  generate(job, {.picture = [&](std::int64_t, const Image& picture) { pictures.push_back(picture); }});
  return pictures;
}

}  // namespace vitrine
