// Files that are there whole or not at all.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <vitrine/layers/export.h>

namespace vitrine::detail {

// Writes PATH through a temporary file beside it that commit() renames to PATH: an error, an exception or a full disk
// leaves neither a partial file nor a changed old one. What is no regular file (/dev/stdout, a pipe) is written directly.
// Errors throw vitrine::Error: `PATH: No space left on device`.
class VITRINE_API AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();  // without commit(): the temporary file goes
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void sync();  // waits until the disk has it: for large files, where a full or broken one may show only then
  void commit();

 private:
  [[noreturn]] void fail(int error);

  std::string path_, temporary_;
  int file_ = -1;
};

// Before long work whose result goes to PATH: throws what writing it would, for a folder that is read-only, a name that is too
// long, ...; leaves nothing behind.
VITRINE_API void check_writable(const std::string& path);

VITRINE_API void write_file(const std::string& path, std::string_view content);

}  // namespace vitrine::detail
