// PoolFormer: MetaFormer blocks that mix tokens by average pooling. arXiv:2111.11418; timm 1.0.31 metaformer.py.
// The example to start a new family from: all of it is in this file (see README.md, "Add a backbone").
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/conv.h>

namespace vitrine::detail {
namespace {

struct Config {  // the arguments of timm's MetaFormer
  std::int64_t in_chans = 3, num_classes = 1000;
  std::vector<std::int64_t> depths{2, 2, 6, 2}, dims{64, 128, 320, 512};
};

struct Block {
  Block(const Weights& w, std::int64_t dim) : norm1(w / "norm1", dim, 1, 1e-5), norm2(w / "norm2", dim, 1, 1e-5) {
    // Pooling is linear in each channel: its layer scale goes into the norm before it.
    const Tensor scale = (w / "layer_scale1").on_device("scale", {dim});
    norm1.weight = multiply(norm1.weight, scale);
    norm1.bias = multiply(norm1.bias, scale);
    mlp = Mlp(w / "mlp", dim, 4 * dim, Activation::gelu, {.scale = (w / "layer_scale2").get("scale", {dim})});
  }
  Tensor operator()(Tensor x) const {  // [B, H, W, C] -> the same
    const Tensor y = norm1(x);
    x = sum(
        std::move(x),
        avg_pool2d(
            y, {.kernel_h = 3, .kernel_w = 3, .stride_h = 1, .stride_w = 1, .pad_h = 1, .pad_w = 1, .count_include_pad = false}));
    x = sum(std::move(x), affine(y, -1, 0));
    return mlp(norm2(x), std::move(x));
  }

  GroupNorm norm1, norm2;
  Mlp mlp;
};

class PoolFormer final : public HierarchicalBackbone {
 public:
  PoolFormer(const Weights& w, const Config& c) {
    std::int64_t dim = c.in_chans;
    for (std::size_t i = 0; i < c.depths.size(); ++i) {
      const Weights stage = w / "stages" / static_cast<std::int64_t>(i);
      Stage& built = stages_.emplace_back();
      built.down = i == 0
                       ? Conv2d(w / "stem" / "conv", dim, c.dims[i], 7, 7, {.stride_h = 4, .stride_w = 4, .pad_h = 2, .pad_w = 2})
                       : Conv2d(stage / "downsample" / "conv", dim, c.dims[i], 3, 3,
                                {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1});
      dim = c.dims[i];
      for (std::int64_t j = 0; j < c.depths[i]; ++j) built.blocks.emplace_back(stage / "blocks" / j, dim);
      strides_.push_back(4 << i);
    }
    head_norm_ = LayerNorm(w / "head" / "norm", dim, 1e-6);
    set_head(w / "head" / "fc", dim, c.num_classes);
    in_chans_ = c.in_chans;
    observed_ = ObservedLayout::nchw;
  }

 private:
  struct Stage {
    Conv2d down;
    std::vector<Block> blocks;
  };

  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override {
    Tensor x = images;
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      x = stages_[i].down(x);  // [B, H / strides_[i], W / strides_[i], dims[i]]
      for (const Block& block : stages_[i].blocks) x = block(std::move(x));
      observe(observer, fmt::format("stages.{}", i), x);
      if (stage_done) stage_done(i, x);
    }
    return x;
  }
  Tensor pool(const Tensor& features) const override { return head_norm_(mean(features, 1, 2)); }

  std::vector<Stage> stages_;
  LayerNorm head_norm_;
};

constexpr Variant kVariants[] = {  // name, arguments, preprocessing where it differs, published accuracy
    {"poolformer_s12", R"({"depths":[2,2,6,2],"dims":[64,128,320,512]})", "", "77.2"},
    {"poolformer_s24", R"({"depths":[4,4,12,4],"dims":[64,128,320,512]})", "", "80.3"},
    {"poolformer_s36", R"({"depths":[6,6,18,6],"dims":[64,128,320,512]})", "", "81.4"},
    {"poolformer_m36", R"({"depths":[6,6,18,6],"dims":[96,192,384,768]})", R"({"crop_pct":0.95})", "82.1"},
    {"poolformer_m48", R"({"depths":[8,8,24,8],"dims":[96,192,384,768]})", R"({"crop_pct":0.95})", "82.5"}};

std::unique_ptr<Backbone> build(const Variant& variant, const Weights& w, const Arguments& arguments) {
  Config c;
  ArgumentReader reader(variant.name, arguments);
  reader.get("in_chans", c.in_chans).get("num_classes", c.num_classes).get("depths", c.depths).get("dims", c.dims);
  reader.ignore({"drop_rate", "drop_path_rate", "img_size"}).finish();
  require(!c.depths.empty() && c.depths.size() == c.dims.size(), variant.name, "depths and dims are not of one length");
  for (const auto& values : {c.depths, c.dims})
    for (const std::int64_t value : values) require_size(variant.name, "a value of depths or dims", value);
  require_size(variant.name, "depths' length", std::ssize(c.depths), 8);
  require_size(variant.name, "in_chans", c.in_chans);
  require_size(variant.name, "num_classes", c.num_classes, 1 << 24, 0);
  return std::make_unique<PoolFormer>(w, c);
}

}  // namespace

constinit const Family kPoolFormerFamily{.name = "poolformer",
                                         .source = "arXiv:2111.11418; timm 1.0.31 metaformer.py",
                                         .attention = "none: average pooling",
                                         .variants = kVariants,
                                         .build = build,
                                         .preprocess = R"({"crop_pct":0.9})",
                                         .head = "head.fc"};

}  // namespace vitrine::detail
