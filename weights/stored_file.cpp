#include <vitrine/weights/stored_file.h>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace vitrine::detail {

std::vector<std::string> StoredFile::names() const {
  std::vector<std::string> all;
  for (const auto& [name, tensor] : tensors_) all.push_back(name);
  return all;
}

std::optional<WeightSource::Entry> StoredFile::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return std::nullopt;
  const StoredTensor& t = found->second;
  return Entry{t.type->as.value_or(DType::u8), t.shape, t.type->name};
}

Tensor StoredFile::load(std::string_view name, const Shape&) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw Error(fmt::format("{}: there is no '{}'", file_->path(), printable(name)));
  const StoredTensor& t = found->second;
  return load_stored(t, t.file ? t.file : file_, where(name));
}

void StoredFile::release(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return;
  const StoredTensor& t = found->second;
  if (t.at == nullptr || !t.strides.empty()) return;  // pages of views may be others', too
  const MappedFile& file = t.file ? *t.file : *file_;
  const auto begin = static_cast<std::size_t>(t.at - file.bytes().data());
  file.release(begin, begin + stored_bits(*t.type, t.shape).value_or(0) / 8);
}

std::string StoredFile::where(std::string_view name) const { return fmt::format("{}: '{}'", file_->path(), printable(name)); }

}  // namespace vitrine::detail
