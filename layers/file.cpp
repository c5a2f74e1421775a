#include <vitrine/layers/file.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include <vitrine/layers/error.h>

namespace vitrine::detail {

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
  struct stat status {};
  const bool exists = stat(path.c_str(), &status) == 0;
  if (exists && S_ISDIR(status.st_mode)) fail(EISDIR);
  if (exists && !S_ISREG(status.st_mode)) {
    file_ = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  } else {
    static std::atomic<int> count{0};
    temporary_ = fmt::format("{}.{}-{}.part", path, getpid(), count++);
    file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  }
  if (file_ < 0) {
    const int error = errno;
    temporary_.clear();
    fail(error);
  }
}

AtomicFile::~AtomicFile() {
  if (file_ >= 0) close(file_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    constexpr std::size_t kMost = std::size_t{1} << 30;  // write(2) takes no more than 2 GiB at once
    const ssize_t written = ::write(file_, next, std::min(bytes, kMost));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(written < 0 ? errno : ENOSPC);
    next += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::sync() {
  // Pipes and terminals have no disk (EINVAL, EROFS).
  if (fsync(file_) != 0 && errno != EINVAL && errno != EROFS) fail(errno);
}

void AtomicFile::commit() {
  const int closed = close(file_);
  file_ = -1;
  if (closed != 0) fail(errno);
  if (temporary_.empty()) return;
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail(errno);
  temporary_.clear();
}

void AtomicFile::fail(int error) { throw Error(fmt::format("{}: {}", path_, std::strerror(error))); }

void check_writable(const std::string& path) {
  struct stat status {};
  // To open a pipe and close it again would end it for who reads.
  if (stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return;
  AtomicFile file(path);
}

void write_file(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

}  // namespace vitrine::detail
