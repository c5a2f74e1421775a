// The 1,000 classes of ImageNet-1k (ILSVRC 2012), in the order that published models have them: labels/imagenet1k.tsv of the
// data directory, a synset of WordNet and its words a line.
#pragma once

#include <string>
#include <vector>

#include <vitrine/layers/export.h>

namespace vitrine {

struct ImageNetClass {
  std::string synset;  // "n01440764"
  std::string name;    // "tench, Tinca tinca"
};

VITRINE_API const std::vector<ImageNetClass>& imagenet_classes();  // throws Error where the file is missing or damaged

}  // namespace vitrine
