// Segmentation by importance: what in a photograph draws the eye, as a map, a mask and regions.
//
//   Segmenter segmenter(ModelOptions{.model = "vit_small_patch14_focus"});
//   const Segmentation s = segmenter.segment(read_image("coffee.png"));
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/pipelines/draw.h>
#include <vitrine/pipelines/image.h>
#include <vitrine/pipelines/load_model.h>
#include <vitrine/pipelines/preprocess.h>

namespace vitrine {

class FocusModel;

struct SegmentOptions {
  double threshold = 0.5;   // of the map's range: 0 is its least value, 1 its largest
  double min_area = 0.001;  // regions with a smaller share of the picture are left out
};

// All at the picture's own size.
struct VITRINE_API Segmentation {
  std::int64_t width = 0, height = 0;
  std::vector<float> importance;  // in [0, 1], row by row
  float low = 0.0f, high = 0.0f;  // range of the map
  float threshold = 0.0f;         // the map's value that the threshold means
  std::vector<Region> regions;    // largest first

  Image mask() const;                            // grey: 255 at and above the threshold, else 0
  Image overlay(const Image& photograph) const;  // the map's colours over it, and the regions' boxes with their scores
};

// May be used from several threads at once, each under its own Context.
class VITRINE_API Segmenter {
 public:
  // Throws Error where the model cannot be loaded or is not made for this.
  explicit Segmenter(const ModelOptions& options);
  ~Segmenter();
  Segmenter(Segmenter&&) noexcept;
  Segmenter& operator=(Segmenter&&) noexcept;

  Segmentation segment(const Image& image, const SegmentOptions& options = {}) const;

  // The same in steps: what can be done with each picture; pictures -> importance [B, H, W], f32; and from
  // one map [H, W] to the answer for the picture of width x height that it came from.
  PreparedImage prepare(Image image) const;
  Tensor importance(std::span<const PreparedImage> prepared) const;
  Segmentation finish(const Tensor& map, std::int64_t width, std::int64_t height, const SegmentOptions& options = {}) const;

  const std::string& name() const { return name_; }
  const PreprocessConfig& preprocess() const { return preprocess_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  std::string name_;
  PreprocessConfig preprocess_;
  DType dtype_ = DType::f32;
  std::vector<std::string> warnings_;
  std::unique_ptr<FocusModel> model_;
};

}  // namespace vitrine
