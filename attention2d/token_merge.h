// Token merging: tokens that are most alike are averaged, so that what follows has fewer of them.
//
// The top left token of each whole cell of the map is a destination, the others are sources. A source's destination is the one
// of the largest cosine; the `count` sources of the largest cosines are merged into theirs, by the mean of all that meet there.
// No randomness: equal cosines fall to the lower index. Matches are choices that routing_trace.h can repeat.
//
// Source: "Token Merging for Fast Stable Diffusion" (arXiv:2303.17604), as in LeapLabTHU/Agent-Attention agentsd/merge.py.
// Cost: sources x destinations x C multiply-adds for the matching.
#pragma once

#include <cstdint>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

struct TokenCells {
  std::int64_t height = 0, width = 0;            // of the map
  std::int64_t cell_height = 2, cell_width = 2;  // of a cell
};

// What merging needs to know of x, for any number of merged tokens: all indices i32 into the N tokens.
struct TokenMatches {
  Tensor destinations;  // [D], rising
  Tensor sources;       // [B, S], by falling likeness
  Tensor targets;       // [B, S], of the same order: the destination's position among `destinations`
};

struct MergedTokens {
  Tensor tokens;  // [B, N - count, C]: the sources that are left, by rising index, then the destinations
  Tensor origin;  // i32 [B, N]: the merged token that stands for each token
};

// x [B, height * width, C]
VITRINE_API TokenMatches match_tokens(const Tensor& x, const TokenCells& cells);
// `count` is at most the number of sources.
VITRINE_API MergedTokens merge_tokens(const Tensor& x, const TokenMatches& matches, std::int64_t count);
// y [B, N - count, C] -> [B, N, C]: every token receives the row of its merged token.
VITRINE_API Tensor unmerge_tokens(const Tensor& y, const Tensor& origin);

}  // namespace vitrine
