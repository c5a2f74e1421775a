// The mechanisms by name, as token mixers of plain backbones: vit_small_patch16_224[attention=hilo,alpha=0.9].
//
// A mixer takes what attention takes in a ViT's block, tokens [B, prefix + H W, C] with the class token and registers first,
// and gives the same; its parameters have the mechanism's own names. Mechanisms that know maps only refuse a prefix.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// Where the tokens are: `prefix` of them, then the map row by row.
struct TokenMap {
  std::int64_t prefix = 0, height = 0, width = 0;
};

class VITRINE_API Mixer {
 public:
  virtual ~Mixer();
  // x [B, prefix + height * width, C] -> the same, plus `residual`. Thread-safe.
  virtual Tensor operator()(const Tensor& x, const TokenMap& map, Tensor residual = {}) const = 0;
};

enum class MixerOptionKind : std::uint8_t { integer, pair, number, boolean, choice };

struct MixerOption {
  std::string_view name;
  MixerOptionKind kind = MixerOptionKind::integer;
  double otherwise = 0;  // of both numbers of a pair; a choice's index
  double least = 0, most = 0;
  std::string_view what;
  std::span<const std::string_view> choices{};
};

// Values by an option's name: the second number is that of a pair [rows, columns]; booleans are 0 and 1, choices an index.
using MixerValues = std::map<std::string, std::array<double, 2>, std::less<>>;

struct MixerConfig {
  std::int64_t dim = 0, num_heads = 1;
  std::int64_t block = 0;  // index of the block, for mechanisms that alternate
  TokenMap tokens;         // of the size that the model is built for
  bool qkv_bias = true;
  LinearOptions proj;  // of the last projection; its scale is folded in or multiplied
  MixerValues values;  // options that are absent have their defaults
};

struct Mechanism {
  std::string_view name, what;
  bool takes_prefix = false;  // class token and registers
  std::span<const MixerOption> options;
  std::unique_ptr<const Mixer> (*build)(const Weights& w, const MixerConfig& config);  // of checked values
};

VITRINE_API std::span<const Mechanism> mechanisms();
VITRINE_API const Mechanism& find_mechanism(std::string_view name);  // throws Error with the nearest names

// Throws Error for an unknown option, a value out of its range, or what the mechanism itself refuses.
VITRINE_API std::unique_ptr<const Mixer> make_mixer(const Mechanism& mechanism, const Weights& w, const MixerConfig& config);

}  // namespace vitrine
