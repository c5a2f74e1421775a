#include <vitrine/pipelines/dataset.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include <fmt/format.h>
#include <zlib.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/files.h>
#include <vitrine/pipelines/pixels.h>
#include <vitrine/weights/labels.h>

namespace vitrine {
namespace {

namespace fs = std::filesystem;

// At most `most` bytes of a file, unpacked where it is compressed by gzip.
std::vector<std::uint8_t> unpack(const std::string& path, std::span<const std::uint8_t> file, std::size_t most) {
  const bool packed = file.size() >= 2 && file[0] == 0x1F && file[1] == 0x8B;
  if (!packed) return {file.begin(), file.begin() + static_cast<std::ptrdiff_t>(std::min(most, file.size()))};
  std::vector<std::uint8_t> bytes(most);
  z_stream stream{};
  constexpr int kGzip = 15 + 16;
  if (inflateInit2(&stream, kGzip) != Z_OK) throw Error(fmt::format("{}: cannot be unpacked", path));
  stream.next_in = const_cast<std::uint8_t*>(file.data());
  stream.avail_in = static_cast<uInt>(file.size());
  stream.next_out = bytes.data();
  stream.avail_out = static_cast<uInt>(bytes.size());
  const int status = inflate(&stream, Z_FINISH);
  bytes.resize(bytes.size() - stream.avail_out);
  inflateEnd(&stream);
  if (status == Z_DATA_ERROR || status == Z_NEED_DICT) throw Error(fmt::format("{}: damaged gzip data", path));
  return bytes;
}

// An IDX file of unsigned bytes: two zeros, the type 8, the number of axes, the sizes (big endian), the values.
struct Idx {
  std::vector<std::int64_t> sizes;
  std::vector<std::uint8_t> values;
};

Idx read_idx(const std::string& path, std::size_t axes) {
  const std::vector<std::uint8_t> file = read_file(path, "an IDX file");
  const std::size_t header_size = 4 + 4 * axes;
  const std::vector<std::uint8_t> header = unpack(path, file, header_size);
  if (header.size() < header_size || header[0] != 0 || header[1] != 0 || header[2] != 8 || header[3] != axes) {
    throw Error(fmt::format("{}: not an IDX file of bytes with {} axes", path, axes));
  }
  constexpr std::size_t kMost = std::size_t{1} << 31;
  Idx idx;
  std::size_t total = 1;
  for (std::size_t axis = 0; axis < axes; ++axis) {
    const std::uint8_t* at = header.data() + 4 + 4 * axis;
    const std::size_t size = std::size_t{at[0]} << 24 | std::size_t{at[1]} << 16 | std::size_t{at[2]} << 8 | at[3];
    if (size == 0 || size > kMost / total) throw Error(fmt::format("{}: axis {} has size {}", path, axis, size));
    total *= size;
    idx.sizes.push_back(static_cast<std::int64_t>(size));
  }
  const std::size_t expected = header_size + total;
  constexpr std::size_t kMostOfDeflate = 1032;  // bytes that one byte can become
  std::size_t got = file.size();
  if (expected <= file.size() * kMostOfDeflate) {
    idx.values = unpack(path, file, expected + 1);  // one more, to notice what does not belong there
    got = idx.values.size();
  }
  if (got != expected) {
    throw Error(fmt::format("{}: {} than the {} bytes that its header says", path, got < expected ? "truncated, less" : "more",
                            expected));
  }
  idx.values.erase(idx.values.begin(), idx.values.begin() + static_cast<std::ptrdiff_t>(header_size));
  return idx;
}

class IdxDataset : public Dataset {
 public:
  IdxDataset(const std::string& images, const std::string& labels, std::vector<std::string> classes, std::string description)
      : file_(fs::path(images).filename().string()), images_(read_idx(images, 3)), labels_(read_idx(labels, 1)) {
    if (images_.sizes[0] != labels_.sizes[0]) {
      throw Error(fmt::format("{}: {} labels, but {} holds {} pictures", labels, labels_.sizes[0], images, images_.sizes[0]));
    }
    const std::size_t largest = *std::max_element(labels_.values.begin(), labels_.values.end());
    if (!classes.empty() && largest >= classes.size()) {
      throw Error(fmt::format("{}: label {}, but there are {} classes", labels, largest, classes.size()));
    }
    classes_ = std::move(classes);
    description_ = std::move(description);
  }

