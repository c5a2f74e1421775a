#include <vitrine/weights/labels.h>

#include <fstream>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/weights/shipped.h>

namespace vitrine {

namespace {

std::vector<ImageNetClass> read_classes() {
  const std::string path = data_directory() + "/labels/imagenet1k.tsv";
  std::ifstream stream(path);
  if (!stream) throw Error(fmt::format("{}: cannot be read", path));
  std::vector<ImageNetClass> classes;
  for (std::string line; std::getline(stream, line);) {
    const auto tab = line.find('\t');
    if (tab == line.npos) throw Error(fmt::format("{}: line {} is not a synset, a tab and a name", path, classes.size() + 1));
    classes.push_back({line.substr(0, tab), line.substr(tab + 1)});
  }
  if (classes.size() != 1000) throw Error(fmt::format("{}: has {} classes, expected 1000", path, classes.size()));
  return classes;
}

}  // namespace

const std::vector<ImageNetClass>& imagenet_classes() {
  static const std::vector<ImageNetClass> classes = read_classes();
  return classes;
}

}  // namespace vitrine
