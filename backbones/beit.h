// BEiT and BEiT v2: the vision transformer with a relative position bias in every block.
//
// Source: "BEiT" (arXiv:2106.08254), "BEiT v2" (arXiv:2208.06366); timm 1.0.31, timm/models/beit.py. Arguments and
// parameters have timm's names.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/backbones/token_backbone.h>

namespace vitrine {

struct BeitConfig {
  std::string name;  // for messages
  std::array<std::int64_t, 2> img_size{224, 224}, patch_size{16, 16};
  std::int64_t in_chans = 3, num_classes = 1000;
  detail::Pooling global_pool = detail::Pooling::avg;
  std::int64_t embed_dim = 768, depth = 12, num_heads = 12;
  bool qkv_bias = true, swiglu_mlp = false, scale_mlp = false;
  double mlp_ratio = 4.0;
  detail::NormConfig norm;
  std::optional<double> init_values;  // given and not 0: layer scale (the value is an initialization)
  bool use_abs_pos_emb = true, use_rel_pos_bias = false, use_shared_rel_pos_bias = false;
  std::optional<bool> use_fc_norm;
  detail::TableInterpolation interpolation = detail::TableInterpolation::timm;
};

// A table of biases by the offset of two patches, made for one grid of patches and interpolated for others.
class RelativePositions {
 public:
  using Grid = std::array<std::int64_t, 2>;

  // Reads w.relative_position_bias_table [(2 h - 1) (2 w - 1) + 3, heads]: offsets (y, x) of query minus key row by row,
  // then class token to patches, patches to class token, class token to itself. A checkpoint's may be of another, square,
  // grid. `shared`, a table of the same grid, is added.
  RelativePositions(const Weights& w, const Grid& grid, std::int64_t num_heads, detail::TableInterpolation interpolation,
                    const RelativePositions* shared);

  // f32 [1, heads, 1 + height width, 1 + height width], on the device of `index`.
  Tensor bias(std::int64_t height, std::int64_t width, const Tensor& index) const;
  // Which entry of the table each query and key have, i32: the same for all tables.
  static Tensor index(std::int64_t height, std::int64_t width);

 private:
  Tensor table_for(const Grid& grid) const;

  std::int64_t num_heads_;
  detail::TableInterpolation interpolation_;
  Tensor offsets_, extra_;  // [2 h - 1, 2 w - 1, heads], [3, heads]; on the host, where they are interpolated
  detail::SizeCache<Tensor> tables_;
};

class Beit final : public detail::TokenBackbone {
 public:
  Beit(const Weights& w, BeitConfig config);
  const BeitConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const BeitConfig& c, const Tensor& gamma1, const Tensor& gamma2);

    detail::Norm norm1, norm2;
    detail::SelfAttention attn;
    detail::FeedForward mlp;
    std::unique_ptr<const RelativePositions> positions;  // unset: the model's shared one, if any
  };

  std::int64_t depth() const override { return config_.depth; }
  Tensor run_block(std::int64_t index, Tensor x, const detail::Positions& positions) const override;

  BeitConfig config_;
  std::vector<Block> blocks_;
  std::unique_ptr<const RelativePositions> shared_;
  detail::SizeCache<Tensor> index_;
};

}  // namespace vitrine
