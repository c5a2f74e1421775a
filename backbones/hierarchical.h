// What backbones of stages share: each stage works on a map of its own stride (Swin, NAT, ConvNeXt, ResNet and the like).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/modules.h>

namespace vitrine::detail {

// timm's global_pool: how the last map becomes a vector. `catavgmax` is the mean and the maximum one after the other.
enum class GlobalPool : std::uint8_t { avg, max, avgmax, catavgmax };
GlobalPool parse_global_pool(std::string_view model, std::string_view value);  // throws Error
VITRINE_API Tensor global_pool(const Tensor& x, GlobalPool pool);              // [B, H, W, C] -> [B, C], catavgmax [B, 2 C]

// A convolution in steps of its kernel leaves out what is beyond the last whole step: x [B, H, W, C] without it. Throws Error
// where nothing is left.
Tensor whole_patches(const Tensor& x, const std::array<std::int64_t, 2>& size, std::string_view model);
inline Tensor whole_patches(const Tensor& x, std::int64_t size, std::string_view model) {
  return whole_patches(x, std::array{size, size}, model);
}

// x [B, H, W, C] with zeros at the bottom and right, up to multiples of `size`.
Tensor pad_to_multiple(const Tensor& x, std::int64_t size);

// How a map lies in the original, for observers: [B, H, W, C], [B, C, H, W] or [B, H W, C].
enum class ObservedLayout : std::uint8_t { nhwc, nchw, tokens };

// Calls the observer, where there is one, with x [B, H, W, C] as an original whose maps are [B, C, H, W] has it.
void observe_nchw(const Observer& observer, std::string_view path, const Tensor& x);

// A family derives from it, fills in strides_ and in_chans_, calls set_head, and writes run_stages; what differs from mean,
// linear layer in its head it overrides.
class VITRINE_API HierarchicalBackbone : public Backbone {
 public:
  Tensor forward_features(const Tensor& images, const Observer& observer = {}) const override;  // [B, H', W', C]
  Tensor forward_head(const Tensor& features, bool pre_logits = false) const override;
  // The stages' maps; `norm` applies the final norm to the last one.
  std::vector<IntermediateMap> forward_intermediates(const Tensor& images,
                                                     const IntermediatesOptions& options = {}) const override;

 protected:
  using StageDone = std::function<void(std::size_t stage, const Tensor& map)>;  // may be empty, as Observer
  // images [B, H, W, in_chans] in the model's dtype -> the last stage's map; each stage's map goes to `stage_done`.
  virtual Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const = 0;
  virtual Tensor final_norm(const Tensor& x) const { return x; }
  virtual Tensor pool(const Tensor& features) const;  // [B, H', W', C] -> [B, num_features], what enters head_
  // The classes' layer, read from `head` where there are classes, and what Backbone has to know: `features` channels enter it.
  void set_head(const Weights& head, std::int64_t features, std::int64_t num_classes);
  // Throws Error for images [B, H, W, C] of another size; `what` of the model is of that size.
  void check_image_size(const Tensor& images, const std::array<std::int64_t, 2>& size, std::string_view what) const;
  // Shows a map to the observer, if there is one, in the original's layout.
  void observe(const Observer& observer, std::string_view path, const Tensor& map) const;

  std::int64_t in_chans_ = 3;
  std::vector<std::int64_t> strides_;  // of the stages
  Linear head_;                        // undefined: no classes
  ObservedLayout observed_ = ObservedLayout::nhwc;
  std::string_view final_name_ = "norm";  // what observers know the final norm by

 private:
  Tensor checked(const Tensor& images) const;
};

// Swin's: norm and linear layer over 2x2 neighbors, [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), out]; odd sizes are filled
// up with zeros. The original lays the neighbors out column by column; the parameters are reordered once.
struct VITRINE_API PatchMerging {
  PatchMerging() = default;
  // Reads w.reduction.weight [out, 4 dim], w.norm of 4 dim (norm first), or of `out` where `norm_last` (Swin V2).
  PatchMerging(const Weights& w, std::int64_t dim, std::int64_t out, double eps, bool norm_last = false);
  Tensor operator()(const Tensor& x) const;
  bool defined() const { return norm.defined(); }

  LayerNorm norm;
  Linear reduction;
  bool norm_last = false;
};

}  // namespace vitrine::detail