  std::int64_t size() const override { return images_.sizes[0]; }
  std::int64_t label(std::int64_t i) const override { return labels_.values[static_cast<std::size_t>(i)]; }
  Image image(std::int64_t i) const override {
    Image image = make_image(images_.sizes[2], images_.sizes[1], 1);
    std::memcpy(image.pixels.data(), images_.values.data() + static_cast<std::size_t>(i) * image.pixels.size(),
                image.pixels.size());
    return image;
  }
  std::string name(std::int64_t i) const override { return fmt::format("{}[{}]", file_, i); }

 private:
  std::string file_;
  Idx images_, labels_;
};

// "DIR/PREFIX-images-idx3-ubyte" or with .gz, whichever is there.
std::optional<std::string> find_idx(const fs::path& folder, std::string_view name) {
  for (const std::string_view suffix : {"", ".gz"}) {
    const fs::path path = folder / fmt::format("{}{}", name, suffix);
    std::error_code ignored;
    if (fs::exists(path, ignored)) return path.string();
  }
  return std::nullopt;
}

std::unique_ptr<Dataset> open_idx(const std::string& folder, std::span<const std::string_view> prefixes,
                                  std::vector<std::string> classes) {
  for (const std::string_view prefix : prefixes) {
    const auto images = find_idx(folder, fmt::format("{}-images-idx3-ubyte", prefix));
    if (!images) continue;
    const auto labels = find_idx(folder, fmt::format("{}-labels-idx1-ubyte", prefix));
    if (!labels) throw Error(fmt::format("{}: {}-labels-idx1-ubyte[.gz] is missing beside the pictures", folder, prefix));
    return std::make_unique<IdxDataset>(*images, *labels, std::move(classes), *images);
  }
  throw Error(fmt::format("{}: no {}-images-idx3-ubyte[.gz] there", folder, prefixes.front()));
}

std::unique_ptr<Dataset> open_fashion(std::string_view folder, bool training) {
  static constexpr std::string_view kTest[] = {"t10k"}, kTraining[] = {"train"};
  std::vector<std::string> classes{"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                   "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
  std::string path(folder);
  if (path.empty()) {
    const char* variable = std::getenv("VITRINE_FASHION_MNIST");
    path = variable != nullptr && *variable != '\0' ? variable : "/usr/share/datasets/fashion-mnist";
    std::error_code ignored;
    if (!fs::is_directory(path, ignored)) {
      throw Error(
          fmt::format("fashion-mnist: no folder {}; install Debian's package dataset-fashion-mnist, or say where the "
                      "files are: fashion-mnist:DIR or VITRINE_FASHION_MNIST",
                      path));
    }
  }
  return open_idx(path, training ? kTraining : kTest, std::move(classes));
}

class FolderDataset : public Dataset {
 public:
  FolderDataset(const std::string& folder, std::span<const std::string> model_classes) {
    std::error_code error;
    std::vector<std::string> names;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
      const std::string name = entry->path().filename().string();
      std::error_code ignored;
      if (!name.starts_with('.') && entry->is_directory(ignored)) names.push_back(name);
    }
    if (error) throw Error(fmt::format("{}: {}", folder, error.message()));
    if (names.empty()) throw Error(fmt::format("{}: no sub-folders; expected one a class", folder));
    std::sort(names.begin(), names.end());
    const std::vector<std::int64_t> labels = number(folder, names, model_classes);
    for (std::size_t i = 0; i < names.size(); ++i) add_class(fs::path(folder) / names[i], labels[i]);
    if (samples_.empty()) throw Error(fmt::format("{}: no pictures in its sub-folders", folder));
    description_ = fmt::format("{}: {} pictures, {} folders", folder, samples_.size(), names.size());
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(samples_.size()); }
  std::int64_t label(std::int64_t i) const override { return samples_[static_cast<std::size_t>(i)].label; }
  Image image(std::int64_t i) const override { return read_image(samples_[static_cast<std::size_t>(i)].path); }
  std::string name(std::int64_t i) const override { return samples_[static_cast<std::size_t>(i)].path; }

 private:
  struct Sample {
    std::string path;
    std::int64_t label;
  };

  // By the model's class names, or in sorted order; half of each would give wrong accuracies without a word.
  std::vector<std::int64_t> number(const std::string& folder, const std::vector<std::string>& names,
                                   std::span<const std::string> model_classes) {
    std::vector<std::int64_t> labels;
    std::vector<std::string> unknown;
    for (const std::string& name : names) {
      const auto found = std::find(model_classes.begin(), model_classes.end(), name);
      if (found == model_classes.end()) unknown.push_back(name);
      labels.push_back(found - model_classes.begin());
    }
    if (unknown.empty()) {
      classes_.assign(model_classes.begin(), model_classes.end());
      return labels;
    }
    if (unknown.size() < names.size()) {
      throw Error(
          fmt::format("{}: some folders are classes of the model, these are not: {}", folder, detail::list_names(unknown)));
    }
    if (!model_classes.empty() && names.size() > model_classes.size()) {
      throw Error(fmt::format("{}: {} folders, but the model has {} classes", folder, names.size(), model_classes.size()));
    }
    if (number_by_synset(names, model_classes, labels)) return labels;
    classes_ = names;
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int64_t>(i);
    return labels;
  }

  // Folders named as ImageNet's are, perhaps not all of them, for a model of its classes.
  bool number_by_synset(const std::vector<std::string>& names, std::span<const std::string> model_classes,
                        std::vector<std::int64_t>& labels) {
    if (model_classes.size() != 1000 || !names.front().starts_with('n')) return false;
    const std::vector<ImageNetClass>& known = imagenet_classes();
    std::vector<std::int64_t> numbers;
    for (const std::string& name : names) {
      const auto found = std::find_if(known.begin(), known.end(), [&](const ImageNetClass& c) { return c.synset == name; });
      if (found == known.end() || model_classes[static_cast<std::size_t>(found - known.begin())] != found->name) return false;
      numbers.push_back(found - known.begin());
    }
    classes_.assign(model_classes.begin(), model_classes.end());
    labels = std::move(numbers);
    return true;
  }

  void add_class(const fs::path& folder, std::int64_t label) {
    static constexpr std::array<std::string_view, 10> kExtensions{".jpg", ".jpeg", ".png", ".ppm",  ".bmp",
                                                                  ".pgm", ".tif",  ".gif", ".tiff", ".webp"};
    std::error_code error;
    std::vector<std::string> paths;
    for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
      std::string extension = entry->path().extension().string();
      std::transform(extension.begin(), extension.end(), extension.begin(),
                     [](unsigned char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); });
      if (std::find(kExtensions.begin(), kExtensions.end(), extension) == kExtensions.end()) continue;
      std::error_code ignored;
      if (!entry->is_directory(ignored)) paths.push_back(entry->path().string());
    }
    if (error) throw Error(fmt::format("{}: {}", folder.string(), error.message()));
    std::sort(paths.begin(), paths.end());
    for (std::string& path : paths) samples_.push_back({std::move(path), label});
  }

  std::vector<Sample> samples_;
};

}  // namespace

Dataset::~Dataset() = default;

std::unique_ptr<Dataset> open_dataset(std::string_view spec, std::span<const std::string> model_classes) {
  const std::size_t colon = spec.find(':');
  const std::string_view kind = spec.substr(0, colon);
  const std::string_view place = colon == std::string_view::npos ? std::string_view() : spec.substr(colon + 1);
  if (kind == "fashion-mnist") return open_fashion(place, false);
  if (kind == "fashion-mnist-train") return open_fashion(place, true);
  if (kind != "idx" && kind != "folder") {
    throw Error(fmt::format("data set {}: unknown; expected fashion-mnist, idx:DIR or folder:DIR", detail::printable(spec)));
  }
  if (place.empty()) throw Error(fmt::format("data set {}: which folder? {}:DIR", kind, kind));
  if (kind == "folder") return std::make_unique<FolderDataset>(std::string(place), model_classes);
  static constexpr std::string_view kPrefixes[] = {"t10k", "train"};
  return open_idx(std::string(place), kPrefixes, {model_classes.begin(), model_classes.end()});
}

}  // namespace vitrine
