#include <vitrine/pipelines/files.h>

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <vitrine/layers/error.h>

namespace vitrine {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void fail(const std::string& path, std::string_view doing) {
  throw Error(fmt::format("{}: {}: {}", path, doing, std::strerror(errno)));
}

}  // namespace

std::vector<std::uint8_t> read_file(const std::string& path, std::string_view what) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    if (errno == ENOENT) throw Error(fmt::format("{}: no such file", path));
    fail(path, "cannot be opened");
  }
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail(path, "cannot be read");
  if (S_ISDIR(status.st_mode)) throw Error(fmt::format("{}: a directory, expected {}", path, what));
  std::vector<std::uint8_t> bytes(S_ISREG(status.st_mode) ? static_cast<std::size_t>(status.st_size) : 0);
  // On to the end of the file, which for pipes is not known and for files may have moved.
  constexpr std::size_t kStep = std::size_t{1} << 16, kMost = std::size_t{1} << 31;
  std::size_t size = 0;
  while (true) {
    if (size == bytes.size()) bytes.resize(size + kStep);
    if (bytes.size() > kMost) throw Error(fmt::format("{}: larger than 2 GiB, expected {}", path, what));
    const ssize_t count = ::read(file.get(), bytes.data() + size, bytes.size() - size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path, "cannot be read");
    if (count == 0) break;
    size += static_cast<std::size_t>(count);
  }
  bytes.resize(size);
  return bytes;
}

}  // namespace vitrine
