// Images to tokens: patches, the tokens put in front of them, and the learned position table for any grid of patches.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/size_cache.h>

namespace vitrine::detail {

// How a position table made for one grid serves another: timm's bicubic with antialiasing (first to the grid of
// img_size, from there to the image's), or the plain bicubic of transformers, from the stored table.
enum class TableInterpolation : std::uint8_t { timm, transformers };
TableInterpolation parse_interpolation(std::string_view model, std::string_view name);  // pos_embed_interpolation; throws Error

struct EmbeddingConfig {
  std::array<std::int64_t, 2> img_size{224, 224}, patch_size{16, 16};
  std::int64_t in_chans = 3, dim = 768;
  bool bias = true;                      // of the patch projection
  std::optional<NormConfig> patch_norm;  // after the patch projection
  std::vector<std::string> prefix;       // parameters [1, n, dim] in front of the patches, in order
  std::int64_t reg_tokens = 0;           // n of "reg_token"; the others have one
  bool pos_embed = true;                 // a learned table
  bool pos_embed_prefix = true;          // the table has rows for the prefix, too
  bool pad = false;                      // zeros at the bottom and right of what the patch does not divide
  TableInterpolation interpolation = TableInterpolation::timm;
};

// Images to tokens: patches, prefix and the learned position table.
class Embedding {
 public:
  Embedding() = default;
  Embedding(const Weights& w, const EmbeddingConfig& config, std::string_view model);

  // images [B, H, W, in_chans] -> [B, prefix + N, dim], and where they are
  std::pair<Tensor, Positions> operator()(const Tensor& images, DType dtype, std::string_view model) const;

  std::int64_t prefix_tokens() const { return prefix_tokens_; }
  std::array<std::int64_t, 2> grid() const { return grid_; }  // of img_size
  std::int64_t stride() const { return std::max(config_.patch_size[0], config_.patch_size[1]); }

 private:
  Tensor crop_or_pad(const Tensor& images, std::string_view model) const;
  void read_table(const Weights& w);

  EmbeddingConfig config_;
  PatchEmbed patches_;
  Norm patch_norm_;
  std::array<std::int64_t, 2> grid_{}, table_grid_{};
  std::int64_t prefix_tokens_ = 0;
  Tensor prefix_;  // [prefix, dim], f32, with their positions
  Tensor table_;   // [1, table_grid, dim], f32
  SizeCache<Tensor> tables_;
};

}  // namespace vitrine::detail
