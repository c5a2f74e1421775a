// A file mapped for reading. The bytes must not change while it is open: replacing a file by rename is safe, truncating
// it in place is not (no program can read a mapping of what is gone).
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include <vitrine/layers/export.h>

namespace vitrine::detail {

class VITRINE_API MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // throws Error: missing, unreadable, a folder, a device
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // The pages that lie wholly inside [begin, end) leave the resident set. Reading them again is allowed, and slow.
  void release(std::size_t begin, std::size_t end) const;

 private:
  std::string path_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace vitrine::detail
