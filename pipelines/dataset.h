// Labelled pictures for evaluation.
//
//   auto data = open_dataset("fashion-mnist");
//   for (std::int64_t i = 0; i < data->size(); ++i) use(data->image(i), data->label(i));
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/pipelines/image.h>

namespace vitrine {

// All members may be called from several threads at once.
class VITRINE_API Dataset {
 public:
  virtual ~Dataset();

  virtual std::int64_t size() const = 0;
  virtual std::int64_t label(std::int64_t i) const = 0;
  virtual Image image(std::int64_t i) const = 0;       // grey or RGB as stored; throws Error where it cannot be read
  virtual std::string name(std::int64_t i) const = 0;  // a path, or "t10k-images-idx3-ubyte.gz[17]"

  const std::vector<std::string>& classes() const { return classes_; }  // by label; may be empty
  const std::string& description() const { return description_; }       // one line

 protected:
  std::vector<std::string> classes_;
  std::string description_;
};

// `spec`:
//   fashion-mnist  the 10,000 test images where Debian's package dataset-fashion-mnist puts them, or in VITRINE_FASHION_MNIST;
//                  fashion-mnist:DIR for another place, fashion-mnist-train[:DIR] for the 60,000 of training
//   idx:DIR        t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain or .gz (train-* where there are no t10k-*)
//   folder:DIR     a sub-folder a class, its pictures below it at any depth
// `model_classes`: the model's class names. Sub-folders are matched to them by name where every name is known, to those of
// ImageNet-1k also by synset; else they are numbered in their sorted order as torchvision's ImageFolder does. More sub-folders
// than classes throw Error.
VITRINE_API std::unique_ptr<Dataset> open_dataset(std::string_view spec, std::span<const std::string> model_classes = {});

}  // namespace vitrine
