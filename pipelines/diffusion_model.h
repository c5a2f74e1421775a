// A diffusion model's parts, from what a user names: denoiser, autoencoder, text encoders, and the settings of its sampler.
//
// Folders are in diffusers' layout: model_index.json and a folder for each part, as its save_pretrained writes them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/backbones/autoencoder.h>
#include <vitrine/backbones/denoiser.h>
#include <vitrine/layers/dtype.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>
#include <vitrine/pipelines/prompt.h>
#include <vitrine/weights/hub.h>

namespace vitrine {

struct DiffusionModelOptions {
  // A shipped model ("dit_fashion"), a folder, one of the Hugging Face hub ("hf:OWNER/NAME"), or a published denoiser of
  // list_denoisers() ("DiT-XL/2") with its weights.
  std::string model{};
  // Of the denoiser, in the place of the model's own. Of a whole pipeline's file (CompVis's and Stability's names) the
  // autoencoder and the CLIP encoders are taken, too; the folder has the configurations and tokenizers.
  std::string weights{};
  // Of folders and of the hub: the weights that have this beside the plain ones ("fp16"), in each part that has them.
  std::string variant{};
  std::string vae{};  // a folder with an autoencoder's config.json and weights, in the place of the model's own
  // The attention of the denoiser: "clear:radius=8,down=2" (FLUX, SD3), "linfusion:weights=FILE" and "agent:ratio=0.5" (U-Nets),
  // "neighborhood:kernel_size=5", "window:...", "linear" (DiT); empty: its own.
  std::string attention{};
  std::int64_t text_tokens = 0;  // that T5 reads; 0: as many as the pipeline does
  DType dtype = DType::f32;
  Device device{};
  bool int8_weights = false;  // as in WeightsOptions: of denoiser and text encoders
  FetchProgress progress{};   // of downloads
};

// What the options lead to, with the parts still on disk: configurations are read, weights are mapped.
class VITRINE_API DiffusionModel {
 public:
  // Throws Error: unknown names (with the nearest), missing files, configurations that are damaged or not known.
  explicit DiffusionModel(DiffusionModelOptions options);
  ~DiffusionModel();
  DiffusionModel(DiffusionModel&&) noexcept;
  DiffusionModel& operator=(DiffusionModel&&) noexcept;

  // Each call reads the part anew. They throw Error.
  std::unique_ptr<Denoiser> load_denoiser() const;
  std::unique_ptr<Autoencoder> load_autoencoder() const;  // null: the denoiser works on pixels
  TextEncoders load_text_encoders() const;                // none where the model reads classes

  const std::string& name() const;  // as the user has it
  const PipelineKind& kind() const;
  const DenoiserInfo& denoiser() const;                       // known without loading it
  const std::optional<AutoencoderInfo>& autoencoder() const;  // the same; nothing: pixels
  int steps() const;                            // where the user asks for none: the checkpoint's, else the pipeline's
  double guidance() const;                      //
  const std::string& scheduler() const;         // JSON, for create_sampler
  const std::string& scheduler_source() const;  // where it is from, for messages
  // The sampler for it: empty, its own, or one that takes the place of a scheduler that is not known, which is one of
  // warnings().
  const std::string& sampler() const;
  const std::vector<std::string>& classes() const;   // as many as the denoiser has, or empty: unknown
  const std::vector<std::string>& warnings() const;  // a line each
  DType dtype() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace vitrine
