// A mapped file of tensors, whatever its format: a format's constructor says where each tensor lies, checking every place and
// size first; names, types and loading are the same for all.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/weights.h>
#include <vitrine/weights/mapped_file.h>
#include <vitrine/weights/stored.h>

namespace vitrine::detail {

class StoredFile : public WeightSource {
 public:
  std::string describe() const override { return file_->path(); }
  std::map<std::string, std::string> metadata() const override { return metadata_; }
  std::vector<std::string> names() const override;
  std::optional<Entry> find(std::string_view name) const override;
  Tensor load(std::string_view name, const Shape& shape) const override;  // throws Error for a name that is not there
  void release(std::string_view name) const override;

 protected:
  explicit StoredFile(const std::string& path) : file_(std::make_shared<MappedFile>(path)) {}
  std::string where(std::string_view name) const;  // "PATH: 'NAME'", for messages

  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace vitrine::detail
