// A backbone that is an embedding, a row of blocks on the same tokens, a norm and a head.
#pragma once

#include <cstdint>
#include <functional>

#include <vitrine/backbones/backbone.h>
#include <vitrine/backbones/embedding.h>
#include <vitrine/backbones/tokens.h>

namespace vitrine::detail {

class TokenBackbone : public Backbone {
 public:
  // images [B, H, W, C], any size that the patch divides -> tokens [B, prefix + N, dim]. The observer gets patch_embed
  // (tokens with their positions), blocks.I and norm.
  Tensor forward_features(const Tensor& images, const Observer& observer = {}) const final;
  Tensor forward_head(const Tensor& features, bool pre_logits = false) const final;
  // The patches after each block; prefix tokens apart.
  std::vector<IntermediateMap> forward_intermediates(const Tensor& images, const IntermediatesOptions& options = {}) const final;

 protected:
  virtual std::int64_t depth() const = 0;
  // What the blocks know of the positions, on top of where the patches are.
  virtual void locate(Positions&) const {}
  virtual Tensor classify(const Tensor& tokens, bool pre_logits) const { return head_(tokens, pre_logits); }
  virtual Tensor run_block(std::int64_t index, Tensor x, const Positions& positions) const = 0;

  Embedding embed_;
  Norm norm_pre_, norm_;
  Head head_;

 private:
  // Called after each block; false ends the run.
  using BlockDone = std::function<bool(std::int64_t index, const Tensor& x, const Positions& positions)>;
  Tensor run(const Tensor& images, const Observer& observer, const BlockDone& done) const;
};

}  // namespace vitrine::detail
